"""Handlers of the chaos flow that asks. What each does follows from its run, from what it was asked, and what it drew.

`twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import time
from typing import Any

from tests.chaos.telling import Told, ToldPlain

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry

LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""
SLOW_S = 0.5
"""More than what a step that waits is held for."""


def throw(context: Context, here: str, what: str, sides: int) -> int:
    """A number from 0 that follows from the run, from what was asked, and what it is thrown for."""
    # No CRC: of words of one length those differ by the same bits in every run.
    return int(hashlib.sha256(f"{context.run}/{here}/{what}".encode()).hexdigest()[:8], 16) % sides


def draw() -> int:
    return random.SystemRandom().randrange(1_000_000)


async def boss(context: Context, key: str = "", topic: str = "") -> dict[str, Any]:
    """Asks one after the other and at once, in whatever order its coroutines come to it, and itself."""
    told, here = Told(context), topic or key

    def thrown(what: str, sides: int) -> int:
        return throw(context, here, what, sides)

    began_s = await told.record("began", time.time)
    drawn = await told.record("drawn", draw)
    found = [await told.ask("helper", topic=f"{here}/{number}") for number in range(thrown("one by one", 3))]

    async def twice(number: int) -> list[Any]:
        await asyncio.sleep(random.random() / 30)
        first = await told.ask("helper", topic=f"{here}/at once/{number}")
        await asyncio.sleep(random.random() / 30)
        return [first, await told.ask("helper", topic=f"{here}/then/{number}/{drawn}")]

    found += await asyncio.gather(*map(twice, range(1 + thrown("at once", 3))))
    if thrown("tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here", after_s=0.5 if thrown("parks", 2) else 0.05)
    await told.sleep(0.02)
    if thrown("alike", 2):
        found += await told.gather(*[("helper", {"topic": f"{here}/alike"})] * 2)
    if thrown("sleeps", 3) == 0:
        await told.sleep(SLOW_S)
    if thrown("slow", 2):
        found.append(await told.ask("helper", topic=f"{here}/slow", pad=LARGE if thrown("pad", 3) == 0 else ""))
    if thrown("late", 4) == 0:
        found.append(await told.ask("helper", topic=f"{here}/slow/late", deadline_s=SLOW_S))
    if here.count("+") < 2 and thrown("itself", 3) == 0:
        found.append(await told.ask("boss", topic=f"{here}+"))
    if thrown("oracle", 2):
        found.append(await told.ask("oracle", topic=f"{here}/oracle"))
    return {"found": found, "began_s": began_s, "drawn": drawn}


def drive(context: Context, key: str) -> dict[str, Any]:
    """A plain handler, whose thread waits."""
    told, here = ToldPlain(context), f"{key}/drive"
    drawn = told.record("drawn", draw)
    found = [told.ask("helper", topic=f"{here}/{drawn}")]
    asked: list[tuple[str, dict[str, Any]]] = [("helper", {"topic": f"{here}/{number}"}) for number in range(2)]
    if throw(context, here, "oracle", 2):
        asked.append(("oracle", {"topic": f"{here}/oracle"}))
    found += told.gather(*asked)
    told.sleep(SLOW_S if throw(context, here, "sleeps", 3) == 0 else 0.02)
    if throw(context, here, "tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    if throw(context, here, "slow", 2):
        found.append(told.ask("helper", topic=f"{here}/slow"))
    return {"found": found, "drawn": drawn}


async def helper(context: Context, topic: str, pad: str = "") -> dict[str, Any]:
    """Fails, comes slowly, kills its process, or asks another like itself, in some runs."""
    told = Told(context)
    await asyncio.sleep(SLOW_S if "/slow" in topic else throw(context, topic, "takes", 60) / 1000)
    if throw(context, topic, "kills", 200) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if throw(context, topic, "fails", 8) == 0:
        raise Fail("this cannot be helped")
    if throw(context, topic, "tries", 8) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    below = await told.ask("helper", topic=f"{topic}?") if _goes_down(context, topic) else None
    return {
        "of": topic,
        "pad": len(pad),
        "below": below,
        "more": LARGE if throw(context, topic, "large", 15) == 0 else "",
    }


def _goes_down(context: Context, topic: str) -> bool:
    return topic.count("?") < 2 and throw(context, topic, "asks", 6) == 0


async def sum_up(context: Context, lead: dict[str, Any], drive: dict[str, Any]) -> list[int]:
    return [len(lead["found"]), len(drive["found"]), lead["drawn"], drive["drawn"]]
