"""Teams that play a flow and all flows within it, with a clerk: for the tests of runs within runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from nats.js.errors import NotFoundError

from baton_actors.agents.agents import Agents
from baton_actors.processes.worker import Worker
from baton_actors.services.clerk import Clerk
from baton_actors.steps.shared import sharing
from baton_bus import Settings, connect
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.child_runs import run_of_child
from baton_schemas.wire.messages import Answer, Asked, Handoff, Result

from .servers import WAIT_S, NatsServer
from .team import Handlers, Team

TEXT = {"text": Field()}
TEXTS = {"texts": Field(type="list[str]")}
SOON: dict[str, Any] = {"retry_base_s": 0.02, "retry_max_s": 0.05}


def handled(*names: str, **more: Any) -> dict[str, Agent]:
    """Agents with handlers of their own names."""
    return {name: Agent(handler=f"team:{name}", **SOON | more) for name in names}


def inner(**more: Any) -> Flow:
    """Two steps, one after the other, over one text."""
    steps = {"first": Step(agent="first"), "second": Step(agent="second", after=["first"])}
    return Flow(name="inner", input=TEXT, agents=handled("first", "second"), steps=steps, **more)


def over_texts(within: Flow | None = None, *, agent: Mapping[str, Any] | None = None, **more: Any) -> Flow:
    """A run of the inner flow for each text, and a step that merges what they put out."""
    within = within or inner()
    whole = Agent(flow=within.name, given={"text": "item"}, **(agent or {}))
    return Flow(
        name="outer",
        input=TEXTS,
        agents={"whole": whole, **handled("merge", reads=["each", "texts"])},
        steps={"each": Step(agent="whole", each="texts"), "merge": Step(agent="merge", after=["each"])},
        flows={within.name: within},
        **more,
    )


def one(within: Flow | None = None, *, agent: Mapping[str, Any] | None = None, **more: Any) -> Flow:
    """A run of the inner flow as the only step."""
    within = within or inner()
    return Flow(
        name="outer",
        input=TEXT,
        agents={"whole": Agent(flow=within.name, **(agent or {}))},
        steps={"whole": Step(agent="whole")},
        flows={within.name: within},
        **more,
    )


class Hands:
    """The handlers of these flows: what is called `slow` waits in its first step until it is let through."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()

    async def first(self, text: str) -> str:
        self.calls.append(f"first {text}")
        try:
            if text.startswith("slow"):
                await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        if text.startswith("bad"):
            raise ValueError(text)
        return text.upper()

    async def second(self, first: str) -> str:
        self.calls.append(f"second {first}")
        return first + "!"

    async def merge(self, each: list[str], texts: list[str]) -> list[str]:
        return each

    @property
    def all(self) -> dict[str, Any]:
        return {"first": self.first, "second": self.second, "merge": self.merge}


def plans_of(plan: Plan) -> dict[str, Plan]:
    """A plan and those within it, by digest."""
    found = {plan.digest: plan}
    for nested in plan.nested.values():
        found |= plans_of(nested)
    return found


class NestedTeam(Team):
    """A flow, and those within it."""

    @contextlib.asynccontextmanager
    async def process(self, *agents: str, grace_s: float = 10.0) -> AsyncIterator[Bus]:
        """Run workers of these agents of all the flows (none named: of all), and a clerk, as a process has them."""
        async with open_bus(self.bus.settings) as bus, contextlib.AsyncExitStack() as stack:
            engine = Engine(bus)
            await stack.enter_async_context(Clerk(engine).working())
            for plan in plans_of(self.plan).values():
                playing = Agents()
                playing.add(plan, self._handlers)
                shared = await stack.enter_async_context(sharing(engine, playing, plan, "test:1"))
                mergers = {plan.actor(step) for step in plan.joins}
                for actor, agent in plan.actors().items():
                    if not agents or agent in agents:
                        worker = Worker(shared, actor, plan.flow.agents[agent], playing.concurrency(plan, agent))
                        await stack.enter_async_context(worker.working(joins=actor in mergers, grace_s=grace_s))
            yield bus

    async def asked(self, run: str) -> list[Handoff]:
        """The children of a run that are runs, in the order of the log."""
        messages = [entry.message for entry in await self.log(run)]
        return [
            each
            for each in messages
            if isinstance(each, Handoff) and isinstance(each.cause, Asked) and each.cause.kind == "flow"
        ]

    async def child_runs(self, run: str) -> list[str]:
        return [run_of_child(run, child.step) for child in await self.asked(run)]

    async def answers(self, run: str) -> list[Answer]:
        return [entry.message for entry in await self.log(run) if isinstance(entry.message, Answer)]

    async def ended(self, run: str) -> Result:
        """The end of any run."""
        return await self.client.run(run).ended(WAIT_S)


@contextlib.asynccontextmanager
async def nested_team(
    server: NatsServer, namespace: str, flow: Flow, handlers: Handlers, *, start: bool = True, **settings: Any
) -> AsyncIterator[NestedTeam]:
    """A team whose workers run in one process (`start`), or that the test starts with `process`."""
    async with connect(Settings(url=server.url, namespace=namespace, **settings)) as client:
        ours = NestedTeam(client, check_flow(flow), handlers)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if start:
                    await stack.enter_async_context(ours.process(grace_s=0.5))
                yield ours
                await ours.check()
        finally:
            await ours.close()
            await client.bus.js.delete_stream(namespace)
            with contextlib.suppress(NotFoundError):
                await client.bus.js.delete_stream(client.bus.timers.stream)
