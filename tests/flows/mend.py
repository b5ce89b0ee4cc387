"""The handlers of `mend.toml`."""

from __future__ import annotations

from pathlib import Path

from baton_actors import Fail


async def split(text: str) -> list[str]:
    return text.split()


async def each(item: str) -> str:
    return item.upper()


def merge(each: list[str], folder: str) -> str:
    if not Path(folder, "mended").exists():
        raise Fail("the archive is closed")
    return " ".join(each)


async def last(merge: str) -> str:
    return f"{merge}!"
