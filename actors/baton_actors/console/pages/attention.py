"""What people have to see to: questions, failures by cause, rejected messages, and what the doctor says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.needs import Health, stamp
from baton_actors.console.page import LISTS, Given, Page
from baton_bus.client.people import waiting_facts
from baton_bus.errors import BusError
from baton_schemas.errors import SchemaError

_EVERY_S = 2.0
_PATIENCE_S = 1.5
"""For what the doctor says: it asks much, and what is known already is shown meanwhile."""
_ANSWERS_SHOWN = 4
"""Of a choice: with more it is answered on a page of its own."""


async def attention_page(console: Console, request: Request) -> Page:
    """Return what waits for people; `?cause=KEY` opens one, `?seen=yes` shows what was seen or gone on from, too."""
    given = Given(request.query_params)
    questions, rejected, health = await asyncio.gather(
        console.needs.questions(), console.needs.rejected(), _soon(console.needs)
    )
    causes = console.needs.causes(seen=bool(given["seen"] or given["cause"]))
    if given["cause"]:
        causes = [each for each in causes or () if each.cause.key == given["cause"]]
    nothing = not (questions or causes or rejected or (health and (health.findings or health.parked)))
    return Page(
        template="attention.html",
        title="Attention",
        here="attention",
        facts={
            "questions": questions,
            "answers_shown": _ANSWERS_SHOWN,
            "causes": causes,
            "forks": console.needs.forks([run for each in causes or () for run in each.runs]) if given["cause"] else {},
            "rejected": rejected,
            "health": health,
            "nothing": nothing,
            "given": given,
            "stamp": stamp,
            "why": console.index.why,
            "now": datetime.now(UTC),
            "stream": console.settings.namespace,
        },
        json=_facts(questions, causes, rejected, health),
        command="baton inbox" if questions or not causes else "baton dead",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


async def _soon(needs: Any) -> Health | None:
    """Return what the doctor says; None when it takes long, or cannot say."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await needs.health()  # type: ignore[no-any-return]
    except (TimeoutError, BusError, SchemaError):
        return None


def _facts(questions: Any, causes: Any, rejected: Any, health: Health | None) -> dict[str, Any]:
    return {
        "questions": [waiting_facts(each) for each in questions],
        "causes": causes,
        "rejected": [each.told for each in rejected],
        "parked": health.parked if health else None,
        "findings": health.findings if health else None,
    }
