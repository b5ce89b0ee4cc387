"""The engine: does what the lifecycle decided. Clients, workers and services use it: each effect is written once.

Everything is written create-only: whoever does it second changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from msgspec import Raw
from msgspec.structs import replace

from baton_bus.errors import BlobMissing, NotAllowed, PayloadTooLarge, RunExists, TooManyBranches, UnknownRun
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage, InputError
from baton_schemas.flow.conditions import unmet
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, check_input, items_of
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.run.carry import with_outcome
from baton_schemas.run.child_runs import has_to_be_followed
from baton_schemas.run.fork import forked_start, going_on, origin_of
from baton_schemas.run.leaving_out import is_left_out
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
    Submitted,
    View,
    decide,
    decisive_of,
    next_branch,
    spreads,
    spreads_again,
)
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.recalled import Recalled
from baton_schemas.run.refs import base_of, whole
from baton_schemas.run.rounds import after, follows, next_state
from baton_schemas.run.state import Entry, known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import key_of
from baton_schemas.wire.messages import (
    Answer,
    Decisive,
    Handoff,
    Note,
    Origin,
    OutcomeRecord,
    Parent,
    Reply,
    Result,
    Started,
    Woken,
)
from baton_schemas.wire.names import STOPPED
from baton_schemas.wire.outcomes import Done, Failed, ResultStatus, State, Value
from baton_schemas.wire.values import clean_text

from .asking import Asking
from .forking import Forking, with_source_of, without_source
from .nesting import Nesting
from .saying import Saying
from .spread import SpreadLists
from .values import Spread, Values

_AT_ONCE = 500
"""Messages written at the same time after a fan-out: enough to hide round trips, bounded for the client's buffer."""
CANNOT_GO_ON = (BlobMissing, NotAList, TooManyBranches, PayloadTooLarge)
"""What no second try makes good when it is met in writing what follows: the run ends with it."""
WOKEN_AHEAD_S = 0.3
"""What was parked comes so early, and is then held until it is due: nats-server looks at its timers every 250 ms at
most (`MsgScheduling.resetTimer`, 2.12 to 2.15), so that they were up to 270 ms late in a trial of 60."""
STOPPED_AFTER_S = 5.0
"""After so long a clerk does what follows from a client's ending a run, unless the client has done it."""
REASON_MAX = 2_000
"""Characters of a reason that are kept: it stands in a result, which is read often."""


_NO_FAN_OUT = Spread({}, {})


class Engine:
    """Applies the lifecycle on one bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus, self.values = bus, Values(bus)
        self.forking = Forking(bus, self.values)
        self.asking = Asking(bus, self.values)
        self.nesting = Nesting(self)
        self.saying = Saying(bus, self.values, self.asking)
        self.spread = SpreadLists(bus, self.values)

    # ---- runs --------------------------------------------------------------------------------------

    async def start(
        self,
        plan: Plan,
        given: Mapping[str, Raw],
        run: str,
        *,
        deadline_s: float | None = None,
        parent: Parent | None = None,
    ) -> None:
        """Start a run; it is durable once this returns. Starting it again with the same input changes nothing.

        `parent` is the step of another run that asks for it (see `Nesting.begin`).

        Raises `InputError`, `RunExists` (the id is that of another run) and the errors of `Publisher.create`.
        """
        if deadline_s is not None and not 0 < deadline_s <= DEADLINE_MAX_S:
            reason = f"{deadline_s:g} s; expected more than 0 and at most {DEADLINE_MAX_S:.0f} (a year)"
            raise InputError(plan.flow.name, "deadline_s", reason)
        await self._start(await self._first_of(plan, given, run, deadline_s or plan.flow.deadline_s or 0.0, parent))

    async def fork(
        self, run: str, new_run: str, *, plan: Plan | None = None, until_seq: int = 0, failed: bool = False
    ) -> None:
        """Start a run that goes on from another, with the steps that it had finished.

        With a `plan` it does so under that version of the flow, and what that changes is done again, with all that
        comes after it (see `baton_schemas.run.keeping`). Steps whose failure ended the other run are done again; with
        `failed`, those whose failure did not are too. With `until_seq` only what was recorded up to that stream
        sequence counts as finished. Raises `UnknownRun`, `InputError` when the changed flow does not take the input of
        the other run, and as `start`.
        """
        entry, first = await self.first(run)
        if plan is None or plan.digest == first.digest:
            start = forked_start(first, new_run, until_seq, failed=failed)
            await self._start(Create(self.bus.subjects.split(entry.subject).who, start))
            return
        past = past_of([Logged(entry.seq, "", first)])
        deadline_s = self.forking.deadline_s(plan, past.plan if past else None, first)
        actor, begins = await self._first_of(plan, await self.forking.input(plan, first), new_run, deadline_s)
        assert isinstance(begins, Handoff)
        origin = Origin(run=first.run, until_seq=until_seq, failed=failed)
        await self._start(Create(actor, with_source_of(first, going_on(begins, origin))))

    async def stop(self, plan_of: Handoff, start_seq: int, status: ResultStatus, reason: str) -> Result:
        """End a run beside its steps; return the result that it then has, this one or an earlier one.

        `plan_of` is the first handoff of the run, which is at `start_seq`. What a step that asked for the run, and the
        runs that it asked for, are to hear of it is written too. Raises the errors of `Publisher.create`.
        """
        bus = self.bus
        result = Result(
            flow=plan_of.flow,
            digest=plan_of.digest,
            run=plan_of.run,
            status=status,
            reason=clean_text(reason, REASON_MAX),
            start_seq=start_seq,
            children=self.nesting.may_leave_children(plan_of),
        )
        has_relatives = has_to_be_followed(result)
        # 1. Whatever becomes of us, a clerk does all of it. 2. Do it. 3. No clerk has to.
        if has_relatives:
            due_s = bus.now_s() + STOPPED_AFTER_S
            await bus.timers.at(result.flow, result.run, STOPPED, due_s, encode(result))
        stored = await self._record(Create("", result), bus.settings.patience_s)
        assert isinstance(stored, Result)
        if has_relatives:
            with contextlib.suppress(NotAllowed):  # to people a clerk's work may be forbidden
                await self.nesting.follow(stored)
                await bus.timers.cancel(result.flow, result.run, STOPPED)
        return stored

    async def first(self, run: str) -> tuple[Entry, Handoff]:
        """Return the first handoff of a run, by the leader's word. Raises `UnknownRun`, `BusUnavailable`."""
        pattern = self.bus.subjects.start(run)
        entry = await self.bus.log.last_sure(pattern)
        if entry is not None and not begins_run(entry) and isinstance(entry.message, Handoff):
            # Another of its first steps, which says where the first handoff is.
            entry = await self.bus.log.at_sure(entry.message.start_seq)
        if entry is not None and not (begins_run(entry) and entry.message.run == run):  # type: ignore[union-attr]
            found = await self.bus.log.matching_sure([pattern])
            entry = next((each for each in found if begins_run(each)), None)
            if entry is None:
                for each in found:
                    known(each)
        if entry is None or not isinstance(entry.message, Handoff):
            raise UnknownRun(run)
        return entry, entry.message

    # ---- steps -------------------------------------------------------------------------------------

    async def begin(self, plan: Plan, first: Handoff, seq: int, stored_at_s: float) -> list[Action]:
        """Write what the first handoff of a run stands for; return it. A run that goes on from another is copied.

        Raises those of `CANNOT_GO_ON` when a list of the input cannot be read, and the errors of `Publisher.create`.
        """
        origin = origin_of(first)
        if origin is not None:
            await self._copy(plan, first, origin, seq)
        return await self.apply(plan, Begun(first, seq, stored_at_s))

    async def park(self, actor: str, parked: Handoff, seq: int, number: int, delay_s: float, why: str) -> None:
        """Have a handoff, which is in the log at `seq`, come again after so many seconds, with nothing held till then.

        `number` counts the wakings of the step. Raises the errors of `Publisher.create`.
        """
        due_s = self.bus.now_s() + delay_s
        woken = Handoff(
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

    async def record(self, plan: Plan, ended: Ended) -> Decisive:
        """Write the decisive record of a step; return the one that is stored, ours or that of whoever was first.

        Raises `PayloadTooLarge`, `NoStream`, `PublishRefused`, `BusUnavailable`, `NewerMessage`.
        """
        (create,) = decide(View(plan), ended)
        assert isinstance(create, Create)
        if isinstance(create.message, Answer):
            return await self.asking.record(self.bus.subjects.of(*create), create.message)
        return await self._record(create)

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
        spread = await self._spread(plan, event) if _may_spread(plan, event) else _NO_FAN_OUT
        item = await self._next_item(plan, event) if isinstance(event, Recorded) and event.handoff else None
        actions = decide(View(plan, self.bus.now_s(), *spread, item), event)
        if isinstance(event, Recorded) and isinstance(event.record, Result):
            await self.nesting.follow(event.record)
        if not actions:
            return actions
        for timer in actions:
            if isinstance(timer, SetTimer):
                await self._set(timer)
        creates = await self._sharing([action for action in actions if isinstance(action, Create)])
        for start in range(0, len(creates), _AT_ONCE):
            await self._create_all(creates[start : start + _AT_ONCE])
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

    # ---- their parts -------------------------------------------------------------------------------

    async def _spread(self, plan: Plan, event: Event) -> Spread:
        """Return what the fan-outs that follow from an event are handed."""
        match event:
            case Begun(first=first):
                return await self.values.spread(plan, spreads(plan, None), first.state)
            case Recorded(record=OutcomeRecord() as record):
                refused = () if isinstance(record.outcome, Done) else (NotAList, TooManyBranches)
                with contextlib.suppress(*refused):  # the step that failed could not refuse it
                    return await self.spread_after(plan, record)
        return _NO_FAN_OUT

    async def spread_after(self, plan: Plan, record: OutcomeRecord) -> Spread:
        """Return what the fan-outs that follow from a record are handed, and whether its loop has another round.

        Raises as `Values.spread`.
        """
        base = base_of(record)
        to_spread, loops = spreads(plan, base), base in plan.loops
        if is_left_out(record.outcome) or not (to_spread or loops):  # what comes after it is left out too
            return _NO_FAN_OUT
        state = record.state if record.branch else with_outcome(record.state, base, record.outcome)
        decides = loops and isinstance(record.outcome, Done)
        again = decides and await self.values.holds_again(plan, base, state)
        match follows(plan, record, again):
            case "again":
                state, to_spread = next_state(plan, base, state), spreads_again(plan, base)
            case "fail":
                to_spread = {}
            case _:
                pass
        return (await self.values.spread(plan, to_spread, state))._replace(again=again)

    async def _next_item(self, plan: Plan, event: Recorded) -> Value | None:
        """Return the item of the branch that follows the one which ended, unless the joins after them have closed.

        Raises `NotAList`, `BlobMissing`, `NewerMessage`, `BusUnavailable`.
        """
        ended = event.handoff
        assert ended is not None
        index = next_branch(plan, ended)
        if index is None or isinstance(event.record, Result) or await self._are_closed(plan, ended):
            return None
        items = await self.spread.items(plan, ended.run, event.record.start_seq, whole(ended.step))
        if index >= len(items):
            raise NotAList(plan.step(ended.step).each, f"{len(items)} items in the log, and branch {index}")
        return await self.values.stored(bytes(items[index]))

    async def _are_closed(self, plan: Plan, branch: Handoff) -> bool:
        """Say whether all that waits for a branch has begun without it. Looked up only where that may be."""
        joins = [after(plan, whole(branch.step), join) for join in plan.successors[base_of(branch)]]
        if not all(plan.closes_early(join) for join in joins):
            return False
        subjects = [self.bus.subjects.closing(plan.actor(join), branch.run, join) for join in joins]
        return None not in await asyncio.gather(*map(self.bus.log.last_sure, subjects))

    async def _first_items(self, plan: Plan, checked: Mapping[str, Raw]) -> Spread:
        """Return what first steps that fan out are handed: the first handoff carries one item of it."""
        lists: dict[str, Sequence[Value]] = {}
        left_out: dict[str, str] = {}
        for step, each in spreads(plan, None).items():
            if why := unmet(plan.step(step).when, checked):
                left_out[step] = why
                continue
            try:
                items = items_of(each, checked[each.split(".")[0]])
            except NotAList as error:
                raise InputError(plan.flow.name, each, str(error)) from error
            limit = self.bus.settings.branches_max
            if len(items) > limit:
                raise InputError(plan.flow.name, each, f"{len(items)} items; at most {limit} (BATON_BRANCHES_MAX)")
            lists[step] = [*[await self.values.stored(bytes(item)) for item in items[:1]], *items[1:]]
        return Spread(lists, left_out)

    async def _sharing(self, creates: list[Create]) -> list[Create]:
        """Put what the branches of a fan-out share beside the log, once, when it is much in all."""
        shared: dict[int, int] = {}
        for create in creates:
            if isinstance(message := create.message, Handoff) and (len(creates) > 1 or message.branch is not None):
                # The branches whose turn comes later get theirs from those before them.
                count = message.branch.count if message.branch is not None else 0
                shared[id(message.state)] = max(shared.get(id(message.state), 0) + 1, count)
        if not shared:
            return creates
        fitted: dict[int, State] = {}
        result: list[Create] = []
        for create in creates:
            message = create.message
            if not isinstance(message, Handoff) or shared[id(message.state)] < 2:
                result.append(create)
                continue
            key = id(message.state)
            if key not in fitted:
                fitted[key] = await self.values.fitted(message.state, shared[key])
            state = fitted[key]
            result.append(create if state is message.state else Create(create.actor, replace(message, state=state)))
        return result

    async def _set(self, timer: SetTimer) -> None:
        message = timer.message
        if isinstance(message, Reply):
            message = replace(message, state=await self.values.fitted(message.state))
        await self.bus.timers.at(timer.who, timer.run, timer.step, timer.due_s, encode(message))

    async def _as_stored(self, result: Result) -> Result:
        """Return the end that a run has, where that matters to others: it may be another's."""
        return (await self.ended(result.flow, result.run) if has_to_be_followed(result) else None) or result

    async def _create_all(self, creates: list[Create]) -> None:
        if len(creates) == 1:
            await self._create(creates[0])
        else:
            await asyncio.gather(*map(self._create, creates))

    async def _create(self, create: Create) -> bool:
        """Write a message; False when its subject is taken. Waits while the log is full."""
        return await self.bus.create(*await self._fitted(create)) is not None

    async def _fitted(self, create: Create) -> tuple[str, bytes]:
        subject, message = self.bus.subjects.of(*create), create.message
        body = encode(message)
        if len(body) > self.bus.inline_limit_bytes and not isinstance(message, Result | Answer):
            body = encode(replace(message, state=await self.values.fitted(message.state)))
        return subject, body

    async def _record(self, create: Create, patience_s: float | None = None) -> Decisive:
        subject, body = await self._fitted(create)
        if patience_s is None:
            stored = await self.bus.create(subject, body)
        else:
            stored = await self.bus.publisher.create(subject, body, patience_s=patience_s)
        if stored is not None:
            return create.message
        message = known(await self.bus.log.taken(subject))
        if not isinstance(message, Decisive):
            raise BadMessage("a decisive record cannot be read", subject)
        return message

    async def _first_of(
        self, plan: Plan, given: Mapping[str, Raw], run: str, deadline_s: float, parent: Parent | None = None
    ) -> Create:
        """Return the handoff that starts a run with this input, checked. Raises as `start`."""
        checked = check_input(plan.flow, given)
        spread = await self._first_items(plan, checked)
        state = await self.values.fitted(State(input=checked))
        (first,) = decide(View(plan, 0.0, *spread), Submitted(run, state, deadline_s, parent))
        assert isinstance(first, Create)
        return first

    async def _start(self, first: Create) -> None:
        """Write the handoff that starts a run: whatever its first step or actor, a run id starts once."""
        pattern = self.bus.subjects.start(first.message.run)
        subject, body = self.bus.subjects.of(*first), encode(first.message)
        patience_s = self.bus.settings.patience_s
        if await self.bus.publisher.create(subject, body, patience_s=patience_s, once_in=pattern) is None:
            entry, there = await self.first(first.message.run)
            ours = first.message
            assert isinstance(ours, Handoff)
            if entry.data != body and encode(without_source(there)) != encode(without_source(ours)):
                raise RunExists(ours.run)

    async def _copy(self, plan: Plan, first: Handoff, origin: Origin, start_seq: int) -> None:
        """Copy the finished steps of the run that this one goes on from, what goes to the last steps first."""
        creates, recalled = await self.forking.copies(plan, first, origin, start_seq)
        for start in range(0, len(recalled), _AT_ONCE):
            await asyncio.gather(*map(self._recall, recalled[start : start + _AT_ONCE]))
        records = [create for create in creates if isinstance(create.message, OutcomeRecord)]
        for some in (records, creates[len(records) :]):  # records first, and all of them: see `in_order`
            for start in range(0, len(some), _AT_ONCE):
                await asyncio.gather(*map(self._create, some[start : start + _AT_ONCE]))
        for create in creates:
            if isinstance(create.message, Reply) and isinstance(create.message.outcome, Failed):
                await self.derive(plan, create.message)

    async def _recall(self, recalled: Recalled) -> None:
        actor, message = recalled
        if isinstance(message, Note):
            subject = self.bus.subjects.note(actor, message.run, message.step, key_of(message.fact))
        else:
            subject = self.bus.subjects.of(actor, message)
        await self.bus.create(subject, encode(message))


def _may_spread(plan: Plan, event: Event) -> bool:
    """Say whether lists may be fanned out over after an event: they are only read then."""
    match event:
        case Begun():
            return plan.starts_many
        case Recorded(record=record):
            return isinstance(record, OutcomeRecord)
        case _:
            return False


def begins_run(entry: Entry) -> bool:
    """Say whether an entry is the handoff that a run starts with, and not another of its first steps."""
    message = entry.message
    return isinstance(message, Handoff) and isinstance(message.cause, Started) and message.cause.begins is not None
