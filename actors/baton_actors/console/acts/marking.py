"""What somebody has seen, so that it is not in the way any more."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console

from .runs import text_in


async def mark_seen(console: Console, request: Request, form: FormData) -> str:
    """Take failures of a cause as seen, up to the last that the page showed: a later one comes up again."""
    console.needs.seen.mark(text_in(form, "cause"), text_in(form, "last"))
    return "/attention"
