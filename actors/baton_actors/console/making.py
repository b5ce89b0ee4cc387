"""Makes a page, and does not wait long for a server that is away: pages are to say so at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from baton_bus.errors import BusUnavailable

from .core import Console
from .page import MakePage, Page

_AWAY_S = 1.0
"""So long a page waits for a connection that is lost: one that mends itself at once is not told."""


async def make_page(console: Console, make: MakePage, request: Request) -> Page | Response:
    """Return what `make` does, and raise what it raises; `BusUnavailable` when it waits for a server that is away."""
    making = asyncio.create_task(cast(Coroutine[Any, Any, Page | Response], make(console, request)), name="make a page")
    try:
        while not making.done():
            await asyncio.wait([making], timeout=_AWAY_S)
            if not making.done() and not console.is_connected:
                raise BusUnavailable("make this page", _AWAY_S)
        return making.result()
    finally:
        making.cancel()
