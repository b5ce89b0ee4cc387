"""Facts about how a step was done: what a note says. Each kind has the fields that it needs, and no others.

A fact is written create-only under a key that follows from what it is about, so that two workers which hold the same
handoff write one history (DESIGN §9, "Recorded facts").
"""

from __future__ import annotations

from msgspec import Raw, Struct

from .names import short_hash
from .outcomes import NULL, Blob, Error, Usage, Work

BUDGET = "budget"
"""What a step waits for, in its notes, that may go on once more may be spent."""


class Begun(Struct, tag="begun", tag_field="type", frozen=True, kw_only=True):
    """A worker begins a step that may have killed its last worker. One that is not followed by an end is a death."""

    attempt: int
    number: int
    """Counts such beginnings of this step, from 1; the key is `begun-{number}`."""


class Retry(Struct, tag="retry", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """An attempt failed and another is to come. The key is `retry-{attempt}`."""

    attempt: int
    error: Error
    delay_s: float = 0.0
    work: Work = Work()
    """What the attempt took: calls that were paid in vain count."""
    begun: int = 0
    """The number of its `begun`, if it has one."""
    seq: int = 0
    delivered: int = 0
    """Which message it was given by, and at which delivery of it: so that the next knows how the last try ended."""


class GivenBack(Struct, tag="given_back", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A worker that stops let go of a step. The key is `back-{seq}-{delivered}`."""

    attempt: int
    begun: int = 0
    reason: str = ""
    seq: int = 0
    delivered: int = 0
    """As those of a retry."""


class Place(Struct, frozen=True, kw_only=True):
    """A place in the line of a rate. The numbers are nanoseconds, as strings: some are larger than all readers read."""

    name: tuple[str, ...]
    part: str
    """How long it lasts."""
    at: str
    """When it begins, as far as was known: of Unix time by the broker's clock."""
    before: str
    """All that was ever taken before it."""


class Waits(Struct, tag="waits", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A step waits for something outside, free of charge: written when it begins to.

    `what` is `provider` (a model's provider said to wait), `limits` (those of the flow let it begin later), `handler`
    (no worker has what the run's flow names) or `budget` (all that may be spent is spent: nobody holds it until there
    is more).
    The key is `waits-{what}-{number}`.
    """

    what: str
    reason: str
    """What it waits for in words: `a worker that has './news.py:write'`."""
    number: int = 0
    """How often the step was woken before."""
    attempt: int = 1
    since_s: float = 0.0
    """When it began to, in seconds of Unix time by the broker's clock."""
    places: list[Place] = []
    """For limits: what it has taken of them."""
    seq: int = 0
    """For a budget: where the handoff is in the log that is to be done again when there is more."""
    of_run: str = ""
    """For a budget: the run whose budget it is; empty for one of a day, which ends by itself."""


class Spent(Struct, tag="spent", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A call that was paid and gave no answer, beside those of failed attempts: it was cut off, or told to wait.

    The key is `spent-{id}`.
    """

    id: str
    reason: str
    work: Work


class Rejected(Struct, tag="rejected", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A message that no attempt would make good. Its bytes are in the log at `seq`."""

    seq: int
    subject: str
    reason: str


class ModelCall(Struct, tag="model", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A model's answer, recorded before it is used, so that a step that is done again does not ask (and pay) again.

    `request_sha256` is the hash of all that was asked: another question is never answered from this record. The key is
    `model-{its beginning}`.
    """

    request_sha256: str
    attempt: int = 1
    text: Raw = NULL
    blob: Blob | None = None
    """The text, when it was too large to be inline."""
    content: Raw = NULL
    """Of an answer to a request with tools: its content blocks, a list, as they came (see `models.content`)."""
    content_blob: Blob | None = None
    """The content blocks, when they were too large to be inline."""
    stop_reason: str = ""
    """Of an answer to a request with tools: why the model stopped."""
    container: str = ""
    """In which the provider ran code for it: what goes on with the conversation is to have the same."""
    model: str = ""
    truncated: bool = False
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    held: str = ""
    """What was held for it of a budget, by its id."""
    copied: bool = False
    """It was made, and paid, in the run that this one goes on from."""
    batch: str = ""
    """The batch in which it was made, by its id in the log."""


class InBatch(Struct, tag="in_batch", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A model call goes with this batch, and with no other: noted on the child that asks for it. The key is `batch`."""

    batch: str
    actor: str
    """Whose calls are in it: its own notes are found by both."""
    count: int = 0
    """Calls that were gathered with it, itself included."""


class BatchSending(Struct, tag="batch_sending", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A batch is about to be sent. As long as no `BatchSent` follows, it may be there: nobody sends it again before
    having looked. Noted on the batch; the key is `sending-{number}`.
    """

    number: int
    """Counts the sendings of this batch, from 1: one more only where it is sure that none before has arrived."""
    count: int
    """Calls in it."""
    id: str = ""
    """Of this very beginning, so that who wrote it knows it for its own."""
    at_s: float = 0.0
    """When, in seconds of Unix time by the broker's clock."""
    until_s: float = 0.0
    """Until when it may be on its way, by the same clock."""


class BatchSent(Struct, tag="batch_sent", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """The provider has a batch. Noted on the batch; the key is `sent`."""

    id: str
    """The provider's id of it; empty when it is rehearsed."""
    count: int
    at_s: float = 0.0
    """When that was known, in seconds of Unix time by the broker's clock."""
    rehearsed: bool = False


class BatchEnded(Struct, tag="batch_ended", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """All calls of a batch have come to something, or went with others. Noted on the batch; the key is `ended`."""

    at_s: float = 0.0
    """When, in seconds of Unix time by the broker's clock."""


class Exchange(Struct, tag="exchange", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """What the Messages API answered to a handler's own client, recorded before the handler sees the end of it.

    `request_sha256` is the hash of all that was asked, `number` counts how often the same was asked before in the
    attempt: a handler that asks twice has two answers. The key is `sdk-{beginning of the hash}-{number}`.
    """

    request_sha256: str
    number: int = 0
    attempt: int = 1
    status: int = 200
    headers: dict[str, str] = {}
    """Those that the client needs: `content-type`, `request-id`."""
    streamed: bool = False
    """The body is a list of the events, and is played back as such; else it is the message as it came."""
    body: Raw = NULL
    blob: Blob | None = None
    """The body, when it was too large to be inline."""
    model: str = ""
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    held: str = ""
    """What was held for it of a budget, by its id."""


class Offered(Struct, tag="offered", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """The functions and the tools of MCP servers that a step's model is offered, as they were when it was first asked.

    So the same is asked again, and whoever reads the log can make the request. The key is `offered`.
    """

    tools: Raw = NULL
    """A list of `flow.tools.OfferedTool`."""
    blob: Blob | None = None
    """The list, when it was too large to be inline."""


class ToolBegun(Struct, tag="tool_begun", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A tool that is not idempotent is about to be called. As long as no `ToolCall` follows, it may have run.

    `request_sha256` is the hash of the request whose answer calls it, `place` its place among the calls of that answer.
    The key is `tool-begun-{beginning of the hash}-{place}-{number}`.
    """

    request_sha256: str
    place: int
    name: str
    number: int = 1
    """Counts such beginnings of this call, from 1: more than one only where a person said that it had not run."""
    id: str = ""
    """Of this very beginning, so that who wrote it knows it for its own."""
    attempt: int = 1
    until_s: float = 0.0
    """Until when it may be running, in seconds of Unix time by the broker's clock."""


class ToolCall(Struct, tag="tool", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """What a tool gave that a model called, recorded before the model is told.

    `request_sha256` and `place` are as those of `ToolBegun`. The key is `tool-{beginning of the hash}-{place}`.
    """

    request_sha256: str
    place: int
    name: str
    attempt: int = 1
    result: Raw = NULL
    """What the model is told, as a JSON string."""
    blob: Blob | None = None
    """The result, when it was too large to be inline."""
    is_error: bool = False
    cut_bytes: int = 0
    """How many bytes it had before it was cut; 0 for one that is whole."""
    elapsed_s: float = 0.0
    rehearsed: bool = False
    """The tool was not called: the result was made up from what it says it returns."""
    settled_by: str = ""
    """The role of the person who said that it had run, and what it gave."""


class Recorded(Struct, tag="recorded", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """A value that a handler recorded under a name: what may differ the next time, and is to be the same.

    The key is `rec-{hash of name and number}`.
    """

    name: str
    number: int = 1
    """Counts those of this name in the step, from 1."""
    value: Raw = NULL
    blob: Blob | None = None
    """The value, when it was too large to be inline."""


class Unasked(Struct, tag="unasked", tag_field="type", frozen=True, kw_only=True, omit_defaults=True):
    """What a step asked for once and, when it was done again, did not: its code or its values are others now.

    The key is `unasked-{seq}-{delivered}`.
    """

    children: list[str]
    """Some of them, by their tokens."""
    count: int
    seq: int = 0
    delivered: int = 0
    """By which message, and at which delivery of it, the step was done again."""


Fact = (
    Begun
    | Retry
    | GivenBack
    | Waits
    | Spent
    | Rejected
    | ModelCall
    | Exchange
    | Offered
    | InBatch
    | BatchSending
    | BatchSent
    | BatchEnded
    | ToolBegun
    | ToolCall
    | Recorded
    | Unasked
)
ASKED_LATER = (
    Exchange | Recorded | Unasked | Offered | ToolBegun | ToolCall | InBatch | BatchSending | BatchSent | BatchEnded
)
"""Facts that the first release cannot read: they are written with version 2."""


def key_of(fact: Fact) -> str:
    """Return the last token of the note's subject: a function of what the fact is about."""
    match fact:
        case Begun():
            return f"begun-{fact.number}"
        case Retry():
            return f"retry-{fact.attempt}"
        case GivenBack():
            return f"back-{fact.seq}-{fact.delivered}"
        case Waits():
            return f"waits-{fact.what}-{fact.number}"
        case Spent():
            return f"spent-{fact.id}"
        case Rejected():
            return str(fact.seq)
        case Recorded():
            return f"rec-{short_hash(fact.name, str(fact.number))}"
        case Unasked():
            return f"unasked-{fact.seq}-{fact.delivered}"
        case ModelCall():
            return f"model-{fact.request_sha256[:32]}"
        case Offered():
            return "offered"
        case InBatch():
            return "batch"
        case BatchSending():
            return f"sending-{fact.number}"
        case BatchSent():
            return "sent"
        case BatchEnded():
            return "ended"
        case ToolBegun():
            return f"tool-begun-{fact.request_sha256[:32]}-{fact.place}-{fact.number}"
        case ToolCall():
            return f"tool-{fact.request_sha256[:32]}-{fact.place}"
        case Exchange():
            return f"sdk-{fact.request_sha256[:32]}-{fact.number}"
