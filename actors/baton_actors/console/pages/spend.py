"""Where the money goes: by flow, step, agent, model or day, what of it was in vain, and what budgets leave."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import LISTS, Given, Page
from baton_bus.client.budgets import BudgetUsed, budgets_of, budgets_today
from baton_bus.errors import BusError
from baton_bus.index import file as files
from baton_bus.index.costing import By, Lost, Spend, dearest, lost, spend
from baton_bus.index.counting import counts
from baton_bus.index.finding import Wanted, find
from baton_bus.index.row import IndexRow
from baton_schemas.wire.money import shown

BYS: dict[str, tuple[By, ...]] = {
    "flow": ("flow",),
    "step": ("flow", "step"),
    "agent": ("flow", "agent"),
    "model": ("model",),
    "day": ("day",),
}
_UNKNOWN = "unknown"
"""A flow or a model that the log does not name: as `baton spend` calls it."""
_DAYS = (1, 7, 30)
_DAYS_MAX = 3_650
_ROWS_MAX = 500
_DEAREST = 10
_BUDGETS_MAX = 50
"""Flows of the last days whose budgets are looked up: each is a question."""
_EVERY_S = 5.0


class Spent(Struct, frozen=True, kw_only=True):
    """A row: what was spent on one thing, calls that were rehearsed apart."""

    key: str
    calls: int
    """All of them, as `baton spend` counts."""
    rehearsed: int
    cost_usd: float
    waste_usd: float
    unpriced: int
    prompt_tokens: int
    output_tokens: int
    """Both of all of them; the following of those that were paid for."""
    paid_read: int
    paid_written: int
    cached_share: float | None
    path: str = ""
    """The list of runs behind it; empty where there is none."""


async def spend_page(console: Console, request: Request) -> Page:
    """Return what was spent in so many days, today included, in UTC."""
    given = Given(request.query_params)
    by, days = given["by"] or "flow", _days_in(given["days"])
    if by not in BYS:
        raise ValueError(f"{by!r} is none of {', '.join(BYS)}")
    today = datetime.fromtimestamp(console.bus.now_s(), UTC).date()
    since = today - timedelta(days=days - 1)
    facts = _by_index(console, by, today, since)
    rows: list[Spent] = facts["rows"] if facts is not None else []
    return Page(
        template="spend.html",
        title="Spend",
        here="spend",
        facts={
            "by": by,
            "days": days,
            "bys": list(BYS),
            "spans": _DAYS,
            "found": facts,
            "most": max((row.cost_usd for row in rows), default=0.0),
            "budgets": await _budgets(console) if facts is not None else [],
            "shown": shown,
            "why": console.index.why,
        },
        json={"by": by, "since": since, "sums": [{by: row.key, **_facts(row)} for row in rows]},
        command=f"baton spend --by {by if by != 'step' else 'agent'} --since {since}",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


def _days_in(given: str) -> int:
    days = int(given) if given.isascii() and given.isdigit() else 7 if not given else 0
    if not 1 <= days <= _DAYS_MAX:
        raise ValueError(f"{given!r} is no number of days from 1 to {_DAYS_MAX:,}")
    return days


def _by_index(console: Console, by: str, today: date, since: date) -> dict[str, Any] | None:
    database = console.index.database
    if database is None:
        return None
    began = datetime.combine(since, time(), UTC)
    with files.told(console.index.path):
        rows = _rows(spend(database, BYS[by], since=since), spend(database, BYS[by], since=since, rehearsed=True), by)
        sums = []
        for days in _DAYS:
            first = today - timedelta(days=days - 1)
            sums.append({"days": days, "total": next(iter(spend(database, (), since=first)), None)})
        costly: list[IndexRow] = dearest(database, _DEAREST, since=began)
        in_vain: list[Lost] = lost(database, since=began)
        daily = spend(database, ("day",), since=since)
    return {
        "rows": rows[:_ROWS_MAX],
        "left_out": max(len(rows) - _ROWS_MAX, 0),
        "sums": sums,
        "dearest": costly,
        "lost": in_vain,
        "daily": _daily(daily, since, today),
    }


def _rows(paid: Sequence[Spend], rehearsed: Sequence[Spend], by: str) -> list[Spent]:
    """Return a row for each thing that cost, or that was rehearsed."""
    ours = {_key(each, by): each for each in paid}
    others = {_key(each, by): each for each in rehearsed}
    found = [_row(key, ours.get(key), others.get(key), by) for key in {**ours, **others}]
    return sorted(found, key=lambda row: row.key if by == "day" else (-row.cost_usd, row.key))


def _row(key: str, paid: Spend | None, rehearsed: Spend | None, by: str) -> Spent:
    both = [each for each in (paid, rehearsed) if each is not None]
    return Spent(
        key=key,
        calls=sum(each.calls for each in both),
        rehearsed=rehearsed.calls if rehearsed is not None else 0,
        cost_usd=sum(each.cost_usd for each in both),
        waste_usd=sum(each.waste_usd for each in both),
        unpriced=sum(each.unpriced for each in both),
        prompt_tokens=sum(each.prompt_tokens for each in both),
        output_tokens=sum(each.output_tokens for each in both),
        paid_read=paid.prompt_tokens if paid is not None else 0,
        paid_written=paid.output_tokens if paid is not None else 0,
        cached_share=paid.cached_share if paid is not None else None,
        path=_path(key, (paid or both[0]).on, by),
    )


def _key(each: Spend, by: str) -> str:
    return ": ".join(each.on[name] or _UNKNOWN for name in BYS[by])


def _path(key: str, on: dict[By, str], by: str) -> str:
    if by == "day":
        after = date.fromisoformat(key) + timedelta(days=1)
        return f"/?since={key}&until={after}&sort=cost"
    return f"/?flow={on['flow']}&sort=cost" if on.get("flow") else ""


def _daily(found: Sequence[Spend], since: date, today: date) -> list[dict[str, Any]]:
    """Return a bar for each day: where it is in the picture, and what it says."""
    by_day = {each.on["day"]: each for each in found}
    days = [since + timedelta(days=number) for number in range((today - since).days + 1)]
    most = max((each.cost_usd for each in found), default=0.0)
    bars = []
    for number, day in enumerate(days):
        each = by_day.get(day.isoformat())
        cost, waste = (each.cost_usd, each.waste_usd) if each is not None else (0.0, 0.0)
        bars.append(
            {
                "x": number * 20,
                "tall": round(40 * cost / most, 2) if most else 0,
                "waste": round(40 * waste / most, 2) if most else 0,
                "day": day.isoformat(),
                "cost_usd": cost,
            }
        )
    return bars


async def _budgets(console: Console) -> list[BudgetUsed]:
    """Return the budgets of today, the fullest first: of the namespace, and of flows that ran lately."""
    database = console.index.database
    now = datetime.now(UTC)
    if database is None:
        return []
    with files.told(console.index.path):
        flows = list(counts(database, since=now - timedelta(days=2)).by_flow)[:_BUDGETS_MAX]
        rows = [row for flow in flows for row in find(database, Wanted(limit=1, flow=flow), now)]
    with contextlib.suppress(BusError):
        known = await budgets_of(console.bus, [row.start_seq for row in rows])
        found = await budgets_today(console.bus, known)
        return sorted(found, key=lambda each: -each.share)
    return []


def _facts(row: Spent) -> dict[str, Any]:
    return {
        "calls": row.calls,
        "cost_usd": row.cost_usd,
        "waste_usd": row.waste_usd,
        "unpriced": row.unpriced,
        "rehearsed": row.rehearsed,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
    }
