"""The console as a web application: which address leads to which page, as HTML, JSON, or a stream of its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from baton_actors.errors import ActorError
from baton_bus.errors import BusError
from baton_bus.index.errors import IndexUnusable
from baton_schemas.errors import SchemaError

from .acting import act_route
from .acts import ACTS
from .assets import Assets
from .core import Console
from .failing import page_of_error
from .following import follow
from .making import make_page
from .page import MakePage, Moved, Page, wants_json
from .pages import OPENS, PAGES
from .rendering import HERE
from .streams import partial

_JSON = ".json"

logger = structlog.get_logger("baton.console")


def make_app(console: Console) -> ASGIApp:
    """Return the application. It is to stand behind `guard.Guard`."""
    routes = [
        Mount("/static", Assets(directory=HERE / "static")),
        Route("/live", _live(console), methods=["GET"]),
        Route("/parts", _parts(console), methods=["GET"]),
        *(Route(path, _Endpoint(console, make), methods=["GET"]) for path, make in PAGES.items()),
    ]
    routes += [Route(path, _Endpoint(console, make), methods=["POST"]) for path, make in OPENS.items()]
    if console.has_server and not console.options.read_only:
        routes += [act_route(console, path, acting) for path, acting in ACTS.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page(console)})
    app.state.console = console
    return _json_by_suffix(app)


class _Endpoint:
    """A page under its address."""

    def __init__(self, console: Console, make: MakePage) -> None:
        self.console, self.make = console, make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        made = await made_page(self.console, self.make, request)
        await _answer(self.console, made, request)(scope, receive, send)


async def made_page(console: Console, make: MakePage, request: Request) -> Page | Response:
    """Return a page, or the one that says why there is none."""
    try:
        return await make_page(console, make, request)
    except Moved as moved:
        return RedirectResponse(moved.to, 303)
    except IndexUnusable as error:
        console.index.broken(error)
        return page_of_error(error)
    except (BusError, SchemaError, ActorError, HTTPException, ValueError) as error:
        return page_of_error(error)
    except Exception as error:  # of ours: the other pages still work
        logger.exception("page.broken", path=request.url.path)
        return page_of_error(error)


def _answer(console: Console, made: Page | Response, request: Request) -> Response:
    if isinstance(made, Response):
        return made
    if wants_json(request):
        told = made.json() if callable(made.json) else made.json
        facts = told if told is not None else {"error": made.title, "command": made.command}
        return Response(msgspec.json.encode(facts), made.status, media_type="application/json")
    return HTMLResponse(console.rendering.whole(made, request, status=console.status()), made.status)


def _json_by_suffix(app: ASGIApp) -> ASGIApp:
    """Have each page as JSON under its address with `.json`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.endswith(_JSON) and not path.startswith("/static/"):
            scope = {**scope, "path": path.removesuffix(_JSON) or "/", "raw_path": None}
            scope["state"] = {**scope.get("state", {}), "json": True}
        await app(scope, receive, send)

    return answer


def _live(console: Console) -> Callable[[Request], Awaitable[Response]]:
    async def live(request: Request) -> Response:
        """Answer with the stream of a page: `/live?of=/runs/…`."""
        found = _page_of(request)
        if found is None:
            return Response("no such page", 404)
        return StreamingResponse(follow(console, *found), media_type="text/event-stream")

    return live


def _parts(console: Console) -> Callable[[Request], Awaitable[Response]]:
    async def parts(request: Request) -> Response:
        """Answer with the parts of a page once, as its stream sends them: `/parts?of=/runs/…&but=timeline`."""
        found = _page_of(request)
        if found is None:
            return Response("no such page", 404)
        make, asked = found
        page = await made_page(console, make, asked)
        if isinstance(page, Response) or page.status >= HTTPStatus.BAD_REQUEST:
            return Response("this page has no parts", 404)
        but = request.query_params.get("but", "").split(",")
        made = console.rendering.parts(page, asked, lambda name: name not in but, status=console.status())
        return HTMLResponse("".join(partial(name, html) for name, html in made))

    return parts


def _page_of(request: Request) -> tuple[MakePage, Request] | None:
    """Return the page whose address is given as `of`, and the request for it; None when there is none."""
    path, _, query = request.query_params.get("of", "/").partition("?")
    scope: Scope = {**request.scope, "path": path, "raw_path": None, "query_string": query.encode()}
    for route in request.app.routes:
        match, found = route.matches(scope)
        if match is Match.FULL and isinstance(getattr(route, "endpoint", None), _Endpoint):
            return route.endpoint.make, Request({**scope, **found}, request.receive)
    return None


def _no_such_page(console: Console) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return _answer(console, page_of_error(error), request)

    return answer
