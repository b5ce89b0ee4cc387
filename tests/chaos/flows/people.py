"""Handlers of the chaos flow with people. Whom each asks follows from its run; what it is told, from who comes first.

`people_twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.chaos.dice import throw
from tests.chaos.telling import Told, ToldPlain

from baton_actors.agents.handlers import Context
from baton_actors.errors import Retry

YES_NO = ["yes", "no"]
SOON_S = 0.7
"""What some have to answer, who answer in time or never."""
LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""


def draw() -> int:
    return random.SystemRandom().randrange(1_000_000)


async def desk(context: Context, key: str) -> dict[str, Any]:
    """Asks people one after the other and at once, agents and events between them, and what it does not need."""
    told = Told(context)

    def thrown(what: str, sides: int) -> int:
        return throw(context.run, key, what, sides)

    title = f"{key}/{await told.record('drawn', draw)}"
    found: list[Any] = []
    if thrown("types", 2):
        found.append(await told.ask("typist", topic=f"{key}/typed"))
    found.append(await told.ask_person("editors", f"Is {title} to be written?", answers=YES_NO))
    if thrown("tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here", after_s=0.5 if thrown("parks", 2) else 0.05)
    if thrown("several", 2):
        crowd = [told.ask_person("crowd", f"{title}: what does {number} say?") for number in range(2)]
        found += await asyncio.gather(*crowd, told.ask("typist", topic=f"{key}/slow"))
    if thrown("paid", 2):
        found.append(await told.wait_for("paid"))
    if thrown("paid twice", 3) == 0:
        found += await asyncio.gather(told.wait_for("paid"), told.wait_for("paid"))
    if thrown("late", 2) == 0:
        found.append(
            await told.ask_person(
                "board", f"May {title}?", answers=[*YES_NO, "silence"], deadline_s=SOON_S, default="silence"
            )
        )
    if thrown("late word", 3) == 0:
        found.append(await told.wait_for("bell", deadline_s=SOON_S))
    if thrown("first", 2):
        found.append(await _first(told, title))
    return {"title": title, "found": found, "items": [f"{title}/{number}" for number in range(thrown("items", 3))]}


async def _first(told: Told, title: str) -> Any:
    """Ask somebody, and wait for what never comes beside that."""
    person = asyncio.ensure_future(told.ask_person("editors", f"{title}: at last?", answers=YES_NO))
    never = asyncio.ensure_future(told.wait_for("never"))
    try:
        await asyncio.wait([person, never], return_when=asyncio.FIRST_COMPLETED)
        return await person
    finally:
        person.cancel()
        never.cancel()


def cash(context: Context, key: str) -> dict[str, Any]:
    """A plain handler, whose thread is let go of."""
    told = ToldPlain(context)
    drawn = told.record("drawn", draw)
    verdict = told.ask_person("tellers", f"Is {key}/{drawn} right?", answers=YES_NO)
    if throw(context.run, key, "cash tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    sum = told.wait_for("sum", deadline_s=SOON_S, default={"sum": 0})
    return {"verdict": verdict, "sum": sum}


async def typist(context: Context, topic: str) -> str:
    await asyncio.sleep(0.5 if topic.endswith("/slow") else throw(context.run, topic, "takes", 60) / 1000)
    return topic + (LARGE if throw(context.run, topic, "large", 5) == 0 else "")


async def close(
    context: Context,
    approve: str,
    rate: list[dict[str, Any]],
    cash: dict[str, Any],
    errors: list[Any],
    veto: Any = None,
) -> dict[str, Any]:
    said = [[error["step"], error["type"]] for error in errors]
    return {"approve": approve, "rate": rate, "cash": cash, "veto": veto, "errors": said}
