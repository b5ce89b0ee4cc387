"""A run as it happens: what the log says, and which steps are being done right now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from baton_bus.store.bus import Bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Handoff, Result
from baton_schemas.wire.words import Running, Word, read_running, read_word

__all__ = ["EndOfRun", "Running", "follow_run", "watch_all"]


_WAITING_MAX = 1_000
"""Live words that wait for a slow listener: more are not heard."""


class EndOfRun:
    """Says of the messages of a run, as they come, which one is its end."""

    def __init__(self) -> None:
        self._flow = ""

    def is_in(self, entry: Entry) -> bool:
        """Say whether the run ends here. A result of another flow is that of a refused task with the same id."""
        message = entry.message
        if isinstance(message, Handoff):
            self._flow = self._flow or message.flow
        return isinstance(message, Result) and message.flow == (self._flow or message.flow)


async def follow_run(bus: Bus, run: str, start_seq: int = 0) -> AsyncGenerator[Entry, None]:
    """Yield the messages of a run in their order, and then as they come, up to its result.

    Raises the errors of `Log.follow`. Close it (`aclosing`) when you stop before the result.
    """
    end = EndOfRun()
    async with aclosing(bus.log.follow([bus.subjects.run(run)], start_seq)) as entries:
        async for entry in entries:
            yield entry
            if end.is_in(entry):
                return


async def watch_all(bus: Bus, run: str, start_seq: int = 0) -> AsyncGenerator[Entry | Running | Word, None]:
    """Yield the messages of a run in their order as they come, up to its result, and the live words between.

    Live words are not stored: what was said earlier is not heard, some may be missing, and they change nothing.
    Raises the errors of `Log.follow`. Close it (`aclosing`) when you stop before the result.
    """
    heard: asyncio.Queue[Entry | Running | Word | BaseException] = asyncio.Queue()
    waiting = 0

    def on_word(subject: str, body: bytes) -> None:
        nonlocal waiting
        kind, step = subject.split(".")[-2:]
        word = read_running(step, body) if kind == "running" else read_word(step, body) if kind == "words" else None
        if word is not None and waiting < _WAITING_MAX:
            waiting += 1
            heard.put_nowait(word)

    async def follow() -> None:
        try:
            async with aclosing(follow_run(bus, run, start_seq)) as entries:
                async for entry in entries:
                    heard.put_nowait(entry)
        except Exception as error:
            heard.put_nowait(error)

    end = EndOfRun()
    async with bus.hearing(bus.subjects.live(run, "*", "*"), on_word, sure=False):
        following = asyncio.create_task(follow(), name=f"follow {run}")
        try:
            while True:
                event = await heard.get()
                if isinstance(event, BaseException):
                    raise event
                if not isinstance(event, Entry):
                    waiting -= 1
                yield event
                if isinstance(event, Entry) and end.is_in(event):
                    return
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
