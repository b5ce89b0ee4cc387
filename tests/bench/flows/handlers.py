"""The handlers of the bench's flows: they do nothing, or wait, so that what is measured is Baton."""

from __future__ import annotations

import asyncio

TRICKLE_PER_S = 250
"""How many branches a second end in `trickle.toml`: as calls of models do that take from none to many seconds."""


async def first(text: str) -> str:
    return text


async def second(a: str) -> str:
    return a


async def third(b: str) -> str:
    return b


async def wait_first(text: str) -> str:
    await asyncio.sleep(0.2)
    return text


async def wait_second(a: str) -> str:
    await asyncio.sleep(0.2)
    return a


async def wait_third(b: str) -> str:
    await asyncio.sleep(0.2)
    return b


async def split(text: str, branches: int) -> list[str]:
    return [text] * branches


async def branch(item: str) -> str:
    return item


async def trickle(item: str, index: int) -> str:
    await asyncio.sleep(index / TRICKLE_PER_S)
    return item


async def merge(each: list[str]) -> int:
    return len(each)
