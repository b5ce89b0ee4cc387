"""What would be done with several runs at once, each with how it stands: asked before it is done."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Page
from baton_bus.client.runs import RunHead, exact_run
from baton_bus.index import file as files
from baton_bus.index.finding import Wanted, find
from baton_schemas.wire.names import TOKEN, retry_run

RUNS_MAX = 500
"""Runs at once: more than anybody looks through."""
_LOOKED_AT_MAX = 5_000
"""Runs of a cause that are looked through for those without a retry."""
_AT_ONCE = 20


class Marked(Struct, frozen=True, kw_only=True):
    """A run that is marked."""

    run: str
    flow: str
    status: str
    """`unknown` where there is no such run."""
    after: str = ""
    """The run that goes on from it: its retry."""
    after_status: str = ""
    can: bool = False
    """Whether something would be done with it."""


async def cancel_all_page(console: Console, request: Request) -> Page:
    """Ask whether to end several runs."""
    runs = runs_in(request.query_params.getlist("run"))
    heads = await _heads(console, runs)
    marked = [
        Marked(
            run=run,
            flow=head.flow if head else "",
            status=head.status if head else "unknown",
            can=head is not None and head.status == "running",
        )
        for run, head in zip(runs, heads, strict=True)
    ]
    return _page("cancel", marked, f"baton cancel {' '.join(runs[:1])}{' …' if len(runs) > 1 else ''}")


async def retry_all_page(console: Console, request: Request) -> Page:
    """Ask whether to go on with several runs, or with those that failed for one cause."""
    cause = request.query_params.get("cause", "")
    runs, open_ = _of_cause(console, cause) if cause else (runs_in(request.query_params.getlist("run")), 0)
    heads = await _heads(console, runs)
    after = await _heads(console, [retry_run(head.run) if head else "" for head in heads])
    marked = [
        Marked(
            run=run,
            flow=head.flow if head else "",
            status=head.status if head else "unknown",
            after=then.run if then else "",
            after_status=then.status if then else "",
            can=head is not None and head.status != "running" and then is None,
        )
        for run, head, then in zip(runs, heads, after, strict=True)
    ]
    more = max(open_ - RUNS_MAX, 0)
    return _page("retry", marked, f"baton retry {' '.join(runs[:1])}{' …' if len(runs) > 1 else ''}", more)


def runs_in(given: list[str]) -> list[str]:
    """Return the runs that are named, each once. Raises `ValueError` for none, or too many."""
    found = list(dict.fromkeys(filter(None, given)))
    if not found:
        raise ValueError("No run is marked. Mark some in the list of runs, and try again.")
    if len(found) > RUNS_MAX:
        raise ValueError(f"{len(found):,} runs are marked; expected at most {RUNS_MAX} at once")
    return found


def _page(act: str, marked: list[Marked], command: str, more: int = 0) -> Page:
    count = sum(each.can for each in marked)
    verb = "Retry" if act == "retry" else "Cancel"
    title = f"{verb} {count:,} run{'' if count == 1 else 's'}?" if count else f"Nothing to {act} here"
    return Page(
        template="many.html",
        title=title,
        here="runs",
        facts={"act": act, "marked": marked, "count": count, "more": more},
        json=marked,
        command=command,
    )


def _of_cause(console: Console, cause: str) -> tuple[list[str], int]:
    """Return the runs that failed for a cause, those without a retry first, as many as can be at once; and of how many.

    Raises `ValueError` when there are none.
    """
    database = console.index.database
    if database is None:
        raise ValueError(f"There is no index yet, which knows the causes: {console.index.why}")
    with files.told(console.index.path):
        rows = find(database, Wanted(limit=_LOOKED_AT_MAX, cause=cause), datetime.now(UTC))
    runs = [row.summary.run for row in rows]
    if not runs:
        raise ValueError(
            "No run failed for this cause that somebody started. What a step of another run asked for, a retry of "
            "that run does again."
        )
    retried = console.needs.retries(runs)
    return sorted(runs, key=lambda run: run in retried)[:RUNS_MAX], sum(run not in retried for run in runs)


async def _heads(console: Console, runs: list[str]) -> list[RunHead | None]:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(run: str) -> RunHead | None:
        async with turn:
            return await exact_run(console.bus, run) if TOKEN.match(run) else None

    return await asyncio.gather(*map(one, runs))
