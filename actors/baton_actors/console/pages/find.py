"""Finding anything by some letters: runs by the start or end of an id or by words, flows, actors, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import Given, Page
from baton_actors.console.words import in_url, mark
from baton_bus.index import file as files
from baton_bus.index.counting import counts
from baton_bus.index.errors import NoWords
from baton_bus.index.finding import Wanted, find, named
from baton_bus.index.row import IndexRow
from baton_schemas.wire.names import TOKEN

_PAGES = (
    ("Runs", "/"),
    ("Flows", "/flows"),
    ("Queues", "/queues"),
    ("Attention", "/attention"),
    ("Spend", "/spend"),
    ("Schedules", "/schedules"),
    ("Log", "/log"),
    ("Files", "/files"),
    ("Server", "/server"),
    ("Failed runs", "/?status=failed"),
    ("Runs that go on", "/?status=running"),
    ("Runs that wait for people", "/?waiting=yes"),
    ("Most expensive runs", "/?sort=cost"),
    ("Longest runs", "/?sort=time"),
)
_EACH = 6
_ID_MIN = 3
"""Of an id, so many characters tell something."""
_WORDS_MAX = 200


class FoundThing(Struct, frozen=True, kw_only=True):
    """Something that was found."""

    kind: str
    text: str
    path: str
    about: str = ""


async def find_page(console: Console, request: Request) -> Page:
    """Return what `q` may mean, the likeliest first."""
    words = Given(request.query_params)["q"].strip()[:_WORDS_MAX]
    found = [*_runs(console, words), *_flows(console, words), *_actors(console, words), *_pages(words)]
    if words:
        path = "/?" + urlencode({"text": words})
        found.append(FoundThing(kind="search", text=f"runs with “{words}”", path=path))
    return Page(
        template="find.html",
        title="Find",
        facts={"words": words, "found": found},
        json=found,
        command=f"baton show {words}" if TOKEN.match(words) else "baton runs",
    )


def _runs(console: Console, words: str) -> list[FoundThing]:
    database = console.index.database
    if database is None or not words:
        return []
    rows: dict[str, IndexRow] = {}
    with files.told(console.index.path):
        if TOKEN.match(words) and len(words) >= _ID_MIN:
            rows |= {row.summary.run: row for row in named(database, words, _EACH)}
        try:
            wanted = Wanted(limit=_EACH, text=words)
        except NoWords:
            wanted = None
        if wanted is not None:
            rows |= {row.summary.run: row for row in find(database, wanted, datetime.now(UTC))}
    return [_of_run(row) for row in list(rows.values())[: 2 * _EACH]]


def _of_run(row: IndexRow) -> FoundThing:
    run = row.summary
    about = f"{mark(run.status)} {run.status} · {run.flow} · {run.error or run.input}"
    return FoundThing(kind="run", text=run.run, path=f"/runs/{in_url(run.run)}", about=about)


def _flows(console: Console, words: str) -> list[FoundThing]:
    names = {each.name: None for each in console.flows.here()[0]}
    database = console.index.database
    if database is not None:
        with files.told(console.index.path):
            names |= dict.fromkeys(counts(database).by_flow)
    fitting = [name for name in names if words.lower() in name.lower()] if words else []
    return [
        each
        for name in fitting[:_EACH]
        for each in (
            FoundThing(kind="flow", text=name, path=f"/flows/{in_url(name)}"),
            FoundThing(kind="runs", text=f"runs of {name}", path="/?" + urlencode({"flow": name})),
        )
    ]


def _actors(console: Console, words: str) -> list[FoundThing]:
    names = sorted({actor for here in console.workers() for actor in here.actors})
    fitting = [name for name in names if words.lower() in name.lower()] if words else []
    return [FoundThing(kind="actor", text=name, path=f"/queues/{in_url(name)}") for name in fitting[:_EACH]]


def _pages(words: str) -> list[FoundThing]:
    fitting = [(text, path) for text, path in _PAGES if words.lower() in text.lower()]
    return [FoundThing(kind="page", text=text, path=path) for text, path in fitting]
