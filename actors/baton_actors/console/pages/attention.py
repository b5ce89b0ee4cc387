"""What people have to see to: questions, failures by cause, rejected messages, and what the doctor says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.needs import Health, stamp
from baton_actors.console.page import LISTS, Given, Page, wants_json
from baton_bus.client.people import waiting_facts
from baton_bus.errors import BusError
from baton_schemas.errors import SchemaError

_EVERY_S = 2.0
T = TypeVar("T")
_PATIENCE_S = 0.7
"""For what is looked up in the log, and what the doctor says: what is known already is shown meanwhile."""
_ANSWERS_SHOWN = 4
"""Of a choice: with more it is answered on a page of its own."""


async def attention_page(console: Console, request: Request) -> Page:
    """Return what waits for people; `?cause=KEY` opens one, `?seen=yes` shows what was seen or gone on from, too."""
    given = Given(request.query_params)
    patience_s = None if wants_json(request) else _PATIENCE_S
    questions, rejected, health = await asyncio.gather(
        _soon(console.needs.questions(), patience_s),
        _soon(console.needs.rejected(), patience_s),
        _said(console.needs.health(), _PATIENCE_S),
    )
    causes = console.needs.causes(seen=bool(given["seen"] or given["cause"]))
    if given["cause"]:
        causes = [each for each in causes or () if each.cause.key == given["cause"]]
    nothing = questions == [] and rejected == [] and not (causes or (health and (health.findings or health.parked)))
    return Page(
        template="attention.html",
        title="Attention",
        here="attention",
        facts={
            "questions": questions,
            "answers_shown": _ANSWERS_SHOWN,
            "causes": causes,
            "forks": console.needs.forks([run for each in causes or () for run in each.runs]) if given["cause"] else {},
            "more_causes": 0 if given["cause"] else console.needs.more_causes(),
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


async def _soon(looking: Awaitable[T], patience_s: float | None) -> T | None:
    """Return what is being looked up; None when that takes long: it goes on, and is there the next time."""
    try:
        async with asyncio.timeout(patience_s):
            return await looking
    except TimeoutError:
        return None


async def _said(looking: Awaitable[Health], patience_s: float) -> Health | None:
    """Return what the doctor says; None when it takes long, or cannot say."""
    try:
        return await _soon(looking, patience_s)
    except (BusError, SchemaError):
        return None


def _facts(questions: Any, causes: Any, rejected: Any, health: Health | None) -> dict[str, Any]:
    return {
        "questions": [waiting_facts(each) for each in questions or ()],
        "causes": causes,
        "rejected": [each.told for each in rejected or ()],
        "parked": health.parked if health else None,
        "findings": health.findings if health else None,
    }
