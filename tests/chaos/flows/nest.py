"""Handlers of the chaos flows that run within one another. What each does follows from its own run.

`nest_twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from tests.chaos.dice import throw
from tests.chaos.telling import Told

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry

LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""
SHORT_S = 0.6
"""Less than what some runs take, and more than others do."""


async def plan(context: Context, key: str) -> dict[str, Any]:
    count = throw(context.run, key, "items", 4)
    return {"items": [f"{key}/{number}" for number in range(count)], "one": f"{key}/whole"}


async def run(context: Context, key: str) -> list[Any]:
    """Runs flows one after the other and at once, the same twice, and one that has little time."""
    told = Told(context)

    def thrown(what: str, sides: int) -> int:
        return throw(context.run, key, what, sides)

    found = [await told.run_flow("leaf", key=f"{key}/first")]
    if thrown("tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here", after_s=0.5 if thrown("parks", 2) else 0.05)
    if thrown("gives up", 8) == 0:
        left = asyncio.ensure_future(told.run_flow("inner", key=f"{key}/left"))
        await asyncio.wait([left], timeout=throw(context.run, key, "gives up after", 300) / 1000)
        left.cancel()
        raise Fail("this run ends, and what it has asked for with it")
    if thrown("at once", 2):
        found += await asyncio.gather(
            told.run_flow("inner", key=f"{key}/alike"), told.run_flow("inner", key=f"{key}/alike")
        )
    if thrown("short", 3) == 0:
        found.append(await told.run_flow("inner", deadline_s=SHORT_S, key=f"{key}/short"))
    return found


async def bind(context: Context, items: list[Any], whole: Any, run: Any, errors: list[Any]) -> dict[str, Any]:
    said = [[error["step"], error["type"]] for error in errors]
    return {"items": items, "whole": whole, "run": run, "errors": said}


async def open_up(context: Context, key: str) -> str:
    await asyncio.sleep(throw(context.run, key, "takes", 200) / 1000)
    if throw(context.run, key, "tries", 5) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return key + (LARGE if throw(context.run, key, "large", 6) == 0 else "")


async def close(context: Context, leaf: dict[str, str], key: str) -> dict[str, Any]:
    await asyncio.sleep(throw(context.run, key, "closing takes", 200) / 1000)
    if throw(context.run, key, "kills", 40) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if throw(context.run, key, "fails", 7) == 0:
        raise Fail("this cannot be helped")
    return {"of": key, "leaf": leaf["verdict"]}


async def note(context: Context, approve: str, key: str) -> dict[str, str]:
    return {"verdict": approve, "key": key[:40]}
