"""The messages of the log, as they are on the wire: frozen, tagged by hand, versioned.

Field names and tags never change meaning. A field may be added with a default; anything else is a new
`VERSION` with an upcast in `codec.py`. Values of the user's (`input`, `outputs`, `item`, `output`) stay
raw JSON: a worker that only hands them on never parses them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

VERSION = 1
"""Schema version that this release writes."""

NULL = Raw(b"null")

ResultStatus = Literal["done", "failed", "cancelled", "expired"]


class Blob(Struct, frozen=True, kw_only=True):
    """A value kept in the object store under the SHA-256 of its JSON bytes."""

    sha256: str
    size_bytes: int


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one or more model calls, as the Messages API counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class Work(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a step was done: by whom, at which attempt, for how long and for what price."""

    attempt: int = 1
    worker: str = ""
    elapsed_s: float = 0.0
    model: str = ""
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None


class Error(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong in a step, for people and for the agents that come after it."""

    step: str
    type: str
    message: str
    attempts: int = 1
    request_id: str = ""


class Done(Struct, tag="done", tag_field="status", frozen=True, kw_only=True, omit_defaults=True):
    """The step ended well. Its output is `output`, or `blob` when it was too large to be inline."""

    output: Raw = NULL
    blob: Blob | None = None
    truncated: bool = False
    work: Work = Work()


class Failed(Struct, tag="failed", tag_field="status", frozen=True, kw_only=True, omit_defaults=True):
    """The step ended with an error, after its last attempt."""

    error: Error
    work: Work = Work()


class Skipped(Struct, tag="skipped", tag_field="status", frozen=True, kw_only=True, omit_defaults=True):
    """The step had nothing to do: a fan-out over an empty list."""

    reason: str


Outcome = Done | Failed | Skipped


class State(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run carries to a step: only what this step or a later one reads.

    A value is in `input` or `outputs` under its name, or in `blobs` under the same name.
    """

    input: dict[str, Raw] = {}
    outputs: dict[str, Raw] = {}
    blobs: dict[str, Blob] = {}
    errors: list[Error] = []


class Task(Struct, tag="task", tag_field="kind", frozen=True, kw_only=True):
    """A client's request for a run. The flow is named by the subject."""

    input: dict[str, Raw] = {}
    run: str = ""
    v: int = VERSION


class Branch(Struct, frozen=True, kw_only=True, array_like=True):
    """One branch in a join: its name and the stream sequence of its reply."""

    name: str
    seq: int


class Handoff(Struct, tag="handoff", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """Gives a step to an actor.

    `source` is the step that ended (then `outcome` is how it ended, and this message is the decisive
    record of it, unless that step wrote an `outcome` record), `start`, or `join`.
    """

    v: int
    flow: str
    digest: str
    run: str
    step: str
    source: str
    state: State = State()
    outcome: Outcome | None = None
    start_seq: int = 0
    """Stream sequence of the run's first handoff, which carries the flow; 0 in that handoff itself."""
    flow_body: Raw = NULL
    """The flow, in the first handoff of a run."""
    item: Raw = NULL
    index: int = 0
    count: int = 0
    """A branch of a fan-out: its item, its place, and how many there are."""
    branches: list[Branch] = []
    """The handoff that closes a join: exactly the branches that are in it, in the order of the flow."""
    error: Error | None = None
    """The join closed without what it needs: the step fails, and its handler is not called."""
    deadline_s: float = 0.0
    """In the first handoff: seconds from when it was stored to when the run expires; 0 for never."""
    forked_from: str = ""
    """In the first handoff of a run that goes on from another: that run, whose finished steps are copied."""
    until_seq: int = 0
    """With `forked_from`: only records up to this stream sequence are copied; 0 for all."""
    copied: bool = False
    """The step may be done already, in the run that this one goes on from: look before calling its handler."""


class Reply(Struct, tag="reply", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a branch ended, told to the step that joins it."""

    v: int
    flow: str
    digest: str
    run: str
    step: str
    branch: str
    index: int = 0
    count: int = 1
    """How many branches the step of this branch has; 0 when its list was empty."""
    state: State = State()
    outcome: Outcome
    start_seq: int = 0
    copied: bool = False


class OutcomeRecord(Struct, tag="outcome", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a step ended, where that is not one handoff or one reply; carries what its successors need."""

    v: int
    flow: str
    digest: str
    run: str
    step: str
    state: State = State()
    outcome: Outcome
    index: int = 0
    count: int = 0
    start_seq: int = 0
    copied: bool = False


class Join(Struct, tag="join", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """Who has arrived at a join. Once `closed` it never changes, so the closing handoff follows from it."""

    v: int
    flow: str
    digest: str
    run: str
    step: str
    start_seq: int = 0
    expected: dict[str, int] = {}
    """Branches per source step, as far as they are known."""
    arrived: dict[str, int] = {}
    """Stream sequence of each reply, by branch."""
    failed: list[str] = []
    """The branches among `arrived` that did not end well."""
    closed: bool = False
    copied: bool = False
    """Some of its replies were copied from the run that this one goes on from: its step may be done already."""


class ModelCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model's answer, recorded before it is used, so that a redelivered step does not ask (and pay) again.

    `request_sha256` is the hash of all that was asked: another question is never answered from this record.
    """

    request_sha256: str
    text: Raw = NULL
    blob: Blob | None = None
    """The text, when it was too large to be inline."""
    model: str = ""
    truncated: bool = False
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None


class Note(Struct, tag="note", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """A fact about how a step was done. `type` says which: `retry`, `given_back`, `rejected`, `model`."""

    v: int
    run: str
    step: str
    type: str
    attempt: int = 1
    worker: str = ""
    message: str = ""
    error: Error | None = None
    delay_s: float = 0.0
    seq: int = 0
    """For `rejected`: where the bytes are in the stream."""
    call: ModelCall | None = None
    """For `model`."""


class Result(Struct, tag="result", tag_field="kind", frozen=True, kw_only=True, omit_defaults=True):
    """How a run ended. For `done` it is the decisive record of the last step and `outcome` has the output."""

    v: int
    flow: str
    run: str
    status: ResultStatus
    digest: str = ""
    step: str = ""
    outcome: Outcome | None = None
    reason: str = ""
    start_seq: int = 0


Message = Task | Handoff | Reply | OutcomeRecord | Join | Note | Result
Decisive = Handoff | Reply | OutcomeRecord | Result
