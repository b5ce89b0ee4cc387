"""What people do on pages: each act goes through the client's calls, so that twice is once, and leads to a page."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from baton_bus.errors import BusError
from baton_schemas.errors import SchemaError

from .core import Console
from .failing import page_of_error
from .guard import CSRF

Act = Callable[[Console, Request, FormData], Awaitable[str]]
"""Does something, and returns the path of the page that shows what came of it."""

ACTS: dict[str, Act] = {}
"""By path."""

_STALE = """\
This form is of an earlier console, or of none. Go back, load the page again, and send it once more.
"""


def act_route(console: Console, path: str, act: Act) -> Route:
    """Return the route of an act: a form that is posted."""

    async def answer(request: Request) -> Response:
        async with request.form() as form:
            shown = str(form.get(CSRF, ""))
            if not hmac.compare_digest(shown.encode(), request.state.csrf.encode()):
                return PlainTextResponse(_STALE, 403)
            try:
                return RedirectResponse(await act(console, request, form), 303)
            except (BusError, SchemaError, ValueError) as error:
                page = page_of_error(error)
                html = console.rendering.whole(page, request, status=console.status())
                return Response(html, page.status, media_type="text/html")

    return Route(path, answer, methods=["POST"])
