"""Budgets of a day as they stand: what they allow, what is spent of them, and what is held for calls under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from baton_bus.engine.budgets import ALL, FLOW, Name
from baton_bus.settings import NO_LIMIT
from baton_bus.store.bus import Bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Handoff, Started
from baton_schemas.wire.money import UNITS, Budget, Unit, cap_of, counted, unpacked


class BudgetUsed(Struct, frozen=True, kw_only=True):
    """A budget of today."""

    flow: str
    """Empty for that of all runs of the namespace."""
    unit: Unit
    cap: float
    """What it allows, in USD or tokens."""
    spent: int
    held: int
    """Both as they are counted: billionths of a USD, or tokens."""

    @property
    def cap_counted(self) -> int:
        """What it allows, as the others are counted."""
        return counted(self.unit, self.cap)

    @property
    def share(self) -> float:
        """Which part of it is spent or held."""
        return (self.spent + self.held) / self.cap_counted if self.cap_counted else 1.0


class _Flow(Struct, frozen=True):
    budget: Budget | None = None


async def budgets_today(bus: Bus, flows: Mapping[str, Budget]) -> list[BudgetUsed]:
    """Return the budgets of this day, that of the namespace as the settings here have it. Raises `BusUnavailable`."""
    day = datetime.fromtimestamp(bus.now_s(), UTC).date().isoformat()
    of_all: dict[Unit, float] = {"usd": bus.settings.budget_usd_per_day, "tokens": bus.settings.budget_tokens_per_day}
    wanted: list[tuple[str, Unit, float, Name]] = [
        ("", unit, cap, (ALL, day, unit)) for unit, cap in of_all.items() if cap != NO_LIMIT
    ]
    wanted += [
        (flow, unit, cap, (FLOW, flow, day, unit))
        for flow, budget in flows.items()
        for unit in UNITS
        if (cap := cap_of(budget, unit, per_day=True)) is not None
    ]
    totals = await asyncio.gather(*(bus.counters.read(name) for *_, name in wanted))
    return [_used(flow, unit, cap, total) for (flow, unit, cap, _), total in zip(wanted, totals, strict=True)]


async def budgets_of(bus: Bus, starts: Iterable[int]) -> dict[str, Budget]:
    """Return the budgets of flows by the first messages of some of their runs: those that have one.

    `starts` are the sequences of these messages. Raises `BusUnavailable`, `NoStream`.
    """
    found: dict[str, Budget] = {}
    for entry in await asyncio.gather(*(bus.log.at(seq) for seq in starts)):
        flow, budget = _budget_in(entry)
        if budget is not None:
            found[flow] = budget
    return found


def _budget_in(entry: Entry | None) -> tuple[str, Budget | None]:
    match entry.message if entry is not None else None:
        case Handoff(flow=flow, cause=Started(begins=begins)) if begins is not None:
            try:
                return flow, msgspec.json.decode(begins.flow_body, type=_Flow).budget
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a stranger's
                return flow, None
        case _:
            return "", None


def _used(flow: str, unit: Unit, cap: float, total: int) -> BudgetUsed:
    spent, held = unpacked(total)
    return BudgetUsed(flow=flow, unit=unit, cap=cap, spent=spent, held=held)
