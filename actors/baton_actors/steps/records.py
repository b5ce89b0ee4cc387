"""Writing what a step came to: its decisive record, and then what follows from the record that is stored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from baton_actors.steps.values import NotAList, TooManyBranches, Values
from baton_bus import Bus
from baton_bus.errors import BlobMissing
from baton_schemas.errors import BadMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import with_outcome
from baton_schemas.run.fork import Logged, copies
from baton_schemas.run.lifecycle import Routed, base_of, decide, follow, join_timers, spreads
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import VERSION, Decisive, Failed, Handoff, OutcomeRecord, Reply, Result, Skipped, State
from baton_schemas.wire.names import END

_AT_ONCE = 500
"""Messages written at the same time after a fan-out: enough to hide round trips, bounded for the client's buffer."""


class Records:
    """Writes create-only, so that whoever does it second changes nothing."""

    def __init__(self, bus: Bus, values: Values) -> None:
        self._bus, self._values = bus, values

    async def decided(self, plan: Plan, handoff: Handoff) -> Decisive | None:
        """Return the decisive record of the step of this handoff, if it is in the log."""
        unknown = decide(plan, handoff, State(), Skipped(reason=""), 0)
        return await self._stored(self._bus.subjects.of(*unknown))

    async def record(self, decision: Routed) -> Decisive:
        """Write a decisive record; return the one that is stored, ours or that of whoever was first.

        Raises `PayloadTooLarge`, `NoStream`, `PublishRefused`, `BusUnavailable`.
        """
        if await self._create(decision):
            return decision.message
        subject = self._bus.subjects.of(*decision)
        stored = (await self._bus.log.taken(subject)).message
        if not isinstance(stored, Handoff | Reply | OutcomeRecord | Result):
            raise BadMessage("a decisive record cannot be read", subject)
        return stored

    async def follow(self, plan: Plan, record: Decisive) -> None:
        """Write what follows from a record: handoffs, replies, the result. Raises as `record`.

        When a list to fan out over cannot be read any more, that is the run's failure: nothing that waits for
        its branches would ever begin.
        """
        try:
            await self._follow(plan, record)
        except BlobMissing as error:
            assert isinstance(record, OutcomeRecord)
            await self.fail_run(plan, record.run, record.step, error, record.start_seq)

    async def fail_run(self, plan: Plan, run: str, step: str, error: Exception, start_seq: int) -> None:
        """End a run that cannot go on, at a step whose outcome may be recorded already. Raises as `record`."""
        result = Result(
            v=VERSION,
            flow=plan.flow.name,
            digest=plan.digest,
            run=run,
            status="failed",
            step=step,
            reason=str(error),
            start_seq=start_seq,
        )
        await self.write(plan, [Routed("", result)])

    async def _follow(self, plan: Plan, record: Decisive) -> None:
        lists = {}
        if isinstance(record, OutcomeRecord):
            base = base_of(record)
            # The output of one branch is not yet the list that goes under the name of its step.
            state = record.state if record.count else with_outcome(record.state, base, record.outcome)
            to_spread = spreads(plan, base)
            if to_spread:
                with contextlib.suppress(NotAList, TooManyBranches):  # the step that failed could not refuse it
                    lists = dict(await self._values.lists(to_spread, state))
            await self.set_join_timers(plan, record.run, plan.successors[base], state, record.start_seq)
        derived = follow(plan, record, lists)
        if derived:
            await self.write(plan, derived)
        if isinstance(record, Result):
            await self._announce(plan, record)

    async def set_join_timers(self, plan: Plan, run: str, entered: Sequence[str], state: State, start_seq: int) -> None:
        """Set the deadlines of the joins that wait for these steps, unless they are set. Raises as `record`."""
        if not plan.timed_joins:
            return
        for timer in join_timers(plan, run, entered, state, start_seq):
            due_s = self._bus.now_s() + timer.after_s
            await self._bus.timers.at(timer.actor, run, timer.reply.step, due_s, encode(timer.reply))

    async def write(self, plan: Plan, messages: Sequence[Routed]) -> None:
        """Write messages that follow from something stored, each create-only. Raises as `record`."""
        for start in range(0, len(messages), _AT_ONCE):
            await asyncio.gather(*map(self._create, messages[start : start + _AT_ONCE]))
        for _, message in messages:
            if isinstance(message, Result):
                await self._announce(plan, message)
            elif isinstance(message, Reply) and isinstance(message.outcome, Failed):
                await self.follow(plan, message)

    async def copy(self, plan: Plan, first: Handoff, start_seq: int) -> None:
        """Copy the finished steps of the run that this one goes on from. Raises as `record`."""
        subjects = self._bus.subjects
        entries = [entry async for entry in self._bus.log.read([subjects.run(first.forked_from)])]
        logged = [
            Logged(entry.seq, subjects.split(entry.subject).who, entry.message)
            for entry in entries
            if entry.message is not None
        ]
        await self.write(plan, copies(plan, logged, first.run, start_seq, first.until_seq))

    async def _create(self, routed: Routed) -> bool:
        """Write a message; False when its subject is taken. Waits while the log is full."""
        subject, body = self._bus.subjects.of(*routed), encode(routed.message)
        if len(body) > self._bus.settings.inline_limit_bytes and not isinstance(routed.message, Result):
            state = await self._bus.offload(routed.message.state)
            body = encode(replace(routed.message, state=state))
        return await self._bus.create_with_room(subject, body) is not None

    async def _announce(self, plan: Plan, result: Result) -> None:
        """Say that a run has ended where some of its steps may be running or waiting still."""
        if result.status != "done" or plan.leaves_branches:
            await self._bus.announce_end(result.run)
        if plan.flow.deadline_s is not None:
            await self._bus.timers.cancel(result.flow, result.run, END)

    async def _stored(self, subject: str) -> Decisive | None:
        entry = await self._bus.log.last(subject)
        message = entry.message if entry is not None else None
        return message if isinstance(message, Handoff | Reply | OutcomeRecord | Result) else None
