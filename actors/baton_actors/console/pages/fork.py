"""What going on from a run would do, before it is done: a retry, or a fork from an earlier point; and ending one."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Given, Page
from baton_actors.orders.again import Again, fork_of, retry_of
from baton_actors.orders.origins import Origin, read_origin, seq_of
from baton_actors.orders.present import shown_source, starts
from baton_bus.client.runs import exact_run, find_run
from baton_bus.engine.forking import given_to
from baton_bus.store.players import players
from baton_schemas.run.fork import reused
from baton_schemas.show.why import error_of, why
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.money import OVER_BUDGET, UNPRICED, Budget
from baton_schemas.wire.names import retry_run, sortable_id


async def retry_page(console: Console, request: Request) -> Page:
    """Ask whether to go on with a run from where it broke, and say what that does."""
    old = await read_origin(console.bus, request.path_params["run"])
    given = Given(request.query_params)
    run = old.state.run
    before = await _status_of(console, retry_run(run))
    again = retry_of(old, same=given["same"] == "yes")
    return await _asking(
        console,
        again,
        kind="retry",
        title=f"Retry {run}?",
        command=f"baton retry {run}{' --same' if given['same'] else ''}",
        given=given,
        more={"before": before, "before_run": retry_run(run), "new": ""},
    )


async def fork_page(console: Console, request: Request) -> Page:
    """Ask whether to go on from an earlier point of a run, and say what that does; without a point, ask for one."""
    old = await read_origin(console.bus, request.path_params["run"])
    given, run = Given(request.query_params), old.state.run
    at = int(given["at"]) if given["at"].isascii() and given["at"].isdigit() else 0
    if given["at"] and not at:
        raise ValueError(f"at={given['at']}: expected the number of a message, from 1")
    command = f"baton fork {run}"
    if not given["after"] and not at:
        return Page(
            template="fork_from.html",
            title=f"Fork {run}: from where?",
            here="runs",
            facts={"run": run, "flow": old.plan.flow.name, "steps": _points(old), "messages": len(old.entries)},
            json={"run": run, "after": [step for step, ended in _points(old) if ended]},
            command=f"{command} --after STEP",
        )
    until_seq = seq_of(old, at) if at else 0
    again = await fork_of(console.bus, old, after=given["after"], until_seq=until_seq, same=given["same"] == "yes")
    command += f" --until {at}" if at else f" --after {given['after']}"
    return await _asking(
        console,
        again,
        kind="fork",
        title=f"Fork {run} after {'message ' + str(at) if at else given['after']}?",
        command=command + (" --same" if given["same"] else ""),
        given=given,
        more={"before": None, "before_run": "", "new": sortable_id()},
    )


async def cancel_page(console: Console, request: Request) -> Page:
    """Ask whether to end a run."""
    head = await find_run(console.bus, request.path_params["run"])
    state = (await console.feeds.read(head.run)).state
    return Page(
        template="cancel.html",
        title=f"Cancel {head.run}?" if state.status == "running" else f"{head.run} has ended",
        here="runs",
        facts={"state": state, "run": head.run, "flow": head.flow},
        json={"run": head.run, "status": state.status},
        command=f"baton cancel {head.run}",
    )


async def allow_page(console: Console, request: Request) -> Page:
    """Ask how much a run may spend that is parked for its budget."""
    old = await read_origin(console.bus, request.path_params["run"])
    run, own = old.state.run, budget_of(old)
    return Page(
        template="allow.html",
        title=f"Let {run} spend more?",
        here="attention",
        facts={
            "state": old.state,
            "run": run,
            "flow": old.plan.flow.name,
            "own": _shown(own),
            "later": "later" in request.query_params,
            "waiting": await console.client.engine.budgets.waiting(run),
        },
        json={"run": run, "status": old.state.status, "budget": own},
        command=f"baton retry {run} --budget AMOUNT",
    )


def budget_of(old: Origin) -> Budget | None:
    """Return what a run may spend: as it was allowed when it began, or as its flow says."""
    firsts = [entry.message for entry in old.entries if isinstance(entry.message, Handoff)]
    return next(filter(None, map(given_to, firsts)), None) or old.plan.flow.budget


async def _asking(
    console: Console, again: Again, *, kind: str, title: str, command: str, given: Given, more: dict[str, Any]
) -> Page:
    old, version = again.old, again.version
    plan = version.plan or old.plan
    outlook = again.outlook
    error = error_of(old.state)
    over = error is not None and error.type in (OVER_BUDGET, UNPRICED)
    own = budget_of(old)
    left = [each.actor for each in await players(console.bus, plan.actors()) if each.played in ("nobody", "silent")]
    where = f" {console.options.where}" if console.options.where else ""
    return Page(
        template="again.html",
        title=title,
        here="runs",
        facts={
            "kind": kind,
            "run": old.state.run,
            "flow": plan.flow.name,
            "why": why(old.state) if old.state.status not in ("running", "done") else "",
            "outlook": outlook,
            "digest": plan.digest,
            "other_flow": version.plan is not None,
            "file": shown_source(version.found.source) if version.found and version.plan is not None else "",
            "note": version.note,
            "has_budget": over or own is not None,
            "own": _shown(own),
            "left": left,
            "starts": starts(plan, old.state.source, where),
            "given": given,
            "command": command,
            **more,
        },
        json={
            "run": old.state.run,
            "flow": plan.flow.name,
            "reused": outlook.going.reused if outlook else [],
            "again": outlook.going.again if outlook else {},
            "steps": outlook.steps if outlook else [],
            "saved_usd": outlook.saved_usd if outlook else None,
            "about_usd": outlook.about_usd if outlook else None,
            "unknown": outlook.unknown if outlook else [],
        },
        command=command,
    )


async def _status_of(console: Console, run: str) -> str | None:
    """Return how a run stands; None when there is none."""
    head = await exact_run(console.bus, run)
    return head.status if head is not None else None


def _points(old: Origin) -> list[tuple[str, bool]]:
    """Return the steps of the flow, and whether one can go on after each."""
    ended = {old.plan.name_of(name) for name in reused(old.plan, old.log)}
    return [(step, step in ended) for step in old.plan.order]


def _shown(budget: Budget | None) -> str:
    if budget is None:
        return ""
    parts = [f"${budget.usd:g}" if budget.usd is not None else ""]
    parts.append(f"{budget.tokens:,} tokens" if budget.tokens is not None else "")
    return " and ".join(filter(None, parts))
