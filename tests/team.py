"""Teams of real workers against a real server: run a flow, read its log, start and stop worker processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.agents.agents import Agents
from baton_actors.agents.handlers import Handler
from baton_actors.models import Models
from baton_actors.processes.worker import Worker
from baton_actors.steps.shared import sharing
from baton_bus import Client, Settings, connect
from baton_bus.client.watching import EndOfRun
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, OnError, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.lifecycle import Create, Submitted, View, decide
from baton_schemas.run.refs import ended_by, joined, tokens
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.export import dump, load
from baton_schemas.wire.facts import Fact
from baton_schemas.wire.messages import After, Answer, Handoff, Note, OutcomeRecord, Parked, Reply, Result
from baton_schemas.wire.outcomes import Done, Outcome, State

from .servers import WAIT_S, until

Handlers = Mapping[str, Any]
"""Functions by the name of their agent."""


def flow_of(
    steps: Mapping[str, Step],
    input: Mapping[str, Field] | None = None,
    agents: Mapping[str, Mapping[str, Any]] | None = None,
    on_error: OnError = "fail",
) -> Flow:
    """A flow with a handler agent for each agent name that the steps use, and for those that `agents` names besides.

    `agents` has what is special about each.
    """
    names = dict.fromkeys([*(step.agent for step in steps.values()), *(agents or {})])
    usual: dict[str, Any] = {"retry_base_s": 0.02, "retry_max_s": 0.05}
    return Flow(
        name="flow",
        input=dict(input or {}),
        agents={
            name: Agent(**{"handler": f"team:{name}"} | usual | dict((agents or {}).get(name, {}))) for name in names
        },
        steps=dict(steps),
        on_error=on_error,
    )


class Live:
    """The state of a run as it comes, and the sequence up to which it has come."""

    def __init__(self, bus: Bus, run: str) -> None:
        self.fold, self.seq = RunFold(), 0
        self._end = EndOfRun()
        self._watching = asyncio.create_task(self._watch(bus, run))

    async def until(self, entry: Entry) -> None:
        """Wait until it has come to an entry, and take no more."""
        await until(lambda: self.seq >= entry.seq)
        await self.stop()

    async def stop(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, bus: Bus, run: str) -> None:
        async with contextlib.aclosing(bus.log.follow([bus.subjects.run(run)])) as entries:
            async for entry in entries:
                self.fold.apply(entry)
                self.seq = entry.seq
                if self._end.is_in(entry):
                    return


class Team:
    """A flow, a connection for the test itself, and workers. Each run that it submits is watched live."""

    def __init__(self, client: Client, plan: Plan, handlers: Handlers, models: Models | None = None) -> None:
        self.client, self.bus, self.plan = client, client.bus, plan
        self._handlers = {f"team:{name}": Handler(function) for name, function in handlers.items()}
        self._models = models
        self._live: dict[str, Live] = {}

    @contextlib.asynccontextmanager
    async def process(self, *agents: str, grace_s: float = 10.0) -> AsyncIterator[Bus]:
        """Run workers of these agents (none named: of all) on a connection of their own, as a process has one."""
        async with open_bus(self.bus.settings) as bus, contextlib.AsyncExitStack() as stack:
            playing = Agents(self._models)
            playing.add(self.plan, self._handlers)
            shared = await stack.enter_async_context(sharing(Engine(bus), playing, self.plan, "test:1"))
            for actor, agent in self.plan.actors().items():
                if agents and agent not in agents:
                    continue
                worker = Worker(shared, actor, self.plan.flow.agents[agent], playing.concurrency(self.plan, agent))
                joins = any(self.plan.actor(step) == actor for step in self.plan.joins)
                await stack.enter_async_context(worker.working(joins=joins, grace_s=grace_s))
            yield bus

    async def submit(self, run: str = "", /, **given: Any) -> str:
        run = (await self.client.start(self.plan, given, run_id=run)).id
        if run not in self._live:
            self._live[run] = Live(self.bus, run)
        return run

    async def result(self, run: str) -> Result:
        return await self.client.run(run, self.plan.flow.name).ended(WAIT_S)

    async def run(self, **given: Any) -> Result:
        return await self.result(await self.submit(**given))

    async def log(self, run: str) -> list[Entry]:
        """Every message of the run."""
        return [entry async for entry in self.bus.log.read([self.bus.subjects.run(run)])]

    async def kinds(self, run: str) -> list[str]:
        return [kind_of(entry) for entry in await self.log(run)]

    async def notes(self, run: str) -> list[Note]:
        return [entry.message for entry in await self.log(run) if isinstance(entry.message, Note)]

    async def facts(self, run: str) -> list[Fact]:
        return [note.fact for note in await self.notes(run)]

    async def state(self, run: str) -> RunState:
        return fold(await self.log(run))

    async def until_settled(self, kind: str, agent: str) -> None:
        """Wait until nothing of an agent's `handoff` or `reply` consumer is waiting, or in a worker's hands."""
        consumer = f"{kind}-{self.actor(agent)}"
        async with asyncio.timeout(WAIT_S):
            while True:
                info = await self.bus.js.consumer_info(self.bus.settings.namespace, consumer)
                if not info.num_pending and not info.num_ack_pending:
                    return
                await asyncio.sleep(0.01)

    def actor(self, agent: str) -> str:
        return next(actor for actor, name in self.plan.actors().items() if name == agent)

    async def check(self) -> None:
        """Assert what must hold of every log: one result, one outcome a step, and live state equal to replayed."""
        for run, live in self._live.items():
            entries = await self.log(run)
            end = EndOfRun()
            results = [entry for entry in entries if end.is_in(entry)]
            assert len(results) <= 1
            await live.until(entries[-1] if not results else results[0])
            seen = [entry for entry in await self.log(run) if entry.seq <= live.seq]
            assert live.fold.state == fold(load(dump(entry), number) for number, entry in enumerate(seen, start=1))
            assert_one_outcome_a_step(await self.log(run))

    async def close(self) -> None:
        await asyncio.gather(*(live.stop() for live in self._live.values()))


@contextlib.asynccontextmanager
async def team(
    url: str,
    namespace: str,
    flow: Flow,
    handlers: Handlers,
    *,
    start: bool = True,
    models: Models | None = None,
    **settings: Any,
) -> AsyncIterator[Team]:
    """A team whose workers run in one process (`start`), or that the test starts with `Team.process`."""
    async with connect(Settings(url=url, namespace=namespace, **settings)) as client:
        ours = Team(client, check_flow(flow), handlers, models)
        try:
            async with contextlib.AsyncExitStack() as stack:
                if start:
                    await stack.enter_async_context(ours.process(grace_s=0.5))
                yield ours
                await ours.check()
        finally:
            await ours.close()
            await client.bus.js.delete_stream(namespace)


def kind_of(entry: Entry) -> str:
    return entry.subject.split(".")[1]


def first_of(plan: Plan, run: str, lists: Mapping[str, list[Any]] | None = None, **given: Any) -> Create:
    """The first handoff of a run as `start` would write it, and to whom; `lists` are those to fan out over."""
    items = {step: encode_items(values) for step, values in (lists or {}).items()}
    (first,) = decide(View(plan, lists=items), Submitted(run, State(input=encode_input(given))))
    assert isinstance(first, Create)
    return first


def encode_items(values: list[Any]) -> list[Raw]:
    return [Raw(msgspec.json.encode(value)) for value in values]


def branches_of(closing: Handoff) -> list[str]:
    """The branches that a join closed with, in the order of the flow."""
    closed = joined(closing)
    assert closed is not None
    return [name for source, text in closed.branches.items() for name in tokens(source, text)]


def value_of(outcome: Outcome | None) -> Any:
    """What a step put out, decoded. Fails the test when it did not end well."""
    assert isinstance(outcome, Done), outcome
    return msgspec.json.decode(outcome.output)


def assert_one_outcome_a_step(entries: list[Entry]) -> None:
    """I1 from the raw log: whatever says how a step ended says the same, and no subject has two messages."""
    outcomes: dict[str, Outcome] = {}
    written: set[str] = set()
    for entry in entries:
        if not isinstance(entry.message, Parked) and kind_of(entry) != "say":  # an answer; whatever people say
            assert entry.subject not in written, f"{entry.subject} was written twice"
            written.add(entry.subject)
        step, outcome = _decided(entry)
        if outcome is not None:
            assert outcomes.setdefault(step, outcome) == outcome, f"step {step} ended in two ways"


def _decided(entry: Entry) -> tuple[str, Outcome | None]:
    match entry.message:
        case Handoff(cause=After(step=step, outcome=outcome)):
            return step, outcome
        case Reply() as reply:
            return ended_by(reply), reply.outcome
        case Answer(child=child):
            return child, entry.message.outcome
        case OutcomeRecord(step=step) | Result(step=step):
            return step, entry.message.outcome
        case _:
            return "", None
