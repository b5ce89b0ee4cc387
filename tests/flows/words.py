"""The handlers of `words.toml`."""

from __future__ import annotations

import asyncio

from baton_actors import Retry, actor


@actor
def split(text: str) -> list[str]:
    return text.splitlines()


@actor
async def count(item: str, pause_s: float, breaks_on: str) -> int:
    await asyncio.sleep(pause_s)
    if breaks_on and breaks_on in item:
        raise Retry(f"the line has {breaks_on!r} in it")
    return len(item.split())


@actor
async def add(count: list[int]) -> dict[str, int]:
    return {"lines": len(count), "words": sum(count)}


@actor
async def write(add: dict[str, int]) -> str:
    return f"{add['words']} words in {add['lines']} lines\n"
