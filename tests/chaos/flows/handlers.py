"""Handlers of the chaos flows. What each does follows from its run and step alone; mergers put out all they were given.

`twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import zlib
from typing import Any

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry

LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""
POISONED = 77
"""The exit code of a process that a handler ends."""
HANGS_S = 20.0
"""How long a plain handler hangs: many times what its attempt may take."""
TRICKLE_S = 1.5


def dice(context: Context, sides: int) -> int:
    """A number from 0 that follows from the run and the step: every attempt throws the same."""
    return zlib.crc32(f"{context.run}/{context.step}".encode()) % sides


def seen(errors: list[Any]) -> list[list[str]]:
    """What a step puts out of the errors that it was given: whose each is, and of which type."""
    return [[error["step"], error["type"]] for error in errors]


async def take_a_while(context: Context) -> None:
    """Up to 300 ms: long enough to be killed in the middle."""
    await asyncio.sleep(dice(context, 300) / 1000)


# ---- pipeline ------------------------------------------------------------------------------------


async def find(context: Context, key: str) -> str:
    await take_a_while(context)
    if dice(context, 5) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return key + (LARGE if dice(context, 7) == 0 else "")


async def edit(context: Context, write: str) -> dict[str, str]:
    await take_a_while(context)
    return {"edited": write}


# ---- spread --------------------------------------------------------------------------------------


async def split(context: Context, key: str) -> list[str]:
    await take_a_while(context)
    return [f"{key}/{index}" + (LARGE if dice(context, 4) == 1 else "") for index in range(dice(context, 9))]


async def work(context: Context, item: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 11) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {"branch": context.step, "item": item}


async def gather(context: Context, work: list[dict[str, str]]) -> dict[str, Any]:
    await take_a_while(context)
    return {"branches": [each["branch"] for each in work], "characters": sum(len(each["item"]) for each in work)}


# ---- panel ---------------------------------------------------------------------------------------


async def judge(context: Context, key: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 6) == 0:
        raise Fail("no opinion")
    if dice(context, 60) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"branch": context.step, "opinion": LARGE if dice(context, 5) == 0 else "short"}


async def choose(
    context: Context,
    errors: list[Any],
    one: dict[str, str] | None = None,
    two: dict[str, str] | None = None,
    three: dict[str, str] | None = None,
) -> dict[str, Any]:
    await take_a_while(context)
    heard = [each for each in (one, two, three) if each is not None]
    return {"branches": [each["branch"] for each in heard], "errors": seen(errors)}


# ---- mix -----------------------------------------------------------------------------------------


async def sketch(context: Context, key: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 7) == 0:
        raise Fail("the artist has quit")
    if dice(context, 7) == 1 and context.attempt < 3:
        raise Retry("the first two tries never work here", after_s=0.1)
    return {"branch": context.step}


async def merge(context: Context, facts: list[Any], sketch: dict[str, Any], errors: list[Any]) -> dict[str, Any]:
    """Facts are answers of the model, which names the topic it was asked about: `{key}/{index}`."""
    await take_a_while(context)
    names = [
        each["error"]["step"] if isinstance(each, dict) else f"facts-{each.rpartition('/')[2].rstrip('x')}"
        for each in facts
    ]
    last = sketch["error"]["step"] if "error" in sketch else sketch["branch"]
    return {"branches": [*names, last], "errors": seen(errors)}


async def review(context: Context, merge: dict[str, Any], errors: list[Any]) -> dict[str, Any]:
    await take_a_while(context)
    if dice(context, 9) == 0:
        raise Fail("not good enough")
    return {**merge, "errors": seen(errors)}


# ---- relay ---------------------------------------------------------------------------------------


async def begin(context: Context, key: str) -> dict[str, str]:
    """Waits so long for its second try that the step is parked."""
    await take_a_while(context)
    if dice(context, 3) == 0 and context.attempt == 1:
        raise Retry("the first try never works here, nor does one that comes soon", after_s=0.8)
    if dice(context, 4) == 1:
        raise Fail("this leg is not run")
    return {"leg": context.step, "pad": LARGE if dice(context, 5) == 0 else ""}


async def go_on(context: Context, errors: list[Any]) -> dict[str, Any]:
    """Comes slowly in some runs, as model calls do, and hands on what it knows of the errors before it."""
    await asyncio.sleep(TRICKLE_S if dice(context, 8) == 0 else 0.0)
    if dice(context, 6) == 1:
        raise Fail("nor is this one")
    return {"leg": context.step, "errors": seen(errors)}


async def blend(
    context: Context, errors: list[Any], left2: dict[str, Any] | None = None, right2: dict[str, Any] | None = None
) -> dict[str, Any]:
    await take_a_while(context)
    return {"legs": [each for each in (left2, right2) if each is not None], "errors": seen(errors)}


async def close(context: Context, blend: dict[str, Any], errors: list[Any]) -> dict[str, Any]:
    return {"of": blend, "errors": seen(errors)}


# ---- hazard --------------------------------------------------------------------------------------


async def list_up(context: Context, key: str) -> dict[str, Any]:
    return {"items": [f"{key}/{index}" for index in range(2 + dice(context, 5))]}


async def handle(context: Context, item: str) -> dict[str, str]:
    """Some kill their process, in the middle of what others do in it; some come slowly; one in many is large."""
    await take_a_while(context)
    if dice(context, 25) == 3:
        os._exit(POISONED)
    if dice(context, 10) == 0:
        await asyncio.sleep(TRICKLE_S)
    return {"branch": context.step, "item": item + (LARGE if dice(context, 12) == 5 else "")}


def nap(context: Context) -> dict[str, str]:
    """A plain handler, in a thread that hangs in some runs."""
    if dice(context, 10) == 0:
        time.sleep(HANGS_S)
    return {"branch": context.step}


async def collect(
    context: Context, handle: list[Any], errors: list[Any], nap: dict[str, Any] | None = None
) -> dict[str, Any]:
    names = [
        each["error"]["type"] if "error" in each else each["branch"] for each in [*handle, *([nap] if nap else [])]
    ]
    return {"branches": names, "errors": seen(errors), "characters": sum(len(each.get("item", "")) for each in handle)}
