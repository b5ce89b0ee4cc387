"""Teams with a clerk, for the tests of deadlines, and what they wait for in the stream of timers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nats.js.errors import NotFoundError

from baton_actors.services.clerk import Clerk
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.wire.messages import Handoff

from .servers import WAIT_S, NatsServer
from .team import Handlers, Team, flow_of, team

TEXT = {"text": Field()}
TEXTS = {"texts": Field(type="list[str]"), "title": Field()}
SOON_S = 0.4
NEVER_S = 600.0


class Gate:
    """A branch for each text; those called `slow` wait until they are let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def branch(self, item: str) -> str:
        self.started.append(item)
        try:
            if item == "slow":
                await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        return item.upper()


async def merge(each: list[str], title: str) -> list[str]:
    return [title, *each]


def over_texts(deadline_s: float | None, **more: Any) -> Flow:
    join = JoinPolicy(deadline_s=deadline_s, **more)
    steps = {"each": Step(agent="branch", each="texts"), "merge": Step(agent="merge", after=["each"], join=join)}
    return flow_of(steps, TEXTS)


@contextlib.asynccontextmanager
async def timed(server: NatsServer, namespace: str, flow: Flow, handlers: Handlers, **more: Any) -> AsyncIterator[Team]:
    """A team; while its workers run (`start`), so does a clerk."""
    async with team(server.url, namespace, flow, handlers, **more) as t:
        try:
            async with Clerk(Engine(t.bus)).working() if more.get("start", True) else contextlib.nullcontext():
                yield t
        finally:
            with contextlib.suppress(NotFoundError):
                await t.bus.js.delete_stream(t.bus.timers.stream)


@contextlib.asynccontextmanager
async def process(t: Team, *agents: str) -> AsyncIterator[None]:
    """A worker process of these agents, with its clerk."""
    async with t.process(*agents, grace_s=0.05) as bus, Clerk(Engine(bus)).working():
        yield


async def timers(t: Team, kind: str = "*") -> list[str]:
    """The subjects in the stream of timers: of kind `timer`, what is set; of kind `due`, what has fired."""
    pattern = f"{t.bus.settings.namespace}.{kind}.>"
    info = await t.bus.js.stream_info(t.bus.timers.stream, subjects_filter=pattern)
    return list(info.state.subjects or {})


async def until_timers(t: Team, kind: str, count: int) -> list[str]:
    async def are_there() -> bool:
        return len(await timers(t, kind)) == count

    await until_so(are_there)
    return await timers(t, kind)


async def until_taken(t: Team, count: int) -> None:
    """Wait until a clerk has written so many due messages into the log."""

    async def are_acked() -> bool:
        info = await t.bus.js.consumer_info(t.bus.timers.stream, "due")
        return info.ack_floor is not None and info.ack_floor.consumer_seq >= count

    await until_so(are_acked)


async def until_replied(t: Team, run: str, count: int) -> None:
    async def are_there() -> bool:
        return len(await t.bus.log.matching([t.bus.subjects.run(run, kind="reply")])) >= count

    await until_so(are_there)


async def until_so(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition that has to be asked for holds; fail the test if it does not within `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 (the broker sets no event of ours)
            await asyncio.sleep(0.01)


async def closing_of(t: Team, run: str, step: str) -> Handoff:
    """The handoff that closed a join."""
    (closing,) = [entry.message for entry in await t.log(run) if entry.subject.endswith(f".{run}.{step}.join")]
    assert isinstance(closing, Handoff)
    return closing
