"""A run as it happens: what the log says, and which steps are being done right now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from baton_bus.store.bus import Bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Handoff, Result


class Running(Struct, frozen=True, kw_only=True):
    """A worker says that it is doing a step. Not stored: whoever watches later never hears it."""

    step: str
    attempt: int = 1


class _Body(Struct, frozen=True):
    attempt: int = 1


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


async def watch_all(bus: Bus, run: str, start_seq: int = 0) -> AsyncGenerator[Entry | Running, None]:
    """Yield the messages of a run in their order as they come, up to its result, and the live words between.

    Raises the errors of `Log.follow`. Close it (`aclosing`) when you stop before the result.
    """
    heard: asyncio.Queue[Entry | Running | BaseException] = asyncio.Queue()

    async def on_running(msg: Msg) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            body = msgspec.json.decode(msg.data, type=_Body)
            heard.put_nowait(Running(step=msg.subject.rpartition(".")[2], attempt=body.attempt))

    async def follow() -> None:
        try:
            async with aclosing(follow_run(bus, run, start_seq)) as entries:
                async for entry in entries:
                    heard.put_nowait(entry)
        except Exception as error:
            heard.put_nowait(error)

    subscription = await bus.nc.subscribe(bus.subjects.live(run, "running", ">"), cb=on_running)
    end = EndOfRun()
    following = asyncio.create_task(follow(), name=f"follow {run}")
    try:
        while True:
            event = await heard.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Entry) and end.is_in(event):
                return
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
