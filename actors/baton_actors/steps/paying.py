"""What the calls of one attempt may take of what is to be spent: held before each is made, settled once it is recorded.

Nothing is written, or read, where nothing has a budget.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

import structlog

from baton_actors.errors import HeldByOthers, OverBudget, UnpricedModel
from baton_actors.models.types import Bound
from baton_bus.engine.budgets import ALL, FLOW, Account, Hold, Short, own_budget
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BusError
from baton_schemas.run.refs import name_of
from baton_schemas.show.spending import by, paid_in
from baton_schemas.wire.money import Amount, amount_of, counted, shown
from baton_schemas.wire.outcomes import Usage

from .claim import Claim

_WAIT_S = 10.0
"""How long a call waits for what others hold before its step is given back: those of a dead worker come first then."""
_SHOWN_MAX = 8
"""Agents and models that an error says what was spent on."""
_MORE = 1.15
"""What is said to be enough is more by so much, and round."""
_FOR: ContextVar[Hold | None] = ContextVar("baton_hold", default=None)
"""What is held for the call that is being made: what is recorded meanwhile is of it."""

logger = structlog.get_logger("baton.worker")


class Paying:
    """That of one attempt."""

    def __init__(self, engine: Engine, work: Claim, step: str, journal: Journal) -> None:
        """`step` is with its branch and round."""
        self._engine, self._budgets, self._journal = engine, engine.budgets, journal
        self._plan, self._run, self._start_seq = work.plan, work.handoff.run, work.start_seq
        self._step = step
        self._held: list[Hold] = []
        self._recording: dict[str, Callable[[], Awaitable[object]]] = {}
        """By the id of what is held: how what a call took is written into the log, while it may be there or not."""

    async def hold_for(self, child: str, bound: Bound, is_asked: Callable[[], Awaitable[bool]]) -> str:
        """Hold what a call may take that others are asked to make, and who has its answer settles; return its id.

        It is empty where nothing has a budget, or the child is asked already. Raises as `hold`.
        """
        if bound.rehearsed or not await self._accounts() or await is_asked():
            return ""
        await self.give_back(child)  # who was to ask died before
        hold = await self.hold(bound, child)
        if hold is None:
            return ""
        self._held.remove(hold)
        return hold.id

    async def give_back(self, child: str) -> None:
        """Settle what is held for a call that others are asked to make, by what the journal has of it."""
        await self._budgets.mend(self._plan, self._start_seq, self._run, child, self._journal)

    async def hold(self, bound: Bound, step: str = "") -> Hold | None:
        """Hold what a call may take, for this step unless another is named; None where nothing has a budget.

        Raises `OverBudget`, `HeldByOthers`, `UnpricedModel`, and the errors of `Counters.add`.
        """
        if bound.rehearsed:
            return None
        until_s = asyncio.get_running_loop().time() + _WAIT_S
        while accounts := await self._accounts():
            if bound.cost_usd is None and (asks := _in_usd(accounts)) is not None:
                raise UnpricedModel(bound.model, self._whose(asks), bound.endless)
            amount = Amount(counted("usd", bound.cost_usd or 0.0), bound.input_tokens + bound.output_tokens)
            try:
                return await self._budgets.hold(accounts, amount, self._run, step or self._step, self._held)
            except Short as short:
                if not short.for_good:
                    if asyncio.get_running_loop().time() < until_s:
                        await self._budgets.wait(short, until_s)
                    elif not await self._budgets.free(self._plan, self._start_seq, self._run, short.account.name):
                        raise HeldByOthers(self._whose(short.account)) from short
                elif not await self._budgets.raised(short.account):
                    raise await self._over(short, bound) from short
        return None

    @contextlib.contextmanager
    def making(self, hold: Hold) -> Iterator[None]:
        """Have what is recorded while the context is open be of the call for which this is held."""
        token = _FOR.set(hold)
        try:
            yield
        finally:
            _FOR.reset(token)

    def paid(self, held: str, usage: Usage | None, cost_usd: float | None) -> None:
        """Take it that the log has what a call took, by the id of what is held for it."""
        for hold in self._held:
            if held and hold.id == held:
                hold.paid += amount_of(usage, cost_usd)

    def recording(self, hold: Hold, write: Callable[[], Awaitable[object]]) -> None:
        """Take it that what a call took is about to be written into the log, as `write` does; again does no harm."""
        hold.in_doubt = True
        self._recording[hold.id] = write

    def recorded(self, hold: Hold, usage: Usage, cost_usd: float | None, *, is_ours: bool) -> None:
        """Take it that there is no doubt any more of what the log has of a call."""
        hold.in_doubt = False
        self._recording.pop(hold.id, None)
        if is_ours:
            hold.paid += amount_of(usage, cost_usd)

    @property
    def owes(self) -> bool:
        """Whether something is held, or may be."""
        return bool(self._held)

    async def settle(self, hold: Hold) -> None:
        """Count what a call took. What the bus does not take now is settled at the end of the attempt."""
        try:
            await self._settle(hold)
        except BusError as error:
            logger.error("spending.not_settled", error=str(error))

    async def close(self) -> None:
        """Settle what is not settled yet. Raises the errors of `Counters.add`, `NewerMessage`."""
        for hold in tuple(self._held):
            await self._settle(hold)

    async def _settle(self, hold: Hold) -> None:
        if hold.in_doubt:
            # Whoever was cancelled in the middle may have sent it, and it may come once we have looked: written again,
            # it is there, or what another has written.
            if (write := self._recording.get(hold.id)) is not None:
                await write()
            hold.paid = paid_in(await self._journal.read(), hold.id)
        await self._budgets.settle(hold)
        self._held.remove(hold)
        self._recording.pop(hold.id, None)

    # ---- their parts -------------------------------------------------------------------------------

    async def _accounts(self) -> tuple[Account, ...]:
        above = await self._budgets.above(self._start_seq, self._run)
        return self._budgets.accounts(self._run, self._plan.flow.name, own_budget(self._plan, self._run), above)

    def _whose(self, account: Account) -> str:
        """Return which budget it is, as a part of a sentence."""
        assert account.cap is not None
        cap = shown(account.unit, counted(account.unit, account.cap))
        if account.of_run:
            of = "this run" if account.of_run == self._run else f"run {account.of_run}, which this one is a part of"
            return f"the budget of {of}, {cap}"
        if account.name[0] == FLOW:
            return f"the budget of flow {account.name[1]} for a day, {cap}"
        return f"the budget of the namespace for a day, {cap}"

    async def _over(self, short: Short, bound: Bound) -> OverBudget:
        """Return that there is not enough left for a call, with what was spent on what."""
        account, unit = short.account, short.account.unit
        assert account.cap is not None
        cap = counted(unit, account.cap)
        parks = account.above.parks if account.above is not None else self._plan.flow.on_budget == "park"
        # Who goes on from a run that has failed is another run, with a budget of its own.
        least = (short.spent if parks else 0) + short.needed
        lines = [
            f"{self._whose(account)}, is not enough for a call of {bound.model} that may take up to "
            f"{shown(unit, short.needed)} ({bound.input_tokens:,} tokens read and {bound.output_tokens:,} written): "
            f"{shown(unit, short.spent)} of it is spent, and {shown(unit, max(cap - short.spent, 0))} is left."
        ]
        if account.of_run and short.spent:
            lines.append(await self._spent_on(account, short.spent))
        lines.append(_advice(account, least))
        return OverBudget(
            " ".join(filter(None, lines)),
            parks=parks,
            account=account,
            again_in_s=0.0 if account.of_run else self._till_tomorrow_s(),
        )

    async def _spent_on(self, account: Account, spent: int) -> str:
        """Say on which agents and models the budget of a run was spent; what else is, runs within it took."""
        actors = (*self._plan.actors(), self._plan.flow.name) if account.of_run == self._run else ()
        calls = await self._budgets.calls(account.of_run, actors, 0)
        sums: dict[str, int] = {}
        for call in calls:
            what = f"{self._agent(call.step)} ({call.model or 'no answer'})"
            sums[what] = sums.get(what, 0) + call.amount.of(account.unit)
        rest = spent - sum(sums.values())
        if rest > 0:
            sums["runs within it, and what is not recorded yet"] = rest
        shares = [f"{what} {shown(account.unit, took)}" for what, took in by(sums) if took]
        more = f", and {len(shares) - _SHOWN_MAX} more" if len(shares) > _SHOWN_MAX else ""
        return f"Spent on: {', '.join(shares[:_SHOWN_MAX])}{more}." if shares else ""

    def _agent(self, step: str) -> str:
        try:
            return self._plan.agent_of(step)
        except KeyError:  # of another run's flow
            return name_of(step)

    def _till_tomorrow_s(self) -> float:
        now = datetime.fromtimestamp(self._engine.bus.now_s(), UTC)
        tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        return (tomorrow - now).total_seconds() + 1.0


def held_now() -> Hold | None:
    """Return what is held for the call that is being made."""
    return _FOR.get()


def _in_usd(accounts: tuple[Account, ...]) -> Account | None:
    return next((each for each in accounts if each.unit == "usd" and each.cap is not None), None)


def _advice(account: Account, least: int) -> str:
    """Return what to do; `least` is what would be enough, as it is counted."""
    if account.of_run:
        amount = float(f"{least * _MORE / (10**9 if account.unit == 'usd' else 1):.2g}")
        enough = f"{amount:g}" if account.unit == "usd" else f"{amount:.0f}tokens"
        return f"`baton retry {account.of_run} --budget {enough}` goes on with more."
    where = f"{account.unit}_per_day"
    setting = (
        f"BATON_BUDGET_{where.upper()} of the workers" if account.name[0] == ALL else f"budget.{where} of the flow"
    )
    return f"The next day (UTC) has a budget of its own; {setting} allows more."
