"""The engine: does what the lifecycle decided. Clients, workers and services use it: each effect is written once.

Here is the way of a step: begin, record, derive. The rest are parts of it: whole runs (`runs.py`), going on from one,
runs within runs, fan-outs, asking, what is said from outside, and `writing.py`, by which all of it is written.
"""

from __future__ import annotations

from baton_bus.errors import BlobMissing, PayloadTooLarge, TooManyBranches
from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList
from baton_schemas.run.child_runs import has_to_be_followed, version_in
from baton_schemas.run.fork import origin_of
from baton_schemas.run.lifecycle import (
    Action,
    Begun,
    CancelTimer,
    Create,
    Ended,
    Event,
    Recorded,
    SetTimer,
    Stopped,
    View,
    decide,
    decisive_of,
)
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Answer, Decisive, Handoff, Reply, Result, Woken
from baton_schemas.wire.outcomes import Failed
from baton_schemas.wire.values import clean_text

from .asking import Asking
from .awaited import AwaitedWords
from .budgets import Budgets
from .fan_outs import NO_FAN_OUT, FanOuts, may_fan_out
from .files import Files
from .forking import Forking
from .nesting import Nesting
from .runs import REASON_MAX, Runs
from .saying import Saying
from .spread import SpreadLists
from .values import Values
from .writing import Writing

CANNOT_GO_ON = (BlobMissing, NotAList, TooManyBranches, PayloadTooLarge)
"""What no second try makes good when it is met in writing what follows: the run ends with it."""
WOKEN_AHEAD_S = 0.3
"""What was parked comes so early, and is then held until it is due: nats-server looks at its timers every 250 ms at
most (`MsgScheduling.resetTimer`, 2.12 to 2.15), so that they were up to 270 ms late in a trial of 60."""


class Engine:
    """Applies the lifecycle on one bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.values, self.budgets = bus, Values(bus), Budgets(bus)
        self.files = Files(bus)
        self.writing = Writing(bus, self.values)
        self.spread = SpreadLists(bus, self.values)
        self.fan_outs = FanOuts(bus, self.values, self.spread)
        self.forking = Forking(bus, self.values, self.writing)
        self.asking = Asking(bus, self.values)
        self.awaited = AwaitedWords(bus)
        self.saying = Saying(bus, self.values, self.asking, self.awaited, self.budgets)
        self.nesting = Nesting(self)
        self.runs = Runs(self)

    # ---- what a handoff stands for -----------------------------------------------------------------

    async def begin(self, plan: Plan, first: Handoff, seq: int, stored_at_s: float) -> list[Action]:
        """Write what the first handoff of a run stands for; return it. A run that goes on from another is copied.

        Raises those of `CANNOT_GO_ON` when a list of the input cannot be read, and the errors of `Publisher.create`.
        """
        origin = origin_of(first)
        if origin is not None:
            for failed in await self.forking.copy(plan, first, origin, seq):
                await self.derive(plan, failed)
        return await self.apply(plan, Begun(first, seq, stored_at_s))

    async def park(self, actor: str, parked: Handoff, seq: int, number: int, delay_s: float, why: str) -> None:
        """Have a handoff, which is in the log at `seq`, come again after so many seconds, with nothing held till then.

        `number` counts the wakings of the step. Raises the errors of `Publisher.create`.
        """
        due_s = self.bus.now_s() + delay_s
        woken = Handoff(
            v=version_in(parked.run),
            run=parked.run,
            flow=parked.flow,
            digest=parked.digest,
            start_seq=parked.start_seq,
            step=parked.step,
            cause=Woken(seq=seq, number=number, why=why, due_s=due_s),
            copied=parked.copied,
        )
        timer = f"{parked.step}--w{number}"  # not that of the step's join
        await self.bus.timers.at(actor, parked.run, timer, due_s - WOKEN_AHEAD_S, encode(woken))

    # ---- what is recorded --------------------------------------------------------------------------

    async def record(self, plan: Plan, ended: Ended) -> Decisive:
        """Write the decisive record of a step; return the one that is stored, ours or that of whoever was first.

        Raises `PayloadTooLarge`, `NoStream`, `PublishRefused`, `BusUnavailable`, `NewerMessage`.
        """
        (create,) = decide(View(plan), ended)
        assert isinstance(create, Create)
        if isinstance(create.message, Answer):
            return await self.asking.record(self.bus.subjects.of(*create), create.message)
        return await self.writing.record(create)

    async def decided(self, plan: Plan, handoff: Handoff) -> Decisive | None:
        """Return the decisive record of the step of this handoff, by the leader's word, if there is one.

        Raises `NewerMessage`, `BusUnavailable`.
        """
        entry = await self.bus.log.last_sure(self.bus.subjects.of(*decisive_of(plan, handoff)))
        message = known(entry)
        return message if isinstance(message, Decisive) else None

    async def ended(self, flow: str, run: str) -> Result | None:
        """Return the result of a run, by the leader's word, if it has ended. Raises as `decided`."""
        message = known(await self.bus.log.last_sure(self.bus.subjects.result(flow, run)))
        return message if isinstance(message, Result) else None

    async def ended_and_followed(self, flow: str, run: str) -> bool:
        """Say whether a run has ended; what follows from that beyond it is written. Raises as `decided`."""
        result = await self.ended(flow, run)
        if result is None:
            return False
        await self.nesting.follow(result)
        return True

    # ---- what follows ------------------------------------------------------------------------------

    async def derive(self, plan: Plan, record: Decisive, handoff: Handoff | None = None) -> None:
        """Write what follows from a record that is stored: handoffs, replies, timers, the result. Raises as `record`.

        `handoff` is the one whose step it decides: a branch may have to be followed by another.
        When that cannot be written (a list to fan out over cannot be read any more, or is longer than is allowed
        here), it is the run's failure: nothing that waits for it would ever begin.
        """
        try:
            await self.apply(plan, Recorded(record, handoff))
        except CANNOT_GO_ON as error:
            step = record.step if handoff is None else handoff.step
            await self.fail(plan, record.run, step, error, record.start_seq)

    async def fail(self, plan: Plan, run: str, step: str, error: Exception, start_seq: int) -> None:
        """End a run that cannot go on, at a step whose outcome may be recorded already. Raises as `record`."""
        await self.apply(plan, Stopped(run, "failed", clean_text(str(error), REASON_MAX), start_seq, step))

    async def apply(self, plan: Plan, event: Event) -> list[Action]:
        """Do all that follows from an event, in its order: timers, messages, timers that are not needed any more."""
        spread = await self.fan_outs.after(plan, event) if may_fan_out(plan, event) else NO_FAN_OUT
        item = await self.fan_outs.next_item(plan, event) if isinstance(event, Recorded) and event.handoff else None
        actions = decide(View(plan, self.bus.now_s(), *spread, item), event)
        if isinstance(event, Recorded) and isinstance(event.record, Result):
            await self.nesting.follow(event.record)
        if not actions:
            return actions
        for timer in actions:
            if isinstance(timer, SetTimer):
                await self.writing.set_timer(timer)
        creates = await self.writing.sharing([action for action in actions if isinstance(action, Create)])
        await self.writing.create_all(creates)
        for create in creates:
            message = create.message
            if isinstance(message, Result):
                await self.apply(plan, Recorded(await self._as_stored(message)))
            elif isinstance(message, Reply) and isinstance(message.outcome, Failed):
                await self.apply(plan, Recorded(message))
        for done in actions:
            if isinstance(done, CancelTimer):
                await self.bus.timers.cancel(*done)
        return actions

    async def _as_stored(self, result: Result) -> Result:
        """Return the end that a run has, where that matters to others: it may be another's."""
        return (await self.ended(result.flow, result.run) if has_to_be_followed(result) else None) or result
