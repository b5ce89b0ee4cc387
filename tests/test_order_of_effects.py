"""A worker records, then derives, then acks: nothing is done before what comes before it is stored.

What the server says to the worker is held between the two: so the worker cannot know that the first is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from baton_bus import connect
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import Step
from baton_schemas.run.lifecycle import Event, Gathered

from .chaos.proxy import Proxy
from .servers import NatsServer
from .team import Team, flow_of, team, value_of
from .timed import TEXT, until_so

FLOW = flow_of(
    {
        "a": Step(agent="a"),
        "b": Step(agent="same", after=["a"]),
        "c": Step(agent="same", after=["a"]),
        "d": Step(agent="both", after=["b", "c"]),
    },
    TEXT,
)


class Handlers:
    """Three handlers that count their calls; `in_a` is awaited by the first."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.in_a: Callable[[], Awaitable[None]] | None = None

    async def a(self, text: str) -> str:
        self.calls.append("a")
        if self.in_a is not None:
            await self.in_a()
        return text

    async def same(self, a: str) -> str:
        self.calls.append("same")
        return a

    async def both(self, b: str, c: str) -> str:
        self.calls.append("both")
        return b + c

    @property
    def all(self) -> dict[str, Any]:
        return {"a": self.a, "same": self.same, "both": self.both}


class Deaf:
    """Workers that can be made deaf: what they say arrives at the server, and they hear nothing."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._holding: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._holding = asyncio.create_task(self._proxy.hold(600.0, ("to clients",)))
        await asyncio.sleep(0)

    async def end(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.gather(self._holding, return_exceptions=True)


@contextlib.asynccontextmanager
async def deaf(t: Team, handlers: Handlers, *agents: str) -> AsyncIterator[Deaf]:
    proxy = Proxy(int(t.bus.settings.url.rpartition(":")[2]))
    async with proxy.working():
        workers = Deaf(proxy)
        try:
            async with (
                connect(replace(t.bus.settings, url=proxy.url)) as far,
                Team(far, t.plan, handlers.all).process(*agents),
            ):
                yield workers
                await workers.end()
        finally:
            await workers.end()


async def until_logged(t: Team, run: str, ending: str) -> None:
    async def is_there() -> bool:
        return any(entry.subject.endswith(ending) for entry in await t.log(run))

    await until_so(is_there)


async def unacked(t: Team, kind: str, agent: str) -> int:
    info = await t.bus.js.consumer_info(t.bus.settings.namespace, f"{kind}-{t.actor(agent)}")
    return info.num_ack_pending or 0


async def test_nothing_is_derived_or_acked_before_the_record_is_stored(server: NatsServer, namespace: str) -> None:
    handlers = Handlers()
    async with (
        team(server.url, namespace, FLOW, handlers.all, start=False) as t,
        deaf(t, handlers, "a") as workers,
        t.process("same", "both"),
    ):
        handlers.in_a = workers.begin
        run = await t.submit(text="x")
        await until_logged(t, run, f".{run}.a")  # the outcome of `a`, which its worker does not know to be stored
        assert await t.kinds(run) == ["handoff", "outcome"]
        assert await unacked(t, "handoff", "a") == 1
        await workers.end()

        assert value_of((await t.result(run)).outcome) == "xx"
        await t.until_settled("handoff", "a")
        assert handlers.calls == ["a", "same", "same", "both"]


async def test_handoff_is_acked_only_when_all_that_follows_is_stored(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Handlers()
    async with (
        team(server.url, namespace, FLOW, handlers.all, start=False) as t,
        deaf(t, handlers, "a") as workers,
    ):
        derive = Engine.derive

        async def derive_deaf(self: Engine, *arguments: Any) -> None:
            await workers.begin()
            await derive(self, *arguments)

        monkeypatch.setattr(Engine, "derive", derive_deaf)
        run = await t.submit(text="x")
        await until_logged(t, run, f".{run}.c.a")
        assert await unacked(t, "handoff", "a") == 1
        monkeypatch.undo()
        await workers.end()
        await t.until_settled("handoff", "a")
        async with t.process("same", "both"):
            assert value_of((await t.result(run)).outcome) == "xx"
        assert handlers.calls == ["a", "same", "same", "both"]


async def test_replies_are_acked_only_when_their_link_and_the_closing_handoff_are_stored(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Handlers()
    async with (
        team(server.url, namespace, FLOW, handlers.all, start=False) as t,
        deaf(t, handlers, "both") as workers,
    ):
        apply = Engine.apply
        closed = asyncio.Event()

        async def apply_deaf(self: Engine, plan: Any, event: Event) -> Any:
            if isinstance(event, Gathered):
                await workers.begin()
                closed.set()
            return await apply(self, plan, event)

        monkeypatch.setattr(Engine, "apply", apply_deaf)
        async with t.process("a", "same"):
            run = await t.submit(text="x")
            await closed.wait()
            await until_logged(t, run, ".d.join")
        assert "join" in await t.kinds(run)
        assert await unacked(t, "reply", "both") >= 1  # the reply that closed it, and any that came with it
        monkeypatch.undo()
        await workers.end()
        assert value_of((await t.result(run)).outcome) == "xx"
        await t.until_settled("reply", "both")
        assert handlers.calls.count("both") == 1
