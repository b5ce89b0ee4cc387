"""The same work done by Baton: no-op handlers, all actors in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from baton_actors.agents.handlers import Handler
from baton_actors.agents.performing import Performer
from baton_actors.processes.worker import Worker
from baton_actors.steps.ends import Ends
from baton_actors.steps.plans import Plans
from baton_bus import Bus, Settings, connect
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.graph import Plan


async def same(text: str) -> str:
    return text


async def pass_on(a: str) -> str:
    return a


async def end(b: str) -> str:
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


async def merge(each: list[str]) -> int:
    return len(each)


HANDLERS = {
    f"bench:{handler.__name__}": Handler(handler)
    for handler in (same, pass_on, end, wait_first, wait_second, wait_third, split, branch, merge)
}


def _agent(handler: str, reads: list[str], concurrency: int) -> Agent:
    return Agent(handler=f"bench:{handler}", reads=reads, concurrency=concurrency, max_in_flight=10_000)


def pipeline_flow(handlers: tuple[str, str, str] = ("same", "pass_on", "end"), concurrency: int = 256) -> Flow:
    reads = (["text"], ["a"], ["b"])
    return Flow(
        name="pipeline",
        input={"text": Field()},
        agents={
            name: _agent(handler, read, concurrency) for name, handler, read in zip("abc", handlers, reads, strict=True)
        },
        steps={"a": Step(agent="a"), "b": Step(agent="b", after=["a"]), "c": Step(agent="c", after=["b"])},
    )


def fan_out_flow() -> Flow:
    return Flow(
        name="fan-out",
        input={"text": Field(), "branches": Field(type="int")},
        agents={
            "split": _agent("split", ["text", "branches"], 8),
            "branch": _agent("branch", [], 1024),
            "merge": _agent("merge", ["each"], 8),
        },
        steps={
            "split": Step(agent="split"),
            "each": Step(agent="branch", each="split"),
            "merge": Step(agent="merge", after=["each"]),
        },
    )


class Team:
    """Workers of every actor of a flow, and futures for the runs under way."""

    def __init__(self, bus: Bus, plan: Plan) -> None:
        self.bus, self.plan = bus, plan
        self.done: dict[str, asyncio.Future[None]] = {}

    async def run(self, given: dict[str, object]) -> None:
        """Submit a run and wait for its result, heard on the result's own subject."""
        run = await self.bus.submit(self.plan, given)
        await self._done(run)
        del self.done[run]

    async def on_result(self, msg: Msg) -> None:
        assert b'"status":"done"' in msg.data, msg.data
        self._done(msg.subject.split(".")[3]).set_result(None)

    def _done(self, run: str) -> asyncio.Future[None]:
        """Return the future of a run, whoever asks first: the result may come before `submit` returns."""
        if run not in self.done:
            self.done[run] = asyncio.get_running_loop().create_future()
        return self.done[run]


@contextlib.asynccontextmanager
async def working(
    url: str, namespace: str, flow: Flow, *, replicas: int = 1, keep: bool = False
) -> AsyncIterator[Team]:
    """Run the team; its log is deleted at the end unless it is to be kept."""
    plan, settings = check_flow(flow), Settings(url=url, namespace=namespace, replicas=replicas)
    async with connect(settings) as bus, contextlib.AsyncExitStack() as stack:
        plans, ends = Plans(bus, plan), Ends(bus)
        await stack.enter_async_context(ends.listening())
        for actor, agent in plan.actors().items():
            worker = Worker(bus, actor, flow.agents[agent], Performer(HANDLERS, None, None), plans, ends)
            joins = any(plan.actor(step) == actor for step in plan.joins)
            await stack.enter_async_context(worker.working(joins=joins))
        team = Team(bus, plan)
        await bus.nc.subscribe(f"{namespace}.result.>", cb=team.on_result)
        try:
            yield team
        finally:
            if not keep:
                await bus.js.delete_stream(namespace)
