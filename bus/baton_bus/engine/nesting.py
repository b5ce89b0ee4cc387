"""Runs within runs: starting one for a step that asks for it, and what its end means for others.

Whoever writes the end of a run, or finds it, writes what follows: the answer to the step that asked for the run, and
the end of the runs that it asked for itself. All of it is create-only, so doing it twice changes nothing; and only runs
that may have such relatives are looked at: what is in their id, or in their result, says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from baton_bus.errors import RunExists, UnknownRun
from baton_schemas.errors import BadMessage, FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.child_runs import answer_of, has_to_be_followed, parent_of, run_of_child
from baton_schemas.run.fold import fold
from baton_schemas.run.handoffs import leaves_children
from baton_schemas.run.refs import StepRef, name_of
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Parent, Result, Started
from baton_schemas.wire.names import FLOW

if TYPE_CHECKING:
    from .engine import Engine

_AT_ONCE = 64
"""Runs that are ended at the same time: this hides the round trips."""
_READ_AT_ONCE = 500
"""Runs whose ends are looked for in one request: a server answers up to 1,024 subjects."""
_KNOWN_MAX = 64
_FOLLOWED_MAX = 10_000
"""Ends of which it is remembered that all of that is written: the branches of one run all find the same end."""


class Nesting:
    """Does this on one bus."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._bus = engine, engine.bus
        self._followed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._following: dict[tuple[str, str], asyncio.Lock] = {}
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    # ---- beginning ---------------------------------------------------------------------------------

    async def begin(self, plan: Plan, given: Mapping[str, Raw], parent: Parent, deadline_s: float | None) -> bool:
        """Start the run that a child step is, whose handoff is written; False when the run that asks has ended.

        Raises `RunExists` when another has its id, `InputError`, and the errors of `Publisher.create`.
        """
        # Whoever ends that run ends the children that it finds in the log, and this child is in it by now: either
        # it is found there, or we find the end here.
        if await self._engine.ended(parent.flow, parent.run) is not None:
            return False
        run = run_of_child(parent.run, parent.child)
        try:
            await self._engine.runs.start(plan, given, run, deadline_s=deadline_s, parent=parent)
        except RunExists:  # begun with another deadline, say
            _, first = await self._engine.runs.first(run)
            if parent_of(first) != parent:
                raise
        return True

    # ---- ending ------------------------------------------------------------------------------------

    def may_leave_children(self, first: Handoff) -> bool:
        """Say whether the run that begins with this handoff may have asked for runs of its own."""
        body = _body(first)
        return b'"flows":' in bytes(body) and leaves_children(self._plan(first.digest, body), "cancelled")

    async def follow(self, result: Result, *, answers: bool = True) -> None:
        """Write what follows beyond a run from its end, which is stored. Without `answers` nobody waits for it.

        Raises `BadMessage`, `NewerMessage`, and the errors of `Publisher.create`.
        """
        key = (result.flow, result.run)
        if not has_to_be_followed(result) or key in self._followed:
            return
        # All branches of a run come to its end at once: one of them does it, and the others see that it is done.
        lock = self._following.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._followed:
                await self._follow(result, answers)
                self._followed[key] = None
                while len(self._followed) > _FOLLOWED_MAX:
                    self._followed.popitem(last=False)
            self._following.pop(key, None)

    async def _follow(self, result: Result, answers: bool) -> None:
        first = await self._first(result)
        if first is not None:
            parent = parent_of(first) if answers else None
            if parent is not None:
                await self._answer(parent, first, result)
            if result.children:
                await self._end_children(self._plan(first.digest, _body(first)), result)

    async def _answer(self, parent: Parent, first: Handoff, result: Result) -> None:
        """Tell the step that asked for a run how that ended, and what it took."""
        actors: tuple[str, ...] = ()
        with contextlib.suppress(BadMessage):  # then they are read with a pattern, which takes longer
            plan = self._plan(first.digest, _body(first))
            actors = (*plan.actors(), plan.flow.name, FLOW)  # a result has the flow in place of an actor
        state = fold(await self._bus.log.run_sure(result.run, actors, result.start_seq))
        await self._engine.asking.answer(parent.actor, answer_of(parent, result, state))

    async def _end_children(self, plan: Plan, ended: Result) -> None:
        """End the runs that a run asked for. What a stranger wrote among them asks for none."""
        pattern = self._bus.subjects.run(ended.run, FLOW, "handoff")
        asked = [
            (entry.seq, message.step)
            for entry in await self._bus.log.matching_sure([pattern], ended.start_seq)
            if isinstance(message := known(entry), Handoff) and message.run == ended.run and not message.copied
        ]
        open_runs = [
            (run_of_child(ended.run, child), nested, seq)
            for seq, child in asked
            if name_of(child) in plan.flow.agents and (nested := plan.nested_of(name_of(child))) is not None
        ]
        for start in range(0, len(open_runs), _READ_AT_ONCE):
            await self._end_some(open_runs[start : start + _READ_AT_ONCE], ended)

    async def _end_some(self, runs: Sequence[tuple[str, Plan, int]], ended: Result) -> None:
        """End those of these runs that have not ended; of the others, whatever may not have been followed."""
        log, subjects = self._bus.log, self._bus.subjects
        patterns = [subjects.result(plan.flow.name, run) for run, plan, _ in runs]
        ends = {
            entry.run: entry for entry in map(known, await log.matching_sure(patterns)) if isinstance(entry, Result)
        }
        places = asyncio.Semaphore(_AT_ONCE)

        async def end(run: str, plan: Plan, seq: int) -> None:
            async with places:
                if run in ends:
                    if ends[run].children:
                        await self.follow(ends[run], answers=False)
                else:
                    await self._end_child(plan, run, ended, seq)

        await asyncio.gather(*(end(*each) for each in runs))

    async def _end_child(self, plan: Plan, run: str, ended: Result, asked_seq: int) -> None:
        """End a run, also one that is about to begin: then its end is there before it."""
        result = Result(
            flow=plan.flow.name,
            digest=plan.digest,
            run=run,
            status="cancelled",
            reason=f"run {ended.run}, which asked for it, is {ended.status}",
            start_seq=await self._start_seq(plan, run) or asked_seq,
            children=leaves_children(plan, "cancelled"),
        )
        if await self._bus.create(self._bus.subjects.of("", result), encode(result)) is None:
            stored = await self._engine.ended(result.flow, run)
            if stored is None:
                return
            result = stored
        await self.follow(result, answers=False)

    async def _start_seq(self, plan: Plan, run: str) -> int:
        """Return where a run begins; 0 when it has not begun. Where its first step is known, that is a cheap read."""
        step = plan.first[0]
        if not plan.starts_many:
            handoff = Handoff(run=run, flow=plan.flow.name, step=StepRef(step).token, cause=Started())
            entry = await self._bus.log.last_sure(self._bus.subjects.of(plan.actor(step), handoff))
            return entry.seq if entry is not None else 0
        try:
            entry, _ = await self._engine.runs.first(run)
        except UnknownRun:
            return 0
        return entry.seq

    # ---- their parts -------------------------------------------------------------------------------

    async def _first(self, result: Result) -> Handoff | None:
        """Return the first handoff of a run that ended; None when there is none."""
        entry = await self._bus.log.at_sure(result.start_seq) if result.start_seq else None
        message = known(entry)
        if isinstance(message, Handoff) and message.run == result.run and _begins(message):
            return message
        try:
            _, first = await self._engine.runs.first(result.run)
        except UnknownRun:
            return None
        return first

    def _plan(self, digest: str, body: Raw) -> Plan:
        plan = self._plans.get(digest)
        if plan is None:
            try:
                plan = check_flow(decode_flow(body), stored=True)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, FlowError) as error:
                raise BadMessage(f"the flow in the first handoff: {error}") from error
            self._plans[digest] = plan
            while len(self._plans) > _KNOWN_MAX:
                self._plans.popitem(last=False)
        return plan


def _begins(first: Handoff) -> bool:
    return isinstance(first.cause, Started) and first.cause.begins is not None


def _body(first: Handoff) -> Raw:
    begins = first.cause.begins if isinstance(first.cause, Started) else None
    return begins.flow_body if begins is not None else Raw(b"")
