"""The children of a step: each is asked for once, found again when the step is done again, and waited for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.asks import AskFailed, AskRefused
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import RunExists
from baton_schemas.errors import InputError
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.run.asking import by_itself, child_handoff, child_of, who_is_asked
from baton_schemas.run.child_runs import parent_in
from baton_schemas.run.refs import key_of_child
from baton_schemas.wire.messages import Answer, Asked, AskedKind, Handoff
from baton_schemas.wire.outcomes import NULL, Done, Failed, State

from .allowed import check_count, seconds_of
from .arguments import given_with
from .asked_before import AskedBefore
from .child import Child
from .claim import Claim
from .hearing import Answers
from .job import Job
from .sure import sure
from .waiting import Waiting

Begin = Callable[[Handoff], Awaitable[None]]

_FROM_OUTSIDE = frozenset({"person", "event"})
_LATER_S = 2.0
"""From when a run that was asked for is to expire to when it is not waited for any more: for its end to be told."""


class Children:
    """Those of one step, in one worker's hands."""

    def __init__(
        self, engine: Engine, answers: Answers, job: Job, work: Claim, journal: Journal, *, again: bool
    ) -> None:
        """`again` says whether the step may have been done before, and have asked for some."""
        self._engine, self._answers, self._job, self._work = engine, answers, job, work
        self._actor = work.plan.actor(job.step)
        self._park_after_s = work.plan.agent(job.step).park_after_s
        self.before = AskedBefore(engine, answers, job, work, journal, again=again)
        self.waiting = Waiting(engine, answers, job, work, self.before)
        self._alike: Counter[tuple[str, ...]] = Counter()
        """How often the same was asked for."""
        self._count = 0
        """Those included that are being asked for."""

    async def ask(
        self,
        kind: AskedKind,
        name: str,
        asked: object,
        state: State,
        *,
        deadline_s: float | None = None,
        cause: Asked | None = None,
        begin: Begin | None = None,
    ) -> Raw:
        """Ask for a child, unless it was asked for before, and return its output once it has answered.

        `asked` is what makes it what it is, besides kind and name; `cause` says more of it. `begin` is called with its
        handoff, which is stored, and does what is to be done for it, again if need be. Raises `AskFailed`,
        `AskRefused`, `NotRecorded`.
        """
        if deadline_s is not None and kind != "sleep":
            deadline_s = seconds_of("deadline_s", deadline_s, least=0.001)
        what = (kind, name, msgspec.json.encode(asked, order="sorted").decode())
        self._alike[what] += 1
        number = self._alike[what]
        self._job.asks_outside = self._job.asks_outside or kind in _FROM_OUTSIDE
        token = child_of(self._job.step, kind, name, asked, number)
        answer = await self.before.answer(token)
        if kind != "batch":  # it asks its own model, and nobody else
            self._count += 1
            check_count(self._work, name, self._count)
        if answer is not None:
            self.before.asks(token, is_new=False)
        else:
            cause = self._cause(cause or Asked(step=""), kind, number, deadline_s)
            handoff = child_handoff(self._work.handoff, self._work.start_seq, token, cause, state)
            answer = await self._answer(handoff, cause, begin)
        match answer.outcome:
            case Done(blob=None, output=output):
                return output
            case Done():
                return await sure(lambda: self._engine.asking.value(answer))
            case Failed(error=error):
                raise AskFailed(name, error)
            case _:
                return NULL

    async def run(self, agent: str, arguments: Mapping[str, Any], deadline_s: float | None) -> Raw:
        """Ask for a run of the flow that an agent is. Raises as `ask`."""
        plan = self._work.plan.nested_of(agent)
        assert plan is not None
        values = await given_with(self._engine, self._work, agent, arguments)
        if deadline_s is not None:
            deadline_s = seconds_of("deadline_s", deadline_s, least=0.001)

        async def begin(child: Handoff) -> None:
            async def start() -> bool:
                above = await self._engine.budgets.above_child(self._work.plan, self._work.start_seq, self._job.run)
                parent = replace(parent_in(child, self._actor, self._work.start_seq), above=above)
                try:
                    return await self._engine.nesting.begin(plan, values, parent, deadline_s)
                except (InputError, RunExists) as error:
                    raise AskRefused(str(error)) from error

            if not await sure(start):  # our own run has ended
                self._job.cancel("run ended")

        # The run expires by itself, and says so. That the step goes on is not left to those who do the run.
        waits_s = None if deadline_s is None else min(deadline_s + _LATER_S, DEADLINE_MAX_S)
        return await self.ask("flow", agent, values, State(input=values), deadline_s=waits_s, begin=begin)

    # ---- one that was not answered before ----------------------------------------------------------

    def _cause(self, more: Asked, kind: AskedKind, number: int, deadline_s: float | None) -> Asked:
        return replace(
            more,
            step=self._job.step,
            actor=self._actor if kind in _FROM_OUTSIDE or kind == "batch" else "",
            kind=kind,
            number=number,
            depth=self._work.depth + 1,
            due_s=self._engine.bus.now_s() + deadline_s if deadline_s is not None else 0.0,
        )

    async def _answer(self, handoff: Handoff, cause: Asked, begin: Begin | None) -> Answer:
        """Write a child's handoff, unless it is there, and return the answer once there is one."""
        engine, token, kind = self._engine, handoff.step, cause.kind
        if self.waiting.is_closed:
            raise asyncio.CancelledError
        if not self._answers.are_followed:
            await sure(lambda: self._answers.begin(self._job.delivery.seq))
        child = self.waiting.begin(token, kind)
        try:
            async with self._answers.places:
                there = await sure(lambda: engine.asking.ask(who_is_asked(self._work.plan, handoff), handoff))
                if begin is not None:  # before anybody may park the step upon it
                    await begin(handoff)
            handoff = replace(handoff, cause=there or cause)
            if there is not None and child.is_open:
                # It was asked by a worker that is gone, or by one that still goes on: its answer may be older than we.
                await self._look(child)
            if kind == "event" and child.is_open:
                await self._hear(child, handoff)
            if cause.due_s and child.is_open:
                await sure(lambda: self._until_due(child, handoff))
            # From here on it may be parked: what answers by itself when its time is up will do so with nobody here.
            self.before.asks(token, is_new=there is None)
            self.waiting.parking.asked(child)
            answer = await child.answer
            if cause.due_s and kind != "sleep":  # its timer would come for nothing
                self._answers.in_background(engine.bus.timers.cancel(self._actor, self._job.run, token))
            return answer
        finally:
            await self.waiting.end(child)

    async def _look(self, child: Child) -> None:
        """Take an answer that is there."""
        job, keys = self._job, [key_of_child(child.token)]
        for answer in await sure(lambda: self._engine.asking.some(self._actor, job.run, job.step, keys)):
            child.heard(answer)

    async def _hear(self, child: Child, handoff: Handoff) -> None:
        """Take an event that came before anybody waited for it: the clerk looks for who waits, and we for what came."""
        answer = await sure(lambda: self._engine.saying.hear(handoff))
        if answer is not None:
            child.heard(answer)

    async def _until_due(self, child: Child, handoff: Handoff) -> None:
        """Have a child answered when its time is up: by us as long as we are here, else by a timer of the broker."""
        cause, parking = handoff.cause, self.waiting.parking
        assert isinstance(cause, Asked)
        if not cause.due_s:  # the one who asked first would have waited for ever
            return
        left_s = cause.due_s - self._engine.bus.now_s()
        sleeps, is_long = cause.kind == "sleep", left_s > self._park_after_s
        if not sleeps or is_long:
            await parking.set_timer(handoff)
        if not sleeps:
            return
        child.sleep = handoff
        if is_long:
            parking.soon(0.0)
        else:
            loop = asyncio.get_running_loop()
            child.nap = loop.call_later(max(left_s, 0.0), self._nap_is_over, child, handoff)

    def _nap_is_over(self, child: Child, handoff: Handoff) -> None:
        self._answers.in_background(self._answer_itself(child, handoff))

    async def _answer_itself(self, child: Child, handoff: Handoff) -> None:
        if child.is_open and not self.waiting.is_closed:
            answer = by_itself(handoff, self._work.start_seq)
            child.heard(await sure(lambda: self._engine.asking.answer(self._actor, answer)))
