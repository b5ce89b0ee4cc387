"""The clients of a chaos run: they submit until it is acknowledged, wait for results, cancel some, and send garbage."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator

from baton_actors.agents.loading import FoundFlow
from baton_bus import Bus, BusError
from baton_schemas.wire.messages import Result

from .history import History

_AT_ONCE = 32
"""Runs in flight: enough to keep every worker busy, few enough to end soon after the last fault."""
_AGAIN_S = 0.2


class Clients:
    """Submits `runs` runs over about `spread_s` seconds. What each does follows from the seed."""

    def __init__(
        self, bus: Bus, flows: list[FoundFlow], history: History, seed: int, runs: int, spread_s: float
    ) -> None:
        self._bus, self._flows, self._history = bus, flows, history
        self._dice = random.Random(f"clients {seed}")
        self._names = [f"r{seed}-{number}" for number in range(runs)]
        self._wait_s = spread_s / max(runs, 1)
        self.waiting: set[str] = set()
        """Runs that were acknowledged, and whose result has not come."""

    async def work(self) -> None:
        """Return when every run has its result."""
        at_once = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                await at_once.acquire()
                flow = self._flows[self._dice.randrange(len(self._flows))]
                cancel_after_s = self._dice.uniform(0, 0.5) if self._dice.random() < 0.08 else None
                deadline_s = self._dice.uniform(0.1, 1.0) if self._dice.random() < 0.05 else None
                task = group.create_task(self._run(flow, name, cancel_after_s, deadline_s))
                task.add_done_callback(lambda _: at_once.release())
                await asyncio.sleep(self._dice.uniform(0.2, 1.8) * self._wait_s)

    async def send_garbage(self, times: int) -> None:
        """Publish bytes that mean nothing where actors and stewards take their work."""
        for number in range(times):
            flow = self._flows[number % len(self._flows)]
            for subject, data in _garbage(self._bus.settings.namespace, flow, number, self._names[number]):
                seq = await self._send(subject, data.encode())
                self._history.say("garbage.sent", seq=seq, data=data)
            await asyncio.sleep(self._wait_s * 8)

    async def _run(self, flow: FoundFlow, run: str, cancel_after_s: float | None, deadline_s: float | None) -> None:
        self._history.say("submit.sent", run=run, flow=flow.name)
        while True:
            try:
                await self._bus.submit(flow.plan, {"key": run}, run=run, deadline_s=deadline_s)
                break
            except BusError as error:
                self._history.say("submit.failed", run=run, error=type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
        self._history.say("submit.acknowledged", run=run)
        self.waiting.add(run)
        if cancel_after_s is not None:
            await asyncio.sleep(cancel_after_s)
            result = await self._patiently_cancel(run)
        else:
            result = await self._result(flow, run)
        self.waiting.discard(run)
        self._history.say("client.got", run=run, status=result.status)

    async def _result(self, flow: FoundFlow, run: str) -> Result:
        while True:
            try:
                return await self._bus.result(run, flow=flow.name)
            except BusError:
                await asyncio.sleep(_AGAIN_S)

    async def _patiently_cancel(self, run: str) -> Result:
        while True:
            try:
                return await self._bus.cancel(run)
            except BusError:
                await asyncio.sleep(_AGAIN_S)

    async def _send(self, subject: str, data: bytes) -> int:
        while True:
            try:
                return await self._bus.publisher.append(subject, data)
            except BusError:
                await asyncio.sleep(_AGAIN_S)


def _garbage(namespace: str, flow: FoundFlow, number: int, real: str) -> Iterator[tuple[str, str]]:
    """Yield subjects and bodies, none of which any attempt will make good.

    One would join a branch that never was to the run `real`, if the body of a reply were believed over its subject.
    """
    run = f"garbage-{flow.name}-{number}"
    head = {"v": 1, "flow": flow.name, "digest": flow.plan.digest, "run": run}
    merger = flow.plan.actor(next(iter(flow.plan.joins), flow.plan.final))
    first = flow.plan.actor(flow.plan.first[0])
    bodies = [
        "no json \\x00",
        '{"kind":"handoff"}',
        json.dumps({"kind": "handoff", **head, "step": "nowhere", "source": "start"}),
        json.dumps({"kind": "handoff", **head, "v": 99, "step": flow.plan.first[0], "source": "start"}),
        json.dumps({"kind": "handoff", **head, "digest": "0" * 32, "step": flow.plan.first[0], "source": "start"}),
    ]
    for index, body in enumerate(bodies):
        yield f"{namespace}.handoff.{first}.{run}.bad.{index}", body
        if flow.plan.joins:
            yield f"{namespace}.reply.{merger}.{run}.bad.{index}", body
    for join in flow.plan.joins:
        forged = {"kind": "reply", **head, "run": real, "step": join, "branch": flow.plan.sources[join][0]}
        forged |= {"outcome": {"status": "done", "output": {"branch": "forged"}}, "start_seq": 1}
        yield f"{namespace}.reply.{merger}.{run}.bad.forged", json.dumps(forged)
    yield f"{namespace}.task.{flow.name}", '{"input": {"key": 7}}'
