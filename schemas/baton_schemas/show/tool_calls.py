"""The tools that a step's model called, as people see them: what with, what came of it, and what is in doubt. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.flow.tools import OfferedTool, offered_tools
from baton_schemas.wire.facts import Fact, ModelCall, Offered, ToolBegun, ToolCall
from baton_schemas.wire.outcomes import Blob, Value

from .conversation import tool_uses
from .given import Fetched, inline


class ToolSeen(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a function, or of a tool of an MCP server."""

    name: str
    arguments: Any = None
    """None where the answer that called it is not at hand."""
    request_sha256: str
    """The hash of the request whose answer calls it; `place` is its place among the calls of that answer."""
    place: int
    attempt: int = 1
    begun: int = 0
    """How often it was begun, of one that is not idempotent."""
    result: Value | None = None
    """What the model was told, a `Blob` where that was not fetched; None: that is not recorded."""
    is_error: bool = False
    cut_bytes: int = 0
    elapsed_s: float = 0.0
    rehearsed: bool = False
    settled_by: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it was begun, and nothing came of it so far: it is at it, or in doubt."""
        return self.result is None


def tools_seen(facts: Iterable[Fact], calls: Sequence[ModelCall], fetched: Fetched) -> list[ToolSeen]:
    """Return the calls that the log knows of, in the order of the answers that call them.

    `calls` are the answers of the step's model, with what was fetched of them.
    """
    begun: dict[tuple[str, int], ToolBegun] = {}
    done: dict[tuple[str, int], ToolCall] = {}
    answers: dict[str, int] = {}
    for fact in facts:
        match fact:
            case ToolBegun():
                key = (fact.request_sha256, fact.place)
                known = begun.get(key)
                begun[key] = fact if known is None or known.number < fact.number else known
            case ToolCall():
                key = (fact.request_sha256, fact.place)
                done.setdefault(key, fact)
            case _:
                continue
        answers.setdefault(fact.request_sha256, len(answers))
    uses = {call.request_sha256: tool_uses(call) for call in calls}
    order = sorted({*begun, *done}, key=lambda key: (answers[key[0]], key[1]))
    return [_seen(key, done.get(key), begun.get(key), uses.get(key[0], []), fetched) for key in order]


def offered_in(facts: Iterable[Fact], fetched: Fetched) -> list[OfferedTool] | Blob | None:
    """Return what a step's model is offered, as it is recorded: a `Blob` where that was not fetched, None for nothing.

    Raises `msgspec.DecodeError` for a stranger's.
    """
    for fact in facts:
        if isinstance(fact, Offered):
            value = inline(fact.blob or fact.tools, fetched)
            return value if isinstance(value, Blob) else offered_tools(value)
    return None


def _seen(
    key: tuple[str, int],
    done: ToolCall | None,
    begun: ToolBegun | None,
    uses: Sequence[tuple[str, Any]],
    fetched: Fetched,
) -> ToolSeen:
    digest, place = key
    fact = done or begun
    assert fact is not None
    arguments = uses[place][1] if 0 <= place < len(uses) else None
    seen = ToolSeen(
        name=fact.name,
        arguments=arguments,
        request_sha256=digest,
        place=place,
        attempt=fact.attempt,
        begun=begun.number if begun is not None else 0,
    )
    if done is None:
        return seen
    return msgspec.structs.replace(
        seen,
        result=inline(done.blob or done.result, fetched),
        is_error=done.is_error,
        cut_bytes=done.cut_bytes,
        elapsed_s=done.elapsed_s,
        rehearsed=done.rehearsed,
        settled_by=done.settled_by,
    )
