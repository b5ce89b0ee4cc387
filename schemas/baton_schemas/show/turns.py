"""The conversation of a step's model, turn by turn: what it said, what it called, and what came of each call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.wire.facts import ModelCall

from .conversation import tool_uses
from .excerpt import text_of
from .step import StepSeen
from .tool_calls import ToolSeen

_BY_PROVIDER = "server_tool_use"


class Use(Struct, frozen=True, kw_only=True):
    """One call of a model: of a function, of a tool of an MCP server or of the provider, or of a worker."""

    name: str
    arguments: Any
    tool: ToolSeen | None = None
    """What came of it, of a function or a tool here; None for a worker, which is a child of the step."""
    by_provider: bool = False


class TurnSeen(Struct, frozen=True, kw_only=True):
    """One answer of a model."""

    number: int
    """From 1."""
    call: ModelCall
    text: str | None
    """What it said; None where that is kept beside the log and was not fetched."""
    uses: tuple[Use, ...] = ()


def turns_of(seen: StepSeen) -> list[TurnSeen]:
    """Return the turns of a step's model, in the order in which its answers were recorded."""
    tools = {(tool.request_sha256, tool.place): tool for tool in seen.tools}
    return [
        TurnSeen(number=number, call=call, text=_text(call), uses=tuple(_uses(call, tools)))
        for number, call in enumerate(seen.calls, start=1)
    ]


def stray_tools(seen: StepSeen) -> list[ToolSeen]:
    """Return calls of tools whose turn is not at hand."""
    placed = {(turn.call.request_sha256, use.tool.place) for turn in turns_of(seen) for use in turn.uses if use.tool}
    return [tool for tool in seen.tools if (tool.request_sha256, tool.place) not in placed]


def converses(turns: Sequence[TurnSeen]) -> bool:
    """Say whether there is more to it than one question and its answer."""
    return len(turns) > 1 or any(turn.uses for turn in turns)


def _text(call: ModelCall) -> str | None:
    if call.blob is not None:
        return None
    return "" if bytes(call.text) == b"null" else text_of(call.text)


def _uses(call: ModelCall, tools: dict[tuple[str, int], ToolSeen]) -> list[Use]:
    ours = iter(enumerate(tool_uses(call)))
    found: list[Use] = []
    for block in _blocks(call):
        match block.get("type"):
            case "tool_use":
                place, (name, arguments) = next(ours)
                found.append(Use(name=name, arguments=arguments, tool=tools.get((call.request_sha256, place))))
            case kind if kind == _BY_PROVIDER:
                found.append(Use(name=str(block.get("name") or ""), arguments=block.get("input"), by_provider=True))
            case _:
                pass
    return found


def _blocks(call: ModelCall) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(call.content, type=list[dict[str, Any]] | None) or []
    except (ValueError, RecursionError):  # a stranger's; msgspec's errors are ValueErrors
        return []
