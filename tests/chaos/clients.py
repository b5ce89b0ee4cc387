"""The clients of a chaos run: they submit until it is acknowledged, wait for results, and cancel some.

Beside those that use Baton's client there are strangers on a bare socket: they publish tasks as JSON, bytes that mean
nothing, and words that only the server and workers should say.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator

from baton_actors.agents.loading import FoundFlow
from baton_bus import BusError
from baton_bus.store.bus import Bus
from baton_schemas.wire.messages import Result
from tests.clients import cancel_run, result_of, start_run

from . import bare
from .history import History

_AT_ONCE = 32
"""Runs in flight: enough to keep every worker busy, few enough to end soon after the last fault."""
_AGAIN_S = 0.2
_TASKS = 0.15
"""How many of the runs are asked for by strangers."""


class Clients:
    """Submits `runs` runs over about `spread_s` seconds. What each does follows from the seed."""

    def __init__(
        self,
        bus: Bus,
        flows: list[FoundFlow],
        history: History,
        seed: int,
        runs: int,
        spread_s: float,
        port: Callable[[], int],
    ) -> None:
        """`port` is where strangers reach a server."""
        self._bus, self._flows, self._history, self._port = bus, flows, history, port
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
                if cancel_after_s is None and deadline_s is None and self._dice.random() < _TASKS:
                    task = group.create_task(self._task(flow, name))
                else:
                    task = group.create_task(self._run(flow, name, cancel_after_s, deadline_s))
                task.add_done_callback(lambda _: at_once.release())
                await asyncio.sleep(self._dice.uniform(0.2, 1.8) * self._wait_s)

    async def send_garbage(self, times: int) -> None:
        """Publish bytes that mean nothing where actors and stewards take their work."""
        for number in range(times):
            flow = self._flows[number % len(self._flows)]
            for subject, data in _garbage(self._bus.settings.namespace, flow, number, self._names[number]):
                seq = await self._send(subject, data)
                self._history.say("garbage.sent", seq=seq, data=data.decode("latin-1"))
            await asyncio.sleep(self._wait_s * 8)

    async def forge_words(self, times: int) -> None:
        """Say that runs have ended, and that providers ask to wait, as if it were the server or a worker."""
        dice, space = random.Random("forged words"), self._bus.settings.namespace
        for _ in range(times):
            await asyncio.sleep(self._wait_s * 2)
            if not self.waiting:
                continue
            run, flow = dice.choice(sorted(self.waiting)), dice.choice(self._flows)
            body = json.dumps({"kind": "result", "v": 1, "run": run, "flow": flow.name, "status": "cancelled"}).encode()
            actor = dice.choice(sorted(flow.plan.actors()))
            words = [(f"{space}-stored.result.{found.name}.{run}.end", body) for found in self._flows]
            words += [(f"{space}.live.{run}.end", b""), (f"{space}.live.{actor}.pace", dice.choice(_PACES))]
            for subject, word in words:
                await bare.say(self._port(), subject.encode(), word)
            self._history.say("word.forged", run=run)

    async def _run(self, flow: FoundFlow, run: str, cancel_after_s: float | None, deadline_s: float | None) -> None:
        self._history.say("submit.sent", run=run, flow=flow.name, key=run, deadline_s=deadline_s)
        while True:
            try:
                await start_run(self._bus, flow.plan, {"key": run}, run=run, deadline_s=deadline_s)
                break
            except BusError as error:
                self._history.say("submit.failed", run=run, error=type(error).__name__)
                await asyncio.sleep(_AGAIN_S)
        self._history.say("submit.acknowledged", run=run)
        self.waiting.add(run)
        if cancel_after_s is not None:
            await asyncio.sleep(cancel_after_s)
            self._history.say("cancel.sent", run=run)
            result = await self._patiently_cancel(run)
        else:
            result = await self._result(flow, run)
        self.waiting.discard(run)
        self._history.say("client.got", run=run, status=result.status)

    async def _task(self, flow: FoundFlow, run: str) -> None:
        """Publish a task from a bare socket; who gets no receipt publishes it again, under the same id."""
        self._history.say("submit.sent", run=run, flow=flow.name, key=run)
        body = json.dumps({"input": {"key": run}, "run": run}).encode()
        subject = f"{self._bus.settings.namespace}.task.{flow.name}".encode()
        await self._send(subject, body)
        self._history.say("submit.acknowledged", run=run)
        self.waiting.add(run)
        result = await self._result(flow, run)
        self.waiting.discard(run)
        self._history.say("client.got", run=run, status=result.status)

    async def _result(self, flow: FoundFlow, run: str) -> Result:
        while True:
            try:
                return await result_of(self._bus, run, flow=flow.name)
            except BusError:
                await asyncio.sleep(_AGAIN_S)

    async def _patiently_cancel(self, run: str) -> Result:
        while True:
            try:
                return await cancel_run(self._bus, run)
            except BusError:
                await asyncio.sleep(_AGAIN_S)

    async def _send(self, subject: bytes, data: bytes) -> int:
        while True:
            if (ack := await bare.publish(self._port(), subject, data)) is not None:
                return int(ack["seq"])
            await asyncio.sleep(_AGAIN_S)


def _garbage(namespace: str, flow: FoundFlow, number: int, real: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield subjects and bodies, none of which any attempt will make good.

    One would join a branch that never was to the run `real`, if the body of a reply were believed over its subject.
    """
    run = f"garbage-{flow.name}-{number}"
    head = {"v": 1, "flow": flow.name, "digest": flow.plan.digest, "run": run}
    merger = flow.plan.actor(next(iter(flow.plan.joins), flow.plan.final))
    first = flow.plan.actor(flow.plan.first[0])
    start, step = {"by": "start"}, flow.plan.first[0]
    bodies = [
        b"no json \\x00",
        b'{"kind":"handoff"}',
        b'{"kind":"handoff","run":"\xff\xfe"}',
        b"[" * 5_000,
        json.dumps({"kind": "handoff", **head, "step": "nowhere", "cause": start}).encode(),
        json.dumps({"kind": "handoff", **head, "step": step, "cause": start, "digest": "0" * 32}).encode(),
        json.dumps({"kind": "handoff", **head, "step": step, "cause": {"by": "wake", "seq": 1, "number": 1}}).encode(),
    ]
    for index, body in enumerate(bodies):
        yield f"{namespace}.handoff.{first}.{run}.bad.{index}".encode(), body
        yield f"{namespace}.answer.{first}.{run}.bad.{index}".encode(), body
        yield f"{namespace}.say.editors.{run}.bad".encode(), body
        if flow.plan.joins:
            yield f"{namespace}.reply.{merger}.{run}.bad.{index}".encode(), body
    for join in flow.plan.joins:
        forged = {"kind": "reply", **head, "run": real, "step": join, "source": flow.plan.sources[join][0]}
        forged |= {"outcome": {"status": "done", "output": {"branch": "forged"}}, "start_seq": 1}
        yield f"{namespace}.reply.{merger}.{run}.bad.forged".encode(), json.dumps(forged).encode()
    for body in _BAD_TASKS:
        yield f"{namespace}.task.{flow.name}".encode(), body


_BAD_TASKS = (
    b'{"input": {"key": 7}}',
    b'{"input": {"key": "\xff"}}',
    b'{"input": {"key": "\\ud800"}}',
    b'{"input": {"key": "k"}, "run": "no token"}',
    b'{"input": {"key": "k"}, "run": "' + b"r" * 100 + b'"}',
    b'{"input": {"key": "k"}, "run": 7}',
    b'{"input": {"key": ' + b"[" * 2_000 + b"]" * 2_000 + b"}}",
    b"",
)
_PACES = (b"0.2", b"nan", b"-1", b"soon", b"\xff")
