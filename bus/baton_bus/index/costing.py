"""What was spent, by flow, step, agent, model and day, also on attempts that failed; and the runs that cost most."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Literal, get_args

from msgspec import Struct

from baton_schemas.show.spent_on import USD

from .finding import first_seq, rows_in
from .row import IndexRow

By = Literal["flow", "step", "agent", "model", "day"]
_EPOCH = date(1970, 1, 1)


class Spend(Struct, frozen=True, kw_only=True):
    """What was spent on one thing."""

    on: dict[By, str]
    """What that is, by what was asked for: `{"flow": "report", "day": "2026-11-26"}`."""
    calls: int
    cost_usd: float
    """Of calls that have a price, those of failed attempts included."""
    waste_usd: float
    """The part of it that was in vain."""
    unpriced: int
    """Calls without a price: when not 0, the cost is a lower bound."""
    prompt_tokens: int
    """All that was read: anew, from the cache, or into it."""
    output_tokens: int
    cached_share: float | None
    """Which part of the prompts came from the cache; None when nothing was read."""


def spend(
    database: sqlite3.Connection,
    by: Sequence[By],
    *,
    since: date | None = None,
    until: date | None = None,
    flow: str = "",
    rehearsed: bool = False,
) -> list[Spend]:
    """Return what was spent on each flow, step, agent, model or day, or on what these make together; the most first.

    From one day on and before another, in UTC. Calls that were `rehearsed` are apart, as they cost nothing. Without
    `by` it is one sum. Raises `ValueError` for what there is not, and as SQLite does.
    """
    for name in by:
        if name not in get_args(By):
            raise ValueError(f"{name!r} is none of {', '.join(get_args(By))}")
    conditions = ["rehearsed = :rehearsed"]
    if since is not None:
        conditions.append("day >= :since")
    if until is not None:
        conditions.append("day < :until")
    if flow:
        conditions.append("flow = :flow")
    sums = (
        "sum(calls), sum(cost), sum(waste), sum(unpriced), sum(input_tokens), sum(cache_read_tokens),"
        " sum(cache_write_tokens), sum(output_tokens)"
    )
    names = ", ".join(by)
    question = f"SELECT {names}{', ' if by else ''}{sums} FROM spent WHERE {' AND '.join(conditions)}" + (
        f" GROUP BY {names} ORDER BY sum(cost) DESC, sum(output_tokens) DESC, {names}" if by else ""
    )
    given = {
        "rehearsed": rehearsed,
        "since": (since - _EPOCH).days if since is not None else 0,
        "until": (until - _EPOCH).days if until is not None else 0,
        "flow": flow,
    }
    return [_spend(by, each) for each in database.execute(question, given) if each[len(by)]]


def dearest(database: sqlite3.Connection, limit: int, *, since: datetime | None = None) -> list[IndexRow]:
    """Return the runs that cost most, of those that cost anything and began from a time on. Raises as SQLite does.

    What a run asked other runs to do is in theirs.
    """
    low = first_seq(database, since) if since is not None else 0
    question = "SELECT row FROM runs WHERE cost > 0 AND start_seq >= ? ORDER BY cost DESC, start_seq DESC LIMIT ?"
    return rows_in(database.execute(question, (low, limit)).fetchall())


class Lost(Struct, frozen=True, kw_only=True):
    """What runs cost that came to nothing."""

    status: str
    runs: int
    cost_usd: float


def lost(database: sqlite3.Connection, *, since: datetime | None = None) -> list[Lost]:
    """Return what runs cost that failed, expired or were cancelled, of those that began from a time on, by status.

    Raises as SQLite does.
    """
    low = first_seq(database, since) if since is not None else 0
    question = (
        "SELECT status, count(*), sum(cost) FROM runs WHERE status IN ('failed', 'expired', 'cancelled')"
        " AND start_seq >= ? AND cost > 0 GROUP BY status ORDER BY sum(cost) DESC"
    )
    return [Lost(status=status, runs=runs, cost_usd=cost) for status, runs, cost in database.execute(question, (low,))]


def _spend(by: Sequence[By], each: Sequence[int]) -> Spend:
    calls, cost, waste, unpriced, anew, cached, into, output = each[len(by) :]
    prompt = anew + cached + into
    return Spend(
        on={name: _named(name, value) for name, value in zip(by, each, strict=False)},
        calls=calls,
        cost_usd=cost / USD,
        waste_usd=waste / USD,
        unpriced=unpriced,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_share=cached / prompt if prompt else None,
    )


def _named(name: By, value: object) -> str:
    return (_EPOCH + timedelta(days=value)).isoformat() if name == "day" and isinstance(value, int) else str(value)
