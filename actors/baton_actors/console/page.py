"""A page: what it shows, under which template, what changes it, and the command that says the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from .core import Console

LISTS = "lists"
"""Source of a page that changes with the index."""
QUEUES = "queues"
"""Source of a page that changes with the queues: looked at every second, while somebody sees it."""
LOG = "log"
"""Source of a page that changes with every message."""


def of_run(run: str) -> str:
    """Return the source of a page that changes with a run."""
    return f"run {run}"


class Page(Struct, frozen=True, kw_only=True):
    """What is answered to a request. The blocks of its template whose names begin with `live_` are sent anew."""

    template: str
    title: str
    facts: dict[str, Any]
    """What the template is given, besides what all are: see `rendering.Rendering`."""
    json: Any = None
    """What is answered under the same address with `.json`, or a function that makes it; None where there is nothing.
    """
    command: str = ""
    """The command that says the same."""
    sources: tuple[str, ...] = ()
    """What changes it; without any it stays as it is."""
    stored_at_s: float = 0.0
    """When the last message was stored that it shows (Unix time); 0 where that means nothing."""
    stored_after: Callable[[float], float] | None = None
    """Returns when the first message that it shows was stored after such a time, which is before the last one's."""
    paces: Mapping[str, float] = {}
    """By part (without `live_`): how many seconds pass at least from one sending of it to the next."""
    every_s: float = 0.0
    """It is made anew at least so often; 0 for only when something came."""
    status: int = 200
    here: str = ""
    """Which link of the top bar it belongs to."""


MakePage = Callable[["Console", Request], Awaitable["Page | Response"]]
"""A page as a function: reads, and writes nothing. What is no page, a file say, is answered as it is."""


class Given(dict[str, str]):
    """What an address gives after its `?`; what it does not give is empty."""

    def __missing__(self, name: str) -> str:
        return ""


def wants_json(request: Request) -> bool:
    """Say whether a page is wanted as facts."""
    accepted = request.headers.get("accept", "")
    return bool(getattr(request.state, "json", False)) or ("json" in accepted and "html" not in accepted)


class Moved(Exception):
    """The page has another address."""

    def __init__(self, to: str) -> None:
        """`to` is a path of ours."""
        self.to = to
        super().__init__(to)
