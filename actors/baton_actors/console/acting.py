"""What people do on pages: each act goes through the client's calls, so that twice is once, and leads to a page."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable

from msgspec import Struct
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive

from baton_actors.errors import ActorError
from baton_bus.errors import BusError
from baton_schemas.errors import SchemaError

from .core import Console
from .failing import page_of_error
from .guard import CSRF
from .page import Page

Act = Callable[[Console, Request, FormData], Awaitable[str | Page]]
"""Does something, and returns the path of the page that shows what came of it; or a page that says what is amiss."""

BODY_MAX_BYTES = 64 * 1024
"""Of a form: some ids and a note."""
FILES_MAX_BYTES = 32 * 1024 * 1024
"""Of a form with files in it, all together."""
FIELDS_MAX = 1_000
"""Of a form: as many runs as can be marked, and some."""
_DRAINED_BYTES, _DRAINED_S = 8 * FILES_MAX_BYTES, 1.0
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

_STALE = """\
This form is of an earlier console, or of none. Go back, load the page again, and send it once more.
"""


class Acting(Struct, frozen=True):
    """An act, and how much may be sent for it."""

    act: Act
    body_max_bytes: int = BODY_MAX_BYTES


class TooMuch(HTTPException):
    """A form is larger than it may be."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` is how large it may be."""
        super().__init__(413, f"This is more than {max_bytes:,} bytes, which is the most that this form may bring.")


def act_route(console: Console, path: str, acting: Acting) -> Route:
    """Return the route of an act: a form that is posted."""

    async def answer(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _FORMS:
            return PlainTextResponse("Expected a form.\n", 415)
        limited = Request(request.scope, _limited(request, acting.body_max_bytes))
        made: str | Page
        try:
            async with limited.form(
                max_files=FIELDS_MAX, max_fields=FIELDS_MAX, max_part_size=acting.body_max_bytes
            ) as form:
                shown = str(form.get(CSRF, ""))
                if not hmac.compare_digest(shown.encode(errors="replace"), request.state.csrf.encode()):
                    return PlainTextResponse(_STALE, 403)
                made = await acting.act(console, limited, form)
        except TooMuch as error:
            await _drain(request)
            made = page_of_error(error)
        except (BusError, SchemaError, ActorError, HTTPException, ValueError) as error:
            made = page_of_error(error)
        if isinstance(made, str):
            return RedirectResponse(ours(made), 303)
        return HTMLResponse(console.rendering.whole(made, request, status=console.status()), made.status)

    return Route(path, answer, methods=["POST"])


async def _drain(request: Request) -> None:
    """Read on for a moment and keep nothing: browsers look at the answer only when they have sent all."""
    left = _DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAINED_S):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def ours(path: str) -> str:
    """Return a path of this console. Raises `ValueError` for what a browser would take for another host's."""
    if not path.startswith("/") or path[1:2] in ("/", "\\") or any(ord(each) < 33 for each in path):
        raise ValueError(f"{path!r} is no path of the console")
    return path


def _limited(request: Request, max_bytes: int) -> Receive:
    """Return what gives the body of a request, and raises `TooMuch` as soon as it is too large."""
    came = 0
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isascii() and length.isdigit() else 0

    async def receive() -> Message:
        nonlocal came
        if announced > max_bytes:
            raise TooMuch(max_bytes)
        message = await request.receive()
        came += len(message.get("body", b""))
        if came > max_bytes:
            raise TooMuch(max_bytes)
        return message

    return receive
