"""How steps end, and what a run carries: the parts that messages are made of.

Values of the user's (`input`, `outputs`, `output`) stay raw JSON: a worker that only hands them on never parses them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Raw, Struct

NULL = Raw(b"null")

ResultStatus = Literal["done", "failed", "cancelled", "expired"]


class Blob(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value kept beside the log, under the SHA-256 of its JSON bytes."""

    sha256: str
    size_bytes: int
    files: bool = False
    """The value may name files, whose bytes are beside the log too: whoever removes what nobody names looks into it."""


Value = Raw | Blob
"""A value of the user's, inline or beside the log."""


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one or more model calls, as the Messages API counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    """Those of `cache_write_tokens` that are kept for an hour, which costs more than five minutes."""
    server_tools: dict[str, int] = {}
    """How often each of the provider's own tools was used, by name: `{"web_search": 3}`. They cost by use."""

    @property
    def prompt_tokens(self) -> int:
        """All that was read: anew, from the cache, or into it."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def tokens(self) -> int:
        """All that was read and written."""
        return self.prompt_tokens + self.output_tokens


def total(usages: Iterable[Usage]) -> Usage:
    """Return the tokens of several together."""
    found = list(usages)
    if len(found) < 2:
        return found[0] if found else Usage()
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in found),
        output_tokens=sum(usage.output_tokens for usage in found),
        cache_read_tokens=sum(usage.cache_read_tokens for usage in found),
        cache_write_tokens=sum(usage.cache_write_tokens for usage in found),
        cache_write_1h_tokens=sum(usage.cache_write_1h_tokens for usage in found),
        server_tools=_uses(found),
    )


def _uses(usages: list[Usage]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for usage in usages:
        for tool, count in usage.server_tools.items():
            uses[tool] = uses.get(tool, 0) + count
    return uses


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
    request_sha256: str = ""
    """Of a model call that gave no answer: the hash of what was asked. Answers have theirs in a note."""
    held: str = ""
    """Of such a call: what was held for it of a budget, by its id."""


class Place(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the user's own code."""

    file: str
    """Relative to the worker's directory where it is beneath it."""
    line: int
    function: str = ""


class Error(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong in a step, for people and for the agents that come after it. Its texts are bounded."""

    step: str
    type: str
    message: str
    attempts: int = 1
    request_id: str = ""
    at: Place | None = None
    """Where it was raised, or where a handler hung that did not finish in time."""
    traceback: str = ""
    """The last lines of the user's own code that it came through, as Python writes them: in the step's own record, and
    in the notes on its attempts. What travels on with the run goes without."""
    retryable: bool = False
    """Of a model call that came to nothing in a batch: the same call may work later."""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


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
    ends_run: bool = False
    """The run ends with it, whatever its flow says of failures: there is nothing left to spend."""


class Skipped(Struct, tag="skipped", tag_field="status", frozen=True, kw_only=True, omit_defaults=True):
    """The step was not done: a fan-out over an empty list had nothing to do, or the step was left out."""

    reason: str
    left_out: bool = False
    """Its `when` did not hold, or all that comes right before it was left out. It has no output, and a join does not
    count it; an empty list is the output of a fan-out that had nothing to do."""


Outcome = Done | Failed | Skipped


class State(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run carries to a step: only what this step or a later one reads.

    A value is in `input` or `outputs` under its name, or in `blobs` under the same name. The errors so far are those
    in the blob named `errors`, if there is one, and then `errors`.
    """

    input: dict[str, Raw] = {}
    outputs: dict[str, Raw] = {}
    blobs: dict[str, Blob] = {}
    errors: list[Error] = []
