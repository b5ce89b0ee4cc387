"""Keeps the index of a console, in a process of its own: `python -m baton_actors.console.keeping`, run by the console.

It is told where the log and the index are in the first line of its standard input, which nobody else reads, and ends
with it: so it never outlives the console, whatever that died of.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from baton_bus.errors import BusError
from baton_bus.index.errors import IndexBusy, IndexUnusable
from baton_bus.index.keeping import keep
from baton_bus.settings import Settings
from baton_bus.store.bus import open_bus

COMMAND = [sys.executable, "-m", "baton_actors.console.keeping"]
_AGAIN_S = 1.0
"""How soon it is tried again, when another console keeps the index or the server is away."""


class KeepThis(Struct, frozen=True, kw_only=True):
    """What is said in the first line."""

    settings: Settings
    path: str
    words: bool = True


async def _main() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    order = msgspec.json.decode(await reader.readline(), type=KeepThis)
    keeping = asyncio.create_task(_keep(order), name="keep the index")
    ended = asyncio.create_task(reader.read(), name="until the console ends")
    await asyncio.wait([keeping, ended], return_when=asyncio.FIRST_COMPLETED)
    for task in (keeping, ended):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


async def _keep(order: KeepThis) -> None:
    while True:
        try:
            async with open_bus(order.settings, name="baton console, index", reads=True) as bus:
                await keep(bus, Path(order.path), _tell, words=order.words)
        except IndexBusy:
            _tell("another process keeps the index")
        except (BusError, IndexUnusable) as error:
            _tell(str(error))
        await asyncio.sleep(_AGAIN_S)


def _tell(what: str) -> None:
    """Say one line to the console: how it stands with the index."""
    sys.stdout.buffer.write(what.replace("\n", " ").encode(errors="replace") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
