"""All runs: what happens now, and one to be found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.listing import (
    COUNTED_MAX,
    SHOWN,
    Excluded,
    Query,
    command_of,
    excluded,
    first_after,
    last_at,
    wanted_in,
)
from baton_actors.console.page import LISTS, Given, Moved, Page
from baton_actors.console.words import in_url
from baton_bus.client.runs import exact_run
from baton_bus.index import file as files
from baton_bus.index.counting import counts
from baton_bus.index.errors import IndexUnusable
from baton_bus.index.finding import Reach, Wanted, beside, count, find, reach_of
from baton_bus.index.histogram import Bar, histogram
from baton_bus.index.using import find_runs
from baton_schemas.run.state import RunStatus
from baton_schemas.wire.names import check_token

_HOURS = 24
_SINCE = (
    ("", "any time"),
    ("1h", "last hour"),
    ("1d", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
)
_STACK = ("done", "running", "failed", "expired", "cancelled")
"""From below: what failed stands out on top of what is well."""
_TALL = 40.0
"""Units of the picture of a day."""
_FLOWS_MAX = 200
"""Flows that can be chosen by their names; a further one can be asked for in the address."""


async def runs_page(console: Console, request: Request) -> Page:
    """Return the list: filtered, sorted, and searched by the words that the index has."""
    now = datetime.now(UTC)
    query = Query(request.query_params)
    wanted = wanted_in(query.given, now, SHOWN + 1)
    facts: dict[str, Any] | None = None
    try:
        facts = _by_index(console, query, wanted, now)
    except IndexUnusable as error:  # it is being made anew
        console.index.broken(error)
    if facts is None:  # no index yet: what the log says in some seconds
        rows = (await find_runs(console.bus, wanted, None, now)).rows
        facts = {
            "rows": rows,
            "counts": None,
            "is_bounded": False,
            "flows": [],
            "waiting": None,
            "bars": [],
            "why_none": [],
            "reach": None,
        }
    rows = facts["rows"][:SHOWN]
    older = query.with_(before=rows[-1].summary.run) if len(facts["rows"]) > SHOWN else ""
    return Page(
        template="runs.html",
        title=f"Runs that {query.get('of')} asked for" if query.get("of") else "Runs",
        here="runs",
        facts={
            **facts,
            "rows": rows,
            "html_of": console.rows.html,
            "query": query,
            "older": older,
            "statuses": get_args(RunStatus),
            "chosen": wanted.statuses,
            "wanted": wanted,
            "since": _since(query.get("since")),
        },
        json=[row.summary for row in rows],
        command=command_of(query.given),
        sources=(LISTS,),
        stored_at_s=last_at(rows),
        stored_after=lambda at_s: first_after(rows, at_s),
    )


async def beside_page(console: Console, request: Request) -> Page:
    """Lead to the run before or after one in a list: `list` is what stands after the `?` of the list's address."""
    given = Given(request.query_params)
    now = datetime.now(UTC)
    database = console.index.database
    if database is None:
        raise ValueError(f"no list without an index: {console.index.why}")
    with files.told(console.index.path):
        found = beside(database, wanted_in(dict(parse_qsl(given["list"])), now), given["run"], now)
    paths = {
        "before": f"/runs/{found.before.summary.run}" if found.before else "",
        "after": f"/runs/{found.after.summary.run}" if found.after else "",
    }
    if given["to"] in paths and not getattr(request.state, "json", False):
        raise Moved(paths[given["to"]] or f"/runs/{given['run']}")
    return Page(template="error.html", title="Beside", facts={"said": "", "links": []}, json=paths)


async def chosen_page(console: Console, request: Request) -> Page:
    """Lead to what is to be done with the runs that are marked: it asks first. Raises `ValueError`."""
    given = Given(request.query_params)
    runs = list(dict.fromkeys(filter(None, request.query_params.getlist("run"))))
    does = given["do"]
    if not runs:
        raise ValueError("No run is marked. Mark some in the list of runs, and try again.")
    if does == "compare":
        if len(runs) != 2:
            raise ValueError(f"{len(runs)} runs are marked; two can be compared.")
        before, after = await _in_order(console, runs)
        raise Moved(f"/compare/{in_url(before)}/{in_url(after)}")
    if does in ("cancel", "retry"):
        raise Moved(f"/acts/{does}?{urlencode([('run', run) for run in runs])}")
    if does != "export":
        raise ValueError(f"{does!r} is none of compare, cancel, retry, export")
    return Page(
        template="export.html",
        title="Export runs",
        here="runs",
        facts={"runs": runs},
        json=runs,
        command=f"baton export {runs[0]}",
    )


async def _in_order(console: Console, runs: list[str]) -> list[str]:
    """Return runs as they began; those that are not there, first."""
    heads = {run: await exact_run(console.bus, check_token("run id", run)) for run in runs}
    return sorted(runs, key=lambda run: head.start_seq if (head := heads[run]) is not None else 0)


def _by_index(console: Console, query: Query, wanted: Wanted, now: datetime) -> dict[str, Any] | None:
    """Return what the index says; None while there is none."""
    database = console.index.database
    if database is None:
        return None
    with files.told(console.index.path):
        console.rows.look(database)
        rows = find(database, wanted, now, after=query.get("before"))
        sums = counts(
            database,
            since=wanted.since,
            flow=wanted.flow,
            statuses=wanted.statuses,
            nested=bool(wanted.parent),
        )
        by_status: dict[str, int] = sums.by_status
        has_sums = not (wanted.text or wanted.until or wanted.waiting or wanted.parent)
        if not has_sums:
            each = {name: value for name, value in query.given.items() if name != "status"}
            by_status = count(database, wanted_in(each, now, COUNTED_MAX), now)
        waiting = sum(count(database, Wanted(limit=COUNTED_MAX, waiting=True), now).values())
        why_none: list[Excluded] = excluded(database, query, now) if not rows and query.filters else []
        reach = reach_of(database)
        bars = histogram(database, now, _HOURS, flow=wanted.flow, nested=bool(wanted.parent))
        return {
            "rows": rows,
            "counts": by_status,
            "is_bounded": not has_sums and sum(by_status.values()) >= COUNTED_MAX,
            "flows": list(sums.by_flow)[:_FLOWS_MAX],
            "waiting": waiting,
            "bars": _drawn(bars),
            "why_none": why_none,
            "reach": _told(reach),
        }


def _drawn(bars: list[Bar]) -> list[dict[str, Any]]:
    """Return the bars of a picture: where each of their parts is, in units of it, and what it is of."""
    most = max((bar.runs for bar in bars), default=0)
    found = []
    for number, bar in enumerate(bars):
        top, parts = _TALL, []
        for status in _STACK:
            if runs := bar.by_status.get(status, 0):
                tall = max(_TALL * runs / most, 1.0)
                top = max(top - tall, 0.0)
                parts.append({"status": status, "y": round(top, 2), "tall": round(tall, 2)})
        until = bar.at + timedelta(hours=1)
        words = ", ".join(f"{bar.by_status[status]:,} {status}" for status in _STACK if bar.by_status.get(status))
        found.append({"x": number * 20, "parts": parts, "at": bar.at, "until": until, "runs": bar.runs, "words": words})
    return found


def _told(reach: Reach) -> dict[str, Any] | None:
    """Return how far the index reaches; None when all of the log is in it."""
    read = sum(span.high - span.low + 1 for span in reach.spans)
    if reach.low_seq <= 1 or not reach.high_seq:
        return None
    return {"back_to": reach.back_to, "share": read / reach.high_seq, "runs": reach.runs}


def _since(given: str) -> list[tuple[str, str]]:
    """Return the times from which on runs may be asked for, and the one that is."""
    return [*_SINCE, *([(given, given)] if given and given not in dict(_SINCE) else [])]
