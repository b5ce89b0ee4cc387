"""What is done with one run: go on from it, end it, let it spend more."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.words import in_url
from baton_actors.orders.again import Again, fork_of, go_on_once, retry_of
from baton_actors.orders.again import allow as allow_more
from baton_actors.orders.origins import CannotGoOn, read_origin, seq_of
from baton_bus.client.runs import RunHead, exact_run
from baton_bus.errors import RunPurged, UnknownRun
from baton_schemas.errors import FlowError
from baton_schemas.flow.budgets import read_budget
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import check_token, retry_run

NOTE_MAX = 500
"""Characters of a note: a sentence or two."""


async def retry(console: Console, request: Request, form: FormData) -> str:
    """Go on with a run from where it broke. Its retry has an id that follows from its own: there is one."""
    return path_of(await retried(console, request.path_params["run"], form))


async def retried(console: Console, name: str, form: FormData) -> str:
    """Go on with a run; return the id of the run that does. Raises `CannotGoOn`, and as `Client.fork`."""
    old = await read_origin(console.bus, (await head_of(console, name)).run)
    same, budget = text_in(form, "same") == "yes", budget_in(form)
    _check_same(retry_of(old, same=same), form)
    return await go_on_once(
        console.client, retry_of(old, same=same, budget=budget), retry_run(old.state.run), budget=budget
    )


async def fork(console: Console, request: Request, form: FormData) -> str:
    """Go on from an earlier point of a run. The id of the new one was made with the form: pressed twice it is one."""
    old = await read_origin(console.bus, (await head_of(console, request.path_params["run"])).run)
    new = check_token("run id", text_in(form, "new"))
    same, after, at = text_in(form, "same") == "yes", text_in(form, "after"), text_in(form, "at")
    budget = budget_in(form)
    until_seq = seq_of(old, int(at)) if at.isascii() and at.isdigit() else 0
    _check_same(await fork_of(console.bus, old, after=after, until_seq=until_seq, same=same), form)
    again = await fork_of(console.bus, old, after=after, until_seq=until_seq, same=same, budget=budget)
    return path_of(await go_on_once(console.client, again, new, budget=budget))


async def cancel(console: Console, request: Request, form: FormData) -> str:
    """End a run. It says who did it; one that has ended stays as it is."""
    head = await head_of(console, request.path_params["run"])
    await console.client.run(head.run, head.flow).cancel(reason_of(console, form))
    console.needs.answered()
    return path_of(head.run)


async def allow(console: Console, request: Request, form: FormData) -> str:
    """Let a run that has not ended spend so much in all."""
    old = await read_origin(console.bus, (await head_of(console, request.path_params["run"])).run)
    budget = budget_in(form)
    if budget is None:
        raise FlowError("budget", "nothing", "an amount: `2.5` for USD, or `200000tokens`")
    done = await allow_more(console.client, old, budget)
    console.needs.answered()
    return path_of(old.state.run) + ("" if done.taken or not done.waiting else "/allow?later=yes")


async def head_of(console: Console, run: str) -> RunHead:
    """Return the run of this very id: nothing is done with one that only a part of it names. Raises `UnknownRun`."""
    head = await exact_run(console.bus, check_token("run id", run))
    if head is None:
        raise UnknownRun(run)
    if head.purged:
        raise RunPurged(run)
    return head


def path_of(run: str) -> str:
    """Return the address of a run."""
    return f"/runs/{in_url(run)}"


def text_in(form: FormData, name: str) -> str:
    """Return what a field says; nothing where there is none, or where it is a file."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def budget_in(form: FormData) -> Budget | None:
    """Return what a run may spend, as a field says it. Raises `FlowError`."""
    text = text_in(form, "budget").removeprefix("$")
    return read_budget(text) if text else None


def reason_of(console: Console, form: FormData) -> str:
    """Return why a run is ended, and by whom."""
    note = text_in(form, "note")[:NOTE_MAX]
    return f"cancelled by {console.who}" + (f": {note}" if note else "")


def _check_same(again: Again, form: FormData) -> None:
    """Raise `CannotGoOn` when the flow is another than the page said."""
    shown = text_in(form, "digest")
    if shown and shown != (again.version.plan or again.old.plan).digest:
        raise CannotGoOn(
            again.old.state.run,
            "would go on under another flow than the page said: its file was changed since",
            "Load that page again",
        )
