"""What the model does of which prompts say that it has a plan: which tools it calls, in which turn, and how they do.

All of it follows from the run and the step, so the model, the tools and the checker have it from here alike.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from .dice import throw

LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""
TOO_LARGE = "y" * 20_000
"""More than `tool_output_bytes` of `flows/tools.toml`."""
ONCE = ("pay", "send")
"""The tools that are not idempotent."""
_TOOLS = ("look", "scan", *ONCE)


class Turn(NamedTuple):
    """One answer of the model: it calls these tools, or none, and then ends, or pauses."""

    calls: tuple[str, ...]
    pauses: bool = False


def plan(run: str, step: str) -> list[Turn]:
    """Return the turns before the last, in which the model calls nothing and ends."""
    turns = []
    for number in range(throw(run, step, "turns", 4)):
        if throw(run, step, f"pauses {number}", 5) == 0:
            turns.append(Turn((), pauses=True))
        else:
            wide = 1 + throw(run, step, f"wide {number}", 3)
            turns.append(Turn(tuple(_TOOLS[throw(run, step, f"tool {number} {n}", len(_TOOLS))] for n in range(wide))))
    return turns


def is_refused(run: str, step: str) -> bool:
    """Say whether the model refuses this for good: one in ten."""
    return zlib.crc32(f"{run}/{step}".encode()) % 10 == 0


def order_of(run: str, step: str, turn: int, place: int) -> str:
    """Return what a call is about, which no other has."""
    return f"{run}/{step}/{turn}/{place}"


class Behaviour(NamedTuple):
    """What a tool does when it is called for an order."""

    raises: bool = False
    hangs: bool = False
    """Beyond `tool_timeout_s`, if it is called at all."""
    kills: bool = False
    """Its process, the first time."""
    text: str = ""
    """What it gives, where that is not what it was given."""


def behaviour(tool: str, order: str) -> Behaviour:
    thrown = throw(order, tool, "does", 24)
    if tool in ONCE:
        return Behaviour(raises=thrown in (0, 1, 2), hangs=thrown == 3, kills=thrown in (4, 5) and tool == "pay")
    text = {3: LARGE, 4: LARGE, 5: LARGE, 6: TOO_LARGE, 7: TOO_LARGE}.get(thrown, "")
    return Behaviour(raises=thrown in (0, 1, 2), hangs=thrown == 8, kills=thrown == 9 and tool == "scan", text=text)
