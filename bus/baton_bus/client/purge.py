"""Purging runs: all their messages are removed for good, and the large values that nobody else names.

In place of a run stays, for a while, a result without content that says `purged`. It is written first, so that workers
hear it as the end of the run, and later find it: what a stale worker, a late timer or a task that comes again would go
on with is dropped, and no step is done, or decided, a second time. Doing all of it again changes nothing, so a purge
that was broken off is finished by the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from msgspec import Struct

from baton_bus.engine.budgets import RUN
from baton_bus.engine.engine import Engine
from baton_bus.errors import LogFull, NoStream, RunNeeded, RunPurged, RunUnended, UnknownRun
from baton_bus.store.blobs import TOUCH_AGAIN_S
from baton_bus.store.bus import Bus
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Result

from .runs import AmbiguousRun
from .survey import Counted, Survey, forked_since, named_by, named_since

REMEMBERED_S = 8 * 24 * 3600
"""How long the id of a purged run is held: an attempt lasts seven days at most, and what is due is kept as long."""
SPARED_S = 180.0
"""A large value that was put this short a time ago stays: a client may be about to start a run with it, for which it
has patience twice (`patience_s`); and a touch stands for those of a minute (`TOUCH_AGAIN_S`)."""
_AT_ONCE = 64
"""Runs removed at the same time: the server needs 0.1 to 0.3 ms for each, and this hides the round trip."""
_SETTLES_S = 0.5
"""From the end of a run that had not ended to when its handlers have heard of it: then what they wrote goes too."""
_Item = TypeVar("_Item")
_REASON = "purged: its messages were removed from the log"


class Choice(Struct, frozen=True, kw_only=True):
    """Which runs are to go. Those named go in any case; else those that all that is given here fits."""

    runs: tuple[str, ...] = ()
    ended_before: datetime | None = None
    keep_last: int | None = None
    """So many of the latest runs stay."""
    flow: str = ""
    unended: bool = False
    """Those that have not ended too: they are cancelled first."""


class Plan(Struct, frozen=True, kw_only=True):
    """What a purge is to remove."""

    survey: Survey
    runs: list[Counted]
    """In the order in which they began."""
    blobs: dict[str, int]
    """Large values that nobody else names: SHA-256 to the sequence of the last touch."""
    spared: int
    """Large values that nobody names, and that stay as somebody may be about to."""
    unended: int
    """Runs that would go if they had ended."""
    needed: int
    """Runs that would go if a run that has not ended did not go on from them."""

    @property
    def messages(self) -> int:
        """How many messages go."""
        return sum(run.messages for run in self.runs)

    @property
    def size_bytes(self) -> int:
        """How large these are, about."""
        return sum(run.size_bytes for run in self.runs)

    @property
    def blob_bytes(self) -> int:
        """How large the values are that go."""
        return sum(self.survey.blobs[sha256].size_bytes for sha256 in self.blobs)


class Purged(Struct, frozen=True, kw_only=True):
    """What a purge has removed."""

    runs: int
    messages: int
    blobs: int


def plan_purge(found: Survey, choice: Choice, now: datetime) -> Plan:
    """Work out what goes. What an earlier purge left is always in it.

    Raises `UnknownRun`, `RunPurged`, `RunUnended`, `RunNeeded` for a run that is named.
    """
    unended = needed = 0
    chosen: dict[str, Counted] = {}
    for run in found.runs.values():
        if run.purged and _has_more(run):
            chosen[run.run] = run
    named = {run.run: run for run in (_named(found, name, choice.unended) for name in choice.runs)}
    chosen |= named
    if not choice.runs:
        for run in _fitting(found, choice):
            if run.is_over or choice.unended:
                chosen[run.run] = run
            else:
                unended += 1
    # What a run asked for goes with it, whether it has ended or not: nobody waits for it.
    chosen |= _asked_by(found, chosen)
    # A run that still copies from another needs it.
    for run in found.runs.values():
        if run.origin in chosen and not run.is_over and run.run not in chosen:
            if run.origin in named:
                raise RunNeeded(run.origin, run.run)
            del chosen[run.origin]
            needed += 1
    runs = sorted(chosen.values(), key=lambda run: run.started_at)
    blobs, spared = _blobs(found, chosen, now)
    return Plan(survey=found, runs=runs, blobs=blobs, spared=spared, unended=unended, needed=needed)


async def check_allowed(bus: Bus) -> None:
    """Raise `NotAllowed` for who may not purge, before anything is written for its sake."""
    await bus.log.purge(bus.subjects.result("-", "-"))


async def purge(bus: Bus, plan: Plan, progress: Callable[[int], None] = lambda _: None) -> Purged:
    """Remove it; `progress` hears how many runs are done. It may be broken off and done again.

    A run from which another has begun to go on in the meantime stays.

    Raises `NotAllowed`, `BusUnavailable`, and the errors of `Publisher.create`.
    """
    await check_allowed(bus)
    engine, done, messages = Engine(bus), 0, 0

    async def remove(run: Counted) -> None:
        nonlocal done, messages
        removed = await _remove(engine, run)
        messages += removed
        done += 1
        progress(done)

    forked = await forked_since(bus, plan.survey.end_seq)
    runs = [run for run in plan.runs if run.run not in forked]
    stay = [run for run in plan.runs if run.run in forked]
    await _each(runs, remove)
    unended = [run for run in runs if not run.is_over]
    # To runs that asked for these it was told that they ended.
    told = {run.parent for run in unended}
    unended += [run for run in runs if run.is_over and run.run in told]
    if unended:
        await asyncio.sleep(_SETTLES_S)
        for run in unended:
            messages += await _remove_messages(bus, run, await _tombs(bus, run))
    blobs = await _remove_blobs(bus, plan, named_by(stay))
    return Purged(runs=len(runs), messages=messages, blobs=blobs)


# ---- which ---------------------------------------------------------------------------------------


def _has_more(run: Counted) -> bool:
    """Say whether there is more of a purged run than the result in its place."""
    return run.messages > len(run.ends) or bool(run.timers)


def _named(found: Survey, name: str, unended: bool) -> Counted:
    run = found.runs.get(name)
    if run is None:
        like = [each for each in found.runs.values() if name and _is_part(name, each.run)]
        like = [each for each in like if not each.purged] or like
        like = [each for each in like if not each.parent] or like  # whose ids begin as that of the run that asked
        if len(like) > 1:
            raise AmbiguousRun(name, [each.run for each in reversed(like)])
        if not like:
            raise UnknownRun(name)
        (run,) = like
    if run.purged and not _has_more(run):
        raise RunPurged(run.run)
    if not run.is_over and (not unended or run.is_batch):  # the calls of a batch that is out are of several runs
        raise RunUnended(run.run)
    return run


def _is_part(name: str, run: str) -> bool:
    return run.startswith(name) or run.endswith(name)


def _fitting(found: Survey, choice: Choice) -> Sequence[Counted]:
    """Return the runs that the choice fits, whether they have ended or not."""
    if choice.ended_before is None and choice.keep_last is None:
        return []
    runs = [
        run
        for run in found.runs.values()
        if not run.purged and (not choice.flow or run.flow == choice.flow) and not _goes_with_another(found, run)
    ]
    runs.sort(key=lambda run: run.started_at)
    batches = [run for run in runs if run.is_batch and run.is_over]
    runs = [run for run in runs if not run.is_batch]
    if choice.keep_last is not None:
        kept = runs[max(0, len(runs) - choice.keep_last) :]
        runs = runs[: max(0, len(runs) - choice.keep_last)]
        batches = [batch for batch in batches if not kept or batch.last_at < kept[0].started_at]
    runs += batches
    if choice.ended_before is not None:
        runs = [run for run in runs if (run.ended_at or run.last_at) < choice.ended_before]
    return runs


def _goes_with_another(found: Survey, run: Counted) -> bool:
    """Say whether a run is a part of another one that is there: it stays as long as that one."""
    parent = found.runs.get(run.parent)
    return parent is not None and not parent.purged


def _asked_by(found: Survey, chosen: Collection[str]) -> dict[str, Counted]:
    """Return the runs that these asked for, near and far."""
    by_parent: dict[str, list[Counted]] = {}
    for run in found.runs.values():
        if run.parent and (not run.purged or _has_more(run)):
            by_parent.setdefault(run.parent, []).append(run)
    asked: dict[str, Counted] = {}
    pending = list(chosen)
    while pending:
        for run in by_parent.get(pending.pop(), ()):
            if run.run not in asked:
                asked[run.run] = run
                pending.append(run.run)
    return asked


def _blobs(found: Survey, chosen: Collection[str], now: datetime) -> tuple[dict[str, int], int]:
    """Return the large values that go, and how many stay for now that nobody names."""
    if not found.blobs:
        return {}, 0
    kept = named_by(run for run in found.runs.values() if run.run not in chosen) | found.named_by_others
    gone = named_by(run for run in found.runs.values() if run.run in chosen)
    # Who else may be about to name one: a client that starts a run, and whoever does a step of a run that goes on.
    going_on = [run.started_at for run in found.runs.values() if not run.is_over and run.run not in chosen]
    since = min([now - timedelta(seconds=SPARED_S), *(began - timedelta(seconds=TOUCH_AGAIN_S) for began in going_on)])
    going: dict[str, int] = {}
    spared = 0
    for sha256, blob in found.blobs.items():
        if sha256 in kept:
            continue
        # One that was put once only was put by the run that names it.
        put_at = blob.touched_at or (blob.written_at if sha256 not in gone else None)
        if put_at is not None and put_at >= since:
            spared += 1
        else:
            going[sha256] = blob.touched_seq
    return going, spared


# ---- removing ------------------------------------------------------------------------------------


async def _remove(engine: Engine, run: Counted) -> int:
    """Remove a run; return how many messages that were."""
    bus = engine.bus
    if not run.is_over:
        _, first = await engine.runs.first(run.run)
        await engine.runs.stop(first, run.start_seq, "cancelled", _REASON)
    try:
        tombs = await _tombs(bus, run)
    except LogFull:  # there is no room before something is gone
        removed = await _remove_messages(bus, run, ())
        await _tombs(bus, run)
        return removed
    return await _remove_messages(bus, run, tombs)


async def _tombs(bus: Bus, run: Counted) -> Sequence[int]:
    """Write a result without content over each that the run has; return their sequences."""
    seqs = []
    for flow in sorted({*run.ends, *filter(None, [run.flow])}):
        result = Result(
            flow=flow, run=run.run, status="cancelled", reason=_REASON, start_seq=run.start_seq, purged=True
        )
        subject = bus.subjects.result(flow, run.run)
        seqs.append(await bus.log.replace(subject, encode(result), run.ends.get(flow, 0), kept_s=REMEMBERED_S))
    return seqs


async def _remove_messages(bus: Bus, run: Counted, tombs: Sequence[int]) -> int:
    """Remove all messages of a run but those that stand in its place."""
    removed = 0
    removed += await bus.log.purge(bus.subjects.run(run.run), below_seq=min(tombs, default=0))
    await bus.counters.remove((RUN, run.run, "*"))
    for seq in run.tasks:
        removed += await bus.log.delete(seq)
    for subject in run.timers:
        await bus.timers.forget(subject)
    return removed


async def _remove_blobs(bus: Bus, plan: Plan, kept: Collection[str]) -> int:
    """Remove the large values that still nobody names, and that are not to be `kept`; return how many."""
    doomed: dict[str, int] = {}

    async def doom(sha256: str) -> None:
        if seq := await bus.blobs.doom(sha256, plan.blobs[sha256]):
            doomed[sha256] = seq

    async def settle(sha256: str) -> None:
        if sha256 in named:
            await bus.blobs.spare(sha256)
        else:
            await bus.blobs.remove(sha256, doomed[sha256])

    try:
        await _each([sha256 for sha256 in plan.blobs if sha256 not in kept], doom)
        named = await named_since(bus, plan.survey.end_seq) if doomed else set()
        await _each(doomed, settle)
    except NoStream:
        return 0
    return len(doomed.keys() - named)


async def _each(items: Iterable[_Item], do: Callable[[_Item], Awaitable[None]]) -> None:
    """Do it for each, some at a time. Raises the first error of any."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _Item) -> None:
        async with places:
            await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
