"""A task to be sent: a form made of the inputs that a flow takes."""

from __future__ import annotations

import shlex

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import Filled, form_fields, prefilled
from baton_actors.console.known_flows import KnownFlow
from baton_actors.console.page import Page
from baton_schemas.wire.names import sortable_id


async def send_page(console: Console, request: Request) -> Page:
    """Show the form of a flow; `?topic=…` fills in what it says."""
    known = await console.flows.known(request.path_params["flow"])
    filled = prefilled(known.plan.flow.input, dict(request.query_params))
    return send_page_of(console, known, filled, run=sortable_id(), budget=request.query_params.get("budget", ""))


def send_page_of(
    console: Console, known: KnownFlow, filled: Filled, *, run: str, budget: str = "", said: str = "", before: str = ""
) -> Page:
    """Return the form with what was filled in and what is amiss; `before` is a run that it began already."""
    flow = known.plan.flow
    fields = form_fields(flow.input)
    pairs = " ".join(
        f"{name}={shlex.quote(filled.text(name)) if filled.text(name) else '…'}"
        for name, field in flow.input.items()
        if filled.text(name) or field.required
    )
    return Page(
        template="send.html",
        title=f"Send a task to {known.name}",
        here="flows",
        facts={
            "known": known,
            "flow": known.name,
            "fields": fields,
            "filled": filled,
            "run": run,
            "budget": budget,
            "said": said,
            "before": before,
            "has_budget": flow.budget is not None or bool(budget),
            "has_files": any(each.widget in ("file", "files") for each in fields),
        },
        json={"flow": known.name, "input": fields, "mistakes": filled.mistakes},
        command=f"baton submit {known.source or known.name} {pairs}".rstrip(),
        status=409 if before else 422 if filled.mistakes or said else 200,
    )
