"""A conversation of a model that calls, as recorded answers tell it: what it said, and what it called. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.values import clean_text

_CALL_CHARS_MAX = 80


class Said(Struct, frozen=True, kw_only=True):
    """One answer of a model that has workers or tools."""

    text: str
    calls: list[tuple[str, Any]]
    """By name and arguments, in their order; with those that the provider made itself."""


def said_in(call: ModelCall) -> Said | None:
    """Return what a recorded answer says and calls; None for one without content blocks, or with some that are none."""
    try:
        text = msgspec.json.decode(call.text, type=str | None) or ""
    except (ValueError, RecursionError):  # a stranger's; msgspec's errors are ValueErrors
        return None
    blocks = _blocks(call)
    calls = [_use(block) for block in blocks if block.get("type") in ("tool_use", "server_tool_use")]
    return Said(text=text, calls=calls) if blocks else None


def tool_uses(call: ModelCall) -> list[tuple[str, Any]]:
    """Return what a recorded answer calls here, by name and arguments, each at its place; nothing of no JSON."""
    return [_use(block) for block in _blocks(call) if block.get("type") == "tool_use"]


def _blocks(call: ModelCall) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(call.content, type=list[dict[str, Any]] | None) or []
    except (ValueError, RecursionError):
        return []


def _use(block: Mapping[str, Any]) -> tuple[str, Any]:
    return str(block.get("name") or ""), block.get("input")


def calls_in(call: ModelCall) -> str:
    """Return whom a recorded answer calls, in short: `calls researcher 3 times, writer`; empty for nobody."""
    said = said_in(call) if bytes(call.content) != b"null" else None
    if said is None or not said.calls:
        return ""
    counts = Counter(name for name, _ in said.calls)
    return "calls " + ", ".join(f"{name} {count} times" if count > 1 else name for name, count in counts.items())


def called(name: str, arguments: Any, chars_max: int = _CALL_CHARS_MAX) -> str:
    """Return a call as people read it: `researcher(question="Why is…")`."""
    if not isinstance(arguments, Mapping):
        return clean_text(f"{name}({_shown(arguments)})", chars_max)
    given = ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())
    return clean_text(f"{name}({given})", chars_max)


def _shown(value: Any) -> str:
    # Of what is long only the beginning is encoded.
    short = value[: 4 * _CALL_CHARS_MAX] if isinstance(value, str | list) else value
    return msgspec.json.encode(short).decode()
