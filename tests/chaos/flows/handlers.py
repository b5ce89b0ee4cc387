"""Handlers of the chaos flows. What each does follows from its run and step; mergers put out who was in their join.

Branches put out their own name under `branch`, mergers the names they saw under `branches`, so that the checker
can compare them with what the closing handoff names.
"""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from typing import Any

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry

LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""


def dice(context: Context, sides: int) -> int:
    """A number from 0 that follows from the run and the step: every attempt throws the same."""
    return zlib.crc32(f"{context.run}/{context.step}".encode()) % sides


async def take_a_while(context: Context) -> None:
    """Up to 300 ms: long enough to be killed in the middle."""
    await asyncio.sleep(dice(context, 300) / 1000)


async def find(context: Context, key: str) -> str:
    await take_a_while(context)
    if dice(context, 5) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return key + (LARGE if dice(context, 7) == 0 else "")


async def edit(context: Context, write: str) -> dict[str, str]:
    await take_a_while(context)
    return {"edited": write}


async def split(context: Context, key: str) -> list[str]:
    await take_a_while(context)
    return [f"{key}/{index}" + (LARGE if dice(context, 9) == 0 else "") for index in range(dice(context, 9))]


async def work(context: Context, item: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 11) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {"branch": context.step, "item": item}


async def gather(context: Context, work: list[dict[str, str]]) -> dict[str, list[str]]:
    await take_a_while(context)
    return {"branches": [each["branch"] for each in work]}


async def judge(context: Context, key: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 6) == 0:
        raise Fail("no opinion")
    if dice(context, 60) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"branch": context.step}


async def choose(
    context: Context,
    one: dict[str, str] | None = None,
    two: dict[str, str] | None = None,
    three: dict[str, str] | None = None,
) -> dict[str, list[str]]:
    await take_a_while(context)
    return {"branches": [each["branch"] for each in (one, two, three) if each is not None]}


async def sketch(context: Context, key: str) -> dict[str, str]:
    await take_a_while(context)
    if dice(context, 7) == 0:
        raise Fail("the artist has quit")
    if dice(context, 7) == 1 and context.attempt < 3:
        raise Retry("the first two tries never work here", after_s=0.1)
    return {"branch": context.step}


async def merge(context: Context, facts: list[Any], sketch: dict[str, Any]) -> dict[str, list[str]]:
    """Facts are answers of the model, which names the topic it was asked about: `{key}/{index}`."""
    await take_a_while(context)
    names = [
        each["error"]["step"] if isinstance(each, dict) else f"facts-{each.rpartition('/')[2].rstrip('x')}"
        for each in facts
    ]
    return {"branches": [*names, sketch["error"]["step"] if "error" in sketch else sketch["branch"]]}


async def review(context: Context, merge: dict[str, list[str]]) -> dict[str, list[str]]:
    await take_a_while(context)
    if dice(context, 9) == 0:
        raise Fail("not good enough")
    return merge
