"""All runs: what happens now, and one to be found."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import get_args
from urllib.parse import urlencode

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import LISTS, Given, Page
from baton_bus.index import file as files
from baton_bus.index.finding import Order, Wanted, find
from baton_bus.index.row import IndexRow
from baton_bus.index.using import find_runs
from baton_schemas.run.state import RunStatus

_SHOWN = 50


async def runs_page(console: Console, request: Request) -> Page:
    """Return the list: filtered, sorted, and searched by the words that the index has."""
    now = datetime.now(UTC)
    given = Given(request.query_params)
    wanted = wanted_in(given)
    rows = _found(console, wanted, now)
    if rows is None:  # no index yet: what the log says in some seconds
        rows = (await find_runs(console.bus, wanted, None, now)).rows
    return Page(
        template="runs.html",
        title="Runs",
        here="runs",
        facts={"rows": rows, "given": given, "now": now, "wanted": wanted, "statuses": get_args(RunStatus)},
        json=[row.summary for row in rows],
        command=command_of(given),
        sources=(LISTS,),
        stored_at_s=max((_last(row) for row in rows), default=0.0),
        stored_after=lambda at_s: min(at for row in rows for at in _times(row) if at > at_s),
    )


def _found(console: Console, wanted: Wanted, now: datetime) -> list[IndexRow] | None:
    database = console.index.database
    if database is None:
        return None
    with files.told(console.index.path):
        return find(database, wanted, now)


def wanted_in(given: dict[str, str]) -> Wanted:
    """Return which runs an address asks for. Raises `ValueError`."""
    status, sort = given.get("status", ""), given.get("sort", "started")
    if sort not in get_args(Order):
        raise ValueError(f"the order {sort!r} is none of {', '.join(get_args(Order))}")
    return Wanted(
        limit=_SHOWN,
        flow=given.get("flow", ""),
        statuses=tuple(status.split(",")) if status else (),  # type: ignore[arg-type] # `Wanted` looks at them
        waiting="waiting" in given,
        text=given.get("text", ""),
        parent=given.get("of", ""),
        order=sort,  # type: ignore[arg-type] # looked at above
    )


def command_of(given: dict[str, str]) -> str:
    """Return the command that lists the same."""
    parts = ["baton runs"]
    parts += [
        f"--{name} {shlex.quote(given[name])}" for name in ("flow", "text", "since", "sort", "of") if given.get(name)
    ]
    parts += [f"--status {status}" for status in given.get("status", "").split(",") if status]
    return " ".join(parts)


def with_given(given: dict[str, str], **changed: str) -> str:
    """Return the address with some of it changed; an empty value takes it away."""
    merged = {name: value for name, value in {**given, **changed}.items() if value}
    return "/?" + urlencode(merged) if merged else "/"


def _last(row: IndexRow) -> float:
    return max(_times(row), default=0.0)


def _times(row: IndexRow) -> list[float]:
    """Return when it began and ended, as far as it has."""
    return [at.timestamp() for at in (row.summary.started_at, row.summary.ended_at) if at is not None]
