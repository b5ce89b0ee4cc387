"""Seeing a step: its messages are read, those of the run that it was reused from too, and its values fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from baton_bus.errors import BlobMissing, BlobWrong, UnknownRun
from baton_bus.store.bus import Bus
from baton_schemas.errors import FlowUnreadable, UnknownStep
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.plan import plan_of
from baton_schemas.show.seeing import see, wanted
from baton_schemas.show.step import StepSeen, step_of
from baton_schemas.wire.outcomes import Blob
from baton_schemas.wire.words import read_running

from .roll import ask_roll
from .runs import RunHead, find_run, read_last

LISTEN_S = 2.2
"""A worker says at once what it is doing when it is asked, and an older one every two seconds: who listens for longer
has heard all."""
_ORIGINS_MAX = 32
"""Runs that go on from one another: so many are followed to where a step was done."""
_SMALL_IN_ALL = 100


class Read(Struct, frozen=True, kw_only=True):
    """A run that was read: its messages, and the state that they make, with the id by which it was found."""

    entries: Sequence[Entry]
    state: RunState


Fetch = Callable[[Sequence[Blob]], Awaitable[tuple[dict[str, bytes], dict[str, str]]]]
"""Returns what is kept beside the log by its SHA-256, and why what is lacking was not fetched."""
ReadOrigin = Callable[[str], Awaitable[Read | None]]
"""Returns the run of this very id; None when it is not there."""


async def see_step(
    bus: Bus, head: RunHead, name: str, *, listen_s: float = 0.0, fetch_max_bytes: int | None = None
) -> StepSeen:
    """Return all that there is to see of a step, or of a branch (`digest-7`), of a run.

    A step that is in nobody's hands as far as the log says is listened for, up to `listen_s`. Values are fetched up to
    `fetch_max_bytes` in all (None: all of them). Raises `UnknownStep`, `FlowUnreadable`, `BusUnavailable`, `NoStream`.
    """
    read = await _read(bus, head)
    step = step_of(_plan(read.state), read.state, name)
    own, running = read.state.steps.get(step), 0
    if own is not None and own.status == "queued" and not own.waits and own.asked in (None, "agent") and listen_s:
        running = await _heard(bus, head.run, step, listen_s)

    async def origin(run: str) -> Read | None:
        try:
            found = await find_run(bus, run)
        except UnknownRun:
            return None
        return await _read(bus, found) if found.run == run else None

    return await see_read(read, step, fetcher(bus, fetch_max_bytes), origin, running=running)


async def see_read(read: Read, name: str, fetch: Fetch, origin: ReadOrigin, *, running: int = 0) -> StepSeen:
    """Return what `see_step` does of a run that was read, wherever it is from; `running` as in `seeing.see`.

    Raises `UnknownStep`, `FlowUnreadable`, and what `fetch` and `origin` raise.
    """
    seen = await _see(read, name, fetch, running)
    if not seen.reused_from:
        return seen
    done = await _where_it_was_done(seen, fetch, origin) or seen
    run = done.reused_from or done.run
    gone = ", which is not in the log any more" if done.reused_from else ""
    says = f"done in run {run}{gone}, and reused here"
    # A child may be another one of its name there.
    return replace(
        done, run=read.state.run, state=seen.state, status=seen.status, says=says, reused_from=run, label=seen.label
    )


def fetcher(bus: Bus, max_bytes: int | None) -> Fetch:
    """Return what fetches from beside the log of this bus, up to so many bytes in all (None: everything)."""
    return partial(_fetch, bus, max_bytes=max_bytes)


async def fetch_small(bus: Bus, blobs: Iterable[Blob], max_bytes: int) -> dict[str, bytes]:
    """Return what is kept beside the log by its SHA-256, larger values and those that are gone left out.

    Of all of them not more than a hundred times `max_bytes`. Raises `BusUnavailable`.
    """
    small = [blob for blob in blobs if blob.size_bytes <= max_bytes]
    fetched, _ = await _fetch(bus, small, _SMALL_IN_ALL * max_bytes)
    return fetched


async def _where_it_was_done(seen: StepSeen, fetch: Fetch, origin: ReadOrigin) -> StepSeen | None:
    """Return a reused step as it is in the run in which it was done, or in the first that is still in the log."""
    found: StepSeen | None = None
    run = seen.reused_from
    for _ in range(_ORIGINS_MAX):
        read = await origin(run)
        if read is None:
            return found
        try:
            found = await _see(read, seen.step, fetch, 0)
        except (UnknownStep, FlowUnreadable):
            return found
        if not found.reused_from:
            return found
        run = found.reused_from
    return found


async def _read(bus: Bus, head: RunHead) -> Read:
    entries = await read_last(bus, head)
    return Read(entries=entries, state=replace(fold(entries), run=head.run))


def _plan(state: RunState) -> Plan:
    plan = plan_of(state)
    if plan is None:
        raise FlowUnreadable(state.run, state.result.reason if state.result else "")
    return plan


async def _see(read: Read, name: str, fetch: Fetch, running: int) -> StepSeen:
    state, entries, plan = read.state, read.entries, _plan(read.state)
    step = step_of(plan, state, name)
    fetched, lacking = await fetch(wanted(plan, state, entries, step))
    now = datetime.now(UTC)
    return see(plan, state, entries, step, fetched=fetched, lacking=lacking, running=running, now=now)


async def _fetch(bus: Bus, blobs: Sequence[Blob], max_bytes: int | None) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what is kept beside the log, the smallest first, and why what is lacking was not fetched."""
    fetched: dict[str, bytes] = {}
    lacking: dict[str, str] = {}
    left = max_bytes
    for blob in sorted(blobs, key=lambda blob: blob.size_bytes):
        if left is not None and blob.size_bytes > left:
            lacking[blob.sha256] = "not fetched"
            continue
        try:
            fetched[blob.sha256] = await bus.blobs.get(blob)
            left = None if left is None else left - blob.size_bytes
        except (BlobMissing, BlobWrong):
            lacking[blob.sha256] = "gone"
    return fetched, lacking


async def _heard(bus: Bus, run: str, step: str, listen_s: float) -> int:
    """Return the attempt that a worker says it is making at a step; 0 when none says so in that time."""
    word: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_word(subject: str, body: bytes) -> None:
        heard = read_running(step, body)
        if subject.split(".")[-2] in ("running", "words") and heard is not None and not word.done():
            word.set_result(heard.attempt)

    # Whatever it says is a sign of life: each word has the attempt.
    async with bus.hearing(bus.subjects.live(run, "*", step), on_word, sure=False):
        ask_roll(bus, run)
        try:
            async with asyncio.timeout(listen_s):
                return await word
        except TimeoutError:
            return 0
