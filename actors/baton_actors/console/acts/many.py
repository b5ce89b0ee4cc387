"""What is done with several runs at once: each for itself, so that what was done is not done again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Page
from baton_actors.console.pages.many import runs_in
from baton_actors.errors import ActorError
from baton_bus.errors import BusError, RunExists
from baton_schemas.errors import SchemaError

from .runs import head_of, reason_of, retried

_AT_ONCE = 8
"""Each reads a run: the server has others to serve."""


async def cancel_all(console: Console, request: Request, form: FormData) -> str | Page:
    """End these runs; those that have ended stay as they are."""
    reason = reason_of(console, form)

    async def cancel(name: str) -> None:
        head = await head_of(console, name)
        await console.client.run(head.run, head.flow).cancel(reason)

    return await _each(form, cancel, "/acts/cancel", "cancelled")


async def retry_all(console: Console, request: Request, form: FormData) -> str | Page:
    """Go on with these runs from where each broke; one that was retried is not retried again."""

    async def retry(name: str) -> None:
        await retried(console, name, form)

    return await _each(form, retry, "/acts/retry", "retried")


async def _each(form: FormData, do: Callable[[str], Awaitable[None]], path: str, done: str) -> str | Page:
    runs = runs_in([each for each in form.getlist("run") if isinstance(each, str)])
    refused: list[tuple[str, str]] = []
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(run: str) -> None:
        async with turn:
            try:
                await do(run)
            except (RunExists, ActorError, SchemaError, BusError, ValueError) as error:
                refused.append((run, str(error)))

    await asyncio.gather(*map(one, runs))
    back = f"{path}?{urlencode([('run', run) for run in runs])}"
    if not refused:
        return back
    refused.sort()
    return Page(
        template="refused.html",
        title=f"{len(runs) - len(refused):,} of {len(runs):,} {done}",
        facts={"refused": refused, "back": back, "done": done},
        json={"refused": [{"run": run, "why": why} for run, why in refused]},
        status=409,
        here="runs",
    )
