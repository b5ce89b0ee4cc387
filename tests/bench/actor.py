"""One actor of the floor as a process of its own: `python -m tests.bench.actor URL STREAM SHAPE CONSUMERS`.

It says `ready` once it takes work, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from . import floor
from .shapes import FanOut, Pipeline


async def main(url: str, stream: str, told: str, consumers: str) -> None:
    """Do the work of these consumers."""
    shape = msgspec.json.decode(told, type=Pipeline | FanOut)
    async with floor.connected(url, stream) as bare, bare.doing(shape, consumers):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
