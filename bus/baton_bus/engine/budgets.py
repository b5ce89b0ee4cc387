"""Budgets: what a call may cost is held before it is made, and what it cost is counted once that is in the log.

A budget is kept by counters of the broker (`store/counters.py`), so it is hard over all processes. Each has two
numbers, what is spent and what is held for calls under way (`wire/money.py`). Whoever adds is told both: when they are
over the cap, what was held is taken back; what is spent never goes back, so if the rest is too little even without what
others hold, there is no use in waiting.

A call counts with its run, with the runs that this one is a part of, with their flows' days and with the namespace's.
The order of writes makes every death mendable:
1. Held for the run itself. This entry names the other counters, and whose call it is.
2. Held for the others. 3. The call, and its record in the log. 4. Settled for the others. 5. Settled for the run.
What a dead worker leaves is therefore told by the run's own counter: an entry of 1 without one of 5. Whoever gets its
handoff again (the broker sees to that) settles it by what the log has of the call, which is named in the record.
Ids follow from the call and the counter, so owner and mender settle once; who comes second reads what is there.
A hold may come after whoever mends has looked: its worker had stood still, or was dead when the broker took its word.
So whoever has done a step again looks once more, and who waits for what others hold looks whether their steps ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from msgspec import Struct

from baton_bus.engine.ends import ended_of
from baton_bus.engine.journal import Journal
from baton_bus.settings import NO_LIMIT
from baton_bus.store.bus import Bus
from baton_bus.store.counters import PATIENCE_S, Entry
from baton_schemas.errors import BadContent
from baton_schemas.flow.budgets import more_of
from baton_schemas.flow.graph import Plan
from baton_schemas.run.child_runs import may_be_child, run_of_child
from baton_schemas.run.state import known
from baton_schemas.show.spending import PaidCall, calls_of, paid_in
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import BUDGET, Waits
from baton_schemas.wire.messages import Above, Handoff, Note, Started, Woken
from baton_schemas.wire.money import UNITS, Amount, Budget, Unit, cap_of, counted, packed, unpacked
from baton_schemas.wire.names import FLOW as ASKED_FLOW
from baton_schemas.wire.names import sortable_id

RUN, FLOW, ALL = "run", "flow", "all"
"""What is counted: the first part of a counter's name."""
MORE_NOW = "more may be spent"
"""Why it comes again."""
_CALL, _RUN, _STEP, _OTHERS = "Baton-Call", "Baton-Run", "Baton-Step", "Baton-Counters"
"""Headers of what is added: the id of a call, whose it is, and the other counters that it counts with."""

_KNOWN_MAX = 4_096
"""Runs of which it is remembered what was read of their budgets."""
_LOOK_S = (0.05, 0.5)
"""How soon it is looked again whether others hold less: a call takes seconds, and what ends here is heard at once."""

Name = tuple[str, ...]


class Account(Struct, frozen=True, kw_only=True):
    """A counter that a call counts with, and what it may come to."""

    name: Name
    unit: Unit
    cap: float | None = None
    """In USD or tokens; None when only others have a cap."""
    above: Above | None = None
    """The run whose budget it is, or that of whose flow."""

    @property
    def of_run(self) -> str:
        """The run whose budget it is; empty for one of a day."""
        return self.name[1] if self.name[0] == RUN else ""


class Hold(Struct, kw_only=True):
    """What is held for one call."""

    id: str
    bound: Amount
    accounts: tuple[Account, ...]
    """Own ones first."""
    about: Mapping[str, str]
    seqs: dict[Name, int]
    """Where it is held: the sequence of each entry, in the order in which they were made."""
    since_s: float
    """By the loop's clock."""
    paid: Amount = Amount()
    """What was recorded of it in the log."""
    in_doubt: bool = False
    """Something of it is being written there, or may be there."""


class Short(Exception):
    """There is not enough left for a call."""

    def __init__(self, account: Account, spent: int, held: int, needed: int) -> None:
        """All as counted; `held` is what others hold at the moment."""
        self.account, self.spent, self.held, self.needed = account, spent, held, needed
        super().__init__(f"{'.'.join(account.name)} is short")

    @property
    def for_good(self) -> bool:
        """Whether it will not do even when nothing is held any more."""
        assert self.account.cap is not None
        return self.spent + self.needed > counted(self.account.unit, self.account.cap)


class Budgets:
    """Keeps the budgets of one namespace, for one process."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._counters = bus, bus.counters
        self._above: dict[str, list[Above]] = {}
        self._raised: dict[str, Budget] = {}
        self._freed = asyncio.Event()
        """Set, and made anew, whenever something is settled here."""
        self._turns: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()
        self._read: dict[Name, tuple[float, list[_Left]]] = {}
        """What was held on the counter that was read last, and when that reading began."""

    # ---- which ---------------------------------------------------------------------------------------

    def accounts(self, run: str, flow: str, own: Above | None, above: Sequence[Above]) -> tuple[Account, ...]:
        """Return what a call of a run counts with; none when nothing has a cap. `own` is its own budget."""
        settings, day = self._bus.settings, self._day()
        of_all: dict[Unit, float] = {"usd": settings.budget_usd_per_day, "tokens": settings.budget_tokens_per_day}
        found: list[Account] = []
        for unit in UNITS:
            others = [
                Account(name=(RUN, each.run, unit), unit=unit, cap=cap, above=each)
                for each in above
                if (cap := self._cap(each.run, each.budget, unit)) is not None
            ]
            for each in [*([own] if own else []), *above]:
                if (cap := cap_of(each.budget, unit, per_day=True)) is not None:
                    account = Account(name=(FLOW, each.flow, day, unit), unit=unit, cap=cap, above=each)
                    if all(account.name != other.name for other in others):
                        others.append(account)
            if of_all[unit] != NO_LIMIT:
                others.append(Account(name=(ALL, day, unit), unit=unit, cap=of_all[unit]))
            cap = self._cap(run, own.budget, unit) if own else None
            if cap is not None or others:
                found += [Account(name=(RUN, run, unit), unit=unit, cap=cap, above=own), *others]
        return tuple(sorted(found, key=lambda account: account.name[:2] != (RUN, run)))

    async def above_child(self, plan: Plan, first_seq: int, run: str) -> list[Above]:
        """Return the runs with budgets that a run is a part of which this one asks for. Raises `BusUnavailable`."""
        own = own_budget(plan, run)
        return [*([own] if own is not None else []), *(await self.above(first_seq, run))]

    async def above(self, first_seq: int, run: str) -> list[Above]:
        """Return the runs with budgets that a run is a part of, as its first handoff says. Raises `BusUnavailable`."""
        if not may_be_child(run):
            return []
        if run not in self._above:
            first = known(await self._bus.log.at_sure(first_seq))
            begins = first.cause.begins if isinstance(first, Handoff) and isinstance(first.cause, Started) else None
            self._above[run] = begins.parent.above if begins is not None and begins.parent is not None else []
            while len(self._above) > _KNOWN_MAX:
                self._above.pop(next(iter(self._above)))
        return self._above[run]

    async def raised(self, account: Account) -> bool:
        """Look whether the run whose budget this is may spend more by now than the account says.

        Raises `BusUnavailable`.
        """
        run = account.of_run
        if not run:
            return False
        word = await self._bus.log.last_sure(self._bus.subjects.more(run))
        found = more_of(word.data) if word is not None else None
        if found is not None:
            self._raised.pop(run, None)
            self._raised[run] = found
            while len(self._raised) > _KNOWN_MAX:
                self._raised.pop(next(iter(self._raised)))
        cap = self._cap(run, account.above.budget if account.above is not None else None, account.unit)
        return cap is None or account.cap is None or cap > account.cap

    async def allow(self, run: str, data: bytes) -> None:
        """Take a word that allows a run to spend more: bring back what waits for that. Doing it twice changes nothing.

        Raises `BadContent` when it says no budget, and the errors of the bus.
        """
        if more_of(data) is None:
            raise BadContent("answer", "no budget: expected usd or tokens, and a number of them")
        for actor, woken in await self._brought_back(run, run):
            await self._bus.create(self._bus.subjects.of(actor, woken), encode(woken))

    async def waiting(self, run: str) -> int:
        """Return how many steps wait for the budget of a run, of that run and of those within it."""
        subjects = [self._bus.subjects.of(*each) for each in await self._brought_back(run, run)]
        return sum(await asyncio.gather(*map(self._is_missing, subjects)))

    async def spent(self, run: str, unit: Unit) -> int:
        """Return what a run has spent of a unit, as it is counted; 0 where it is not. Raises `BusUnavailable`."""
        return unpacked(await self._counters.read((RUN, run, unit)))[0]

    async def _is_missing(self, subject: str) -> bool:
        return await self._bus.log.last_sure(subject) is None

    async def _brought_back(self, run: str, of_run: str) -> list[tuple[str, Handoff]]:
        """Return what brings back the steps of a run, and of those that it asked for, that wait for a run's budget, or
        did: by actor.
        """
        subjects, log = self._bus.subjects, self._bus.log
        found: list[tuple[str, Handoff]] = []
        for entry in await log.matching_sure([subjects.note("*", run, "*", "*")]):
            note = known(entry)
            fact = note.fact if isinstance(note, Note) else None
            if isinstance(note, Note) and isinstance(fact, Waits) and fact.what == BUDGET and fact.of_run == of_run:
                handoff = known(await log.at_sure(fact.seq))
                if isinstance(handoff, Handoff) and (handoff.run, handoff.step) == (run, note.step):
                    found.append((subjects.split(entry.subject).who, _woken(handoff, fact)))
        for entry in await log.matching_sure([subjects.run(run, ASKED_FLOW, "handoff")]):
            child = known(entry)
            if isinstance(child, Handoff) and child.run == run and not child.copied:
                found += await self._brought_back(run_of_child(run, child.step), of_run)
        return found

    # ---- holding and settling ------------------------------------------------------------------------

    async def hold(self, accounts: tuple[Account, ...], bound: Amount, run: str, step: str, held: list[Hold]) -> Hold:
        """Hold what a call may take. It is put into `held` before anything is written, and stays there if that fails.

        Raises `Short`: then nothing is held; and the errors of `Counters.add`: then something may be.
        """
        own = [account for account in accounts if account.name[:2] == (RUN, run)]
        others = [account for account in accounts if account.name[:2] != (RUN, run)]
        now_s = asyncio.get_running_loop().time()
        call = Hold(
            id=sortable_id(),
            bound=bound,
            accounts=(*own, *others),
            about={_RUN: run, _STEP: step},
            seqs={},
            since_s=now_s,
        )
        held.append(call)
        short: Short | None = None
        for some in (own, others):
            holding = [self._hold(call, account) for account in some]
            came = await asyncio.gather(*holding, return_exceptions=True)
            shorts = [each for each in came if isinstance(each, Short)]
            if errors := [each for each in came if isinstance(each, BaseException) and not isinstance(each, Short)]:
                raise errors[0]
            short = next((each for each in shorts if each.for_good), shorts[0] if shorts else None)
            if short is not None:
                break
        if short is not None:
            await self.settle(call)
            held.remove(call)
            raise short
        return call

    async def _hold(self, call: Hold, account: Account) -> Short | None:
        amount = call.bound.of(account.unit)
        spent, held = unpacked(await self._held(call, account))
        if account.cap is not None and spent + held > counted(account.unit, account.cap):
            return Short(account, spent, held - amount, amount)
        return None

    async def _held(self, call: Hold, account: Account) -> int:
        """Have a counter hold what a call may take, once however often this is done; return its total right after."""
        about = {**call.about, _CALL: call.id}
        if account.of_run == call.about[_RUN]:
            others = [each for each in call.accounts if each.unit == account.unit and each.of_run != account.of_run]
            about[_OTHERS] = " ".join(".".join(each.name) for each in others)
        amount = packed(0, call.bound.of(account.unit))
        added = await self._counters.add(account.name, amount, _id(call.id, "h", account.name), about)
        call.seqs[account.name] = added.seq
        return added.total

    async def settle(self, call: Hold) -> None:
        """Count what a call took in place of what was held for it, where anything may be held. Doing it twice changes
        nothing. Raises the errors of `Counters.add`.
        """
        late = asyncio.get_running_loop().time() - call.since_s > PATIENCE_S
        own = [account for account in call.accounts if account.of_run == call.about[_RUN]]
        others = [account for account in call.accounts if account not in own]
        for some in (others, own):
            # Where no answer came, it may be held all the same; for the others, only once it is for the run itself.
            begun = some is own or any(account.name in call.seqs for account in own)
            await asyncio.gather(*(self._settle_at(call, account, late) for account in some if begun))
        self._freed.set()
        self._freed = asyncio.Event()

    async def _settle_at(self, call: Hold, account: Account, late: bool) -> None:
        name, unit = account.name, account.unit
        if name not in call.seqs and not late:
            # No answer came: what is held may still be on its way, and would be held for ever once we had looked. What
            # is added again under its id is there by then, once.
            await self._held(call, account)
        about, seq = {**call.about, _CALL: call.id}, min(call.seqs.values(), default=0)
        await self._settled(name, call.id, call.paid.of(unit), call.bound.of(unit), seq, about, look=late)

    async def _settled(
        self,
        name: Name,
        call: str,
        paid: int,
        bound: int,
        seq: int,
        about: Mapping[str, str],
        *,
        look: bool,
        by_log: Callable[[], Awaitable[int]] | None = None,
        may_come: bool = False,
    ) -> None:
        """Have a counter say what a call took, whatever it says of it now.

        `by_log` reads what it took: whoever does not own it may have done so before its owner recorded and settled it.
        With `may_come`, what is not held for it yet may still be on its way from a worker that is dead.
        """
        if not look:
            added = await self._counters.add(name, packed(paid, -bound), _id(call, "s", name), about)
            if not added.again:
                return
        while True:  # somebody has settled it, or may have
            net, number = 0, 0
            async with aclosing(self._counters.entries(name, seq)) as entries:
                async for entry in entries:
                    if entry.about.get(_CALL) == call:
                        net, number = net + entry.by, number + 1
            if not number and may_come:
                # What is added again under its id is there once, whichever comes first.
                await self._counters.add(name, packed(0, bound), _id(call, "h", name), about)
                continue
            if by_log is not None:
                paid = await by_log()
            if not number or net == packed(paid, 0):
                return
            # The first to settle it does so under one id, whoever it is; what is mended after that is counted.
            what = "s" if number == 1 else f"m{number}"
            added = await self._counters.add(name, packed(paid, 0) - net, _id(call, what, name), about)
            if not added.again:
                return

    async def wait(self, short: Short, until_s: float) -> None:
        """Wait until others hold so much less that a call may find room, until there is none for good, or until then
        by the loop's clock.

        Of those who wait for the same, one looks at a time. Raises `BusUnavailable`.
        """
        account, loop = short.account, asyncio.get_running_loop()
        assert account.cap is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s), self._turns.setdefault(account.name, asyncio.Lock()):
                while loop.time() < until_s:
                    freed = self._freed
                    spent, held = unpacked(await self._counters.read(account.name))
                    left = counted(account.unit, account.cap) - spent - short.needed
                    if left < 0 or held <= left:
                        return
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(random.uniform(*_LOOK_S)):
                            await freed.wait()

    # ---- mending -------------------------------------------------------------------------------------

    async def mend(self, plan: Plan, first_seq: int, run: str, step: str, journal: Journal) -> int:
        """Settle what dead workers left held for a step, by what its journal says; return for how many calls that was.

        Raises `NewerMessage`, and the errors of `Counters.add`.
        """
        if not self.accounts(run, plan.flow.name, own_budget(plan, run), await self.above(first_seq, run)):
            return 0
        names: list[Name] = [(RUN, run, unit) for unit in UNITS]
        held = [name for name in names if unpacked(await self._counters.read(name))[1]]
        left = [each for name in held for each in await self._left(name) if (each.run, each.step) == (run, step)]
        if not left:
            return 0
        notes = await journal.read()
        for each in left:
            await self._give_back(each, paid_in(notes, each.call).of(each.unit), journal)
        return len(left)

    async def free(self, plan: Plan, first_seq: int, run: str, name: Name) -> int:
        """Settle what is held on a counter for calls of steps that have ended; return for how many calls that was.

        Nobody gets the handoff of such a step again. Who held it had stood still until others had done the step, or its
        word was so late, and it died before it settled; if it lives, it puts right what it took. Raises as `mend`.
        """
        left = await self._left(name)
        ended = await ended_of(self._bus, plan, first_seq, run, {(each.run, each.step) for each in left})
        freed = [each for each in left if (each.run, each.step) in ended]
        for each in freed:
            journal = Journal(self._bus, "*", each.run, each.step, "")
            await self._give_back(each, await _paid(journal, each), journal)
        return len(freed)

    async def _give_back(self, left: _Left, paid: int, journal: Journal) -> None:
        """Settle what a dead worker left held on a counter, and on those that this one names; on them first."""
        by_log = functools.partial(_paid, journal, left)
        for name in (*left.others, left.name):
            # It may have died before it was held for the others too, or while that was on its way.
            of_other = name != left.name
            given = (name, left.call, paid, left.held, left.seq, left.about)
            await self._settled(*given, look=of_other, by_log=by_log, may_come=of_other)

    async def _left(self, name: Name) -> list[_Left]:
        """Return the calls for which something is held on a counter.

        All steps of a dead worker come at once: those that wait for a reading which began after they came share it.
        """
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        async with self._turns.setdefault(("left", *name), asyncio.Lock()):
            read_s, found = self._read.get(name, (0.0, []))
            if read_s < came_s:
                read_s, found = loop.time(), await self._held_of(name)
                self._read = {name: (read_s, found)}
        return found

    async def _held_of(self, name: Name) -> list[_Left]:
        first: dict[str, Entry] = {}
        net: dict[str, int] = {}
        async with aclosing(self._counters.entries(name)) as entries:
            async for entry in entries:
                call = entry.about.get(_CALL, "")
                if call:
                    first.setdefault(call, entry)
                    net[call] = net.get(call, 0) + entry.by
        return [_Left.of(first[call], held) for call in first if (held := unpacked(net[call])[1]) > 0]

    async def calls(self, run: str, actors: Iterable[str], start_seq: int) -> list[PaidCall]:
        """Return the calls of a run that are in the log, by the leader's word. Raises `NewerMessage`."""
        entries = await self._bus.log.run_sure(run, tuple(actors), start_seq)
        for entry in entries:
            known(entry)
        return calls_of(entries)

    # ---- their parts ---------------------------------------------------------------------------------

    def _cap(self, run: str, budget: Budget | None, unit: Unit) -> float | None:
        """Return what a run may spend: what was allowed last."""
        raised = cap_of(self._raised.get(run), unit)
        return raised if raised is not None else cap_of(budget, unit)

    def _day(self) -> str:
        return datetime.fromtimestamp(self._bus.now_s(), UTC).date().isoformat()


class _Left(Struct, frozen=True, kw_only=True):
    """What is held for a call, and nobody has settled."""

    name: Name
    unit: Unit
    call: str
    held: int
    seq: int
    others: tuple[Name, ...]
    run: str
    step: str
    about: Mapping[str, str]

    @classmethod
    def of(cls, entry: Entry, held: int) -> _Left:
        """Return what the first entry of a call says."""
        return cls(
            name=entry.name,
            unit=_unit(entry.name),
            call=entry.about[_CALL],
            held=held,
            seq=entry.seq,
            run=entry.about.get(_RUN, ""),
            step=entry.about.get(_STEP, ""),
            others=tuple(tuple(each.split(".")) for each in entry.about.get(_OTHERS, "").split()),
            about={key: value for key, value in entry.about.items() if key != _OTHERS},
        )


async def _paid(journal: Journal, left: _Left) -> int:
    """Return what a call took, by the journal of its step as it is now."""
    return paid_in(await journal.read(), left.call).of(left.unit)


def _woken(handoff: Handoff, waits: Waits) -> Handoff:
    """Return what has a step done again that waits."""
    return Handoff(
        run=handoff.run,
        flow=handoff.flow,
        digest=handoff.digest,
        start_seq=handoff.start_seq or waits.seq,
        step=handoff.step,
        cause=Woken(seq=waits.seq, number=waits.number + 1, why=MORE_NOW),
        copied=handoff.copied,
    )


def own_budget(plan: Plan, run: str) -> Above | None:
    """Return what a run may spend, by the flow that it has; None when that has no budget."""
    budget = plan.flow.budget
    if budget is None:
        return None
    return Above(run=run, flow=plan.flow.name, budget=budget, parks=plan.flow.on_budget == "park")


def _unit(name: Name) -> Unit:
    return "usd" if name[-1] == "usd" else "tokens"


def _id(call: str, what: str, name: Name) -> str:
    return f"{call}.{what}.{'.'.join(name)}"
