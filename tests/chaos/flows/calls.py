"""Handlers of the chaos flow whose handlers have the official client. No two answers of the model are alike.

`calls_twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from anthropic import Anthropic, AsyncAnthropic
from tests.chaos.calling import Calls, PlainCalls
from tests.chaos.flows.asking import throw

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry


def thrown(context: Context, what: str, sides: int) -> int:
    return throw(context, context.step, what, sides)


async def talk(context: Context, key: str, client: AsyncAnthropic) -> dict[str, Any]:
    """One after the other, the same twice, and several at once; in some runs it fails or dies behind them."""
    calls = Calls(context, client)
    found = [await calls.create("first"), await calls.stream("second")]
    found += [await calls.create("alike"), await calls.create("alike")]
    if thrown(context, "dies", 12) == 0 and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    names = [f"at-once-{number}" for number in range(1 + thrown(context, "at once", 3))]
    found += await asyncio.gather(*map(calls.stream if thrown(context, "streams", 2) else calls.create, names))
    if thrown(context, "tries", 3) == 0 and context.attempt == 1:
        raise Retry("the first try never works here", after_s=0.5 if thrown(context, "parks", 2) else 0.05)
    found.append(await calls.stream("large" if thrown(context, "large", 3) == 0 else "last"))
    return {"found": found, "topics": [f"{key}/{number}" for number in range(thrown(context, "topics", 5))]}


def write(context: Context, key: str, client: Anthropic) -> list[Any]:
    """A plain handler, in its thread."""
    calls = PlainCalls(context, client)
    found = [calls.stream("first"), calls.stream("first"), calls.create("second")]
    if thrown(context, "tries", 3) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return [*found, calls.create("large" if thrown(context, "large", 3) == 0 else "last")]


async def reply(context: Context, item: str, typed: list[Any], client: AsyncAnthropic) -> dict[str, Any]:
    calls = Calls(context, client)
    found = await (calls.stream if thrown(context, "streams", 2) else calls.create)("only")
    if thrown(context, "fails", 8) == 0:
        raise Fail("that is no reply")
    if thrown(context, "tries", 4) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {"branch": context.step, "item": item, "found": found, "typed": typed[0]}
