"""Two runs beside each other: where they part, and a step of both, or two branches of one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.requests import Request

from baton_actors.console.compare_view import Compared
from baton_actors.console.core import Console
from baton_actors.console.page import Given, Moved, Page
from baton_actors.console.sources import FILE, Source, source_named, source_of
from baton_bus.client.runs import recent_runs
from baton_schemas.errors import UnknownStep
from baton_schemas.show.compared import Run
from baton_schemas.show.differ import Difference, differ
from baton_schemas.show.differ_words import prompts_of
from baton_schemas.show.step import step_of
from baton_schemas.wire.outcomes import Blob

STEPS_FETCHED = 30
"""Steps that differ whose values are fetched from beside the log, the first ones."""
_FETCH_MAX_BYTES = 1024 * 1024
"""Of one value beside the log that is fetched to be compared; larger ones are told apart by their hash."""


async def pick_page(console: Console, request: Request) -> Page:
    """Return the form that asks for two runs; with both given it leads to them."""
    given = Given(request.query_params)
    one, other = given["a"].strip(), given["b"].strip()
    if one and other:
        raise Moved(path_of(one, other))
    return Page(
        template="compare_pick.html",
        title="Compare",
        here="runs",
        facts={"one": one, "files": list(console.files)},
        json={},
        command="baton diff RUN RUN",
    )


async def compare_with_page(console: Console, request: Request) -> Page:
    """Lead to the comparison of a run with another: the one that it goes on from, or the last of its flow (`last`)."""
    source = await source_named(console, request.path_params["a"])
    if Given(request.query_params)["with"] == "last":
        raise Moved(path_of(await _last_done(console, source), source.name))
    origin = source.feed.state.forked_from
    if not origin:
        raise Moved("/compare?" + urlencode({"a": source.name}))
    raise Moved(path_of(origin, source.name))


async def compare_file_page(console: Console, request: Request) -> Page:
    """Lead from a file to its comparison with another run."""
    raise Moved(path_of((await source_of(console, request)).name, request.path_params["b"]))


async def compare_page(console: Console, request: Request) -> Page:
    """Return two runs beside each other; `step` is the one that is shown, `with` another one of the later run."""
    names = request.path_params["a"], request.path_params["b"]
    one, other = await source_named(console, names[0]), await source_named(console, names[1])
    if (one.name, other.name) != names:
        raise Moved(path_of(one.name, other.name) + (f"?{request.url.query}" if request.url.query else ""))
    given = Given(request.query_params)
    steps = _step(one, given["step"]), _step(other, given["with"] or given["step"])
    before, after = Run(one.feed.entries, one.feed.state), Run(other.feed.entries, other.feed.state)
    found = await asyncio.to_thread(differ, before, after)
    shown = (steps[0] or _first(found), steps[1] or _first(found))
    before = await _with_values(one, before, found, shown[0])
    after = await _with_values(other, after, found, shown[1])
    found = await asyncio.to_thread(differ, before, after)
    view = await asyncio.to_thread(
        Compared, one, other, before, after, found, shown, datetime.now(UTC), is_chosen=bool(given["step"])
    )
    is_over = one.feed.state.result is not None and other.feed.state.result is not None
    return Page(
        template="compare.html",
        title=f"{one.feed.run} and {other.feed.run}",
        here="runs",
        facts={"view": view, "found": found},
        json=_facts(found, before, after),
        command="" if FILE in "".join(names) else f"baton diff {one.feed.run} {other.feed.run}",
        sources=() if is_over else tuple(dict.fromkeys((*one.sources, *other.sources))),
    )


def path_of(one: str, other: str) -> str:
    """Return the address of a comparison."""
    return f"/compare/{quote(one, safe=':')}/{quote(other, safe=':')}"


def _facts(found: Difference, before: Run, after: Run) -> dict[str, object]:
    """Return what `baton diff --json` prints."""
    facts: dict[str, object] = msgspec.to_builtins(found, builtin_types=(Raw,), str_keys=True)
    first = found.first.step if found.first else None
    return facts | {"first": first, "prompts": prompts_of(before, after, found.first)}


def _first(found: Difference) -> str:
    return found.first.step if found.first is not None else ""


def _step(source: Source, name: str) -> str:
    """Return the step that is meant; a step that one of the runs has not is shown as missing."""
    if not name or source.feed.plan is None:
        return name
    try:
        return step_of(source.feed.plan, source.feed.state, name)
    except UnknownStep:
        return name


async def _with_values(source: Source, run: Run, found: Difference, step: str) -> Run:
    """Return a run with what is kept beside the log of its input, of the first steps that differ, and of one step."""
    blobs: list[Blob] = list(run.state.input_blobs.values())
    for name in dict.fromkeys([*(each.step for each in found.steps[:STEPS_FETCHED]), step]):
        if name:
            blobs += run.wanted(name)
    small = {blob.sha256: blob for blob in blobs if blob.size_bytes <= _FETCH_MAX_BYTES}
    fetched, _ = await source.fetch(list(small.values()))
    return Run(run.entries, run.state, fetched)


async def _last_done(console: Console, source: Source) -> str:
    """Return the last run of the same flow that was done, other than this one. Raises `HTTPException`."""
    flow = source.feed.state.flow
    heads = await recent_runs(console.bus, 2, flow=flow, status="done")
    for head in heads:
        if head.run != source.feed.run:
            return head.run
    raise HTTPException(404, f"no other run of flow {flow} is done")
