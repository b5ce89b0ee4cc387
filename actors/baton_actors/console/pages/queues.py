"""Queues: whether work is done, by whom, how long it waits, and what to do where it stands still."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.drawn import polyline
from baton_actors.console.page import QUEUES, Page
from baton_actors.console.queue_watch import Looked
from baton_bus.doctor.queues import Queue, held_in, start_command
from baton_bus.index import file as files
from baton_bus.index.finding import Wanted, find
from baton_schemas.wire.words import Here

_SPARK_WIDE, _SPARK_TALL = 120, 24
_SPARK_S = 300
"""Seconds that a picture of rates is of."""
_HELD_SHOWN = 200
_SERVICES = {"steward": "tasks that begin runs", "say": "words from outside", "due": "what is due"}
_OPEN_LOOKED = 200
"""Open runs whose actors are looked for: one that was never up has no queue, and its work waits all the same."""
_NEVER_UP_MAX = 1_000
"""Messages that are counted of what waits for one that was never up."""


class ActorQueue(Struct, frozen=True, kw_only=True):
    """An actor, and what waits for it."""

    actor: str
    waiting: int
    replies: int
    """What waits for its joins, if it has any."""
    in_hand: int
    in_hand_max: int
    redelivered: int
    oldest_at: datetime | None
    came_s: float | None
    went_s: float | None
    """A second, of the last ten; None before it was looked at twice."""
    workers: list[Here]
    is_down: bool
    says: list[str]
    """What is not well, in words."""
    command: str


async def queues_page(console: Console, request: Request) -> Page:
    """Return the actors with what waits for them."""
    looked = await console.queues.look()
    workers = console.workers()
    actors = _actors(console, looked, workers, await _never_up(console, looked))
    return Page(
        template="queues.html",
        title="Queues",
        here="queues",
        facts={
            "actors": actors,
            "services": [each for each in looked.queues if each.kind not in ("handoff", "reply")],
            "service_names": _SERVICES,
            "allowed": looked.allowed,
            "sparks": {each.actor: _spark(console, each.actor) for each in actors},
            "now": datetime.now(UTC),
            "heard": bool(workers),
        },
        json=actors,
        command="baton doctor",
        sources=(QUEUES,),
    )


async def queue_page(console: Console, request: Request) -> Page:
    """Return one actor, with the runs that wait for it."""
    name = request.path_params["actor"]
    looked = await console.queues.look()
    never_up = await _never_up(console, looked)
    found = next((each for each in _actors(console, looked, console.workers(), never_up) if each.actor == name), None)
    if found is None and not looked.allowed:
        raise HTTPException(403, "This user may not look at the consumers. Log in as operator or admin.")
    if found is None:
        raise HTTPException(404, f"No actor {name!r} was ever up here. Start it: {start_command(name)}")
    queues = _of(looked, name) if name not in never_up else [_without(console, name, never_up[name])]
    held = [each for queue in queues for each in await held_in(console.bus, queue, _HELD_SHOWN)]
    return Page(
        template="queue.html",
        title=f"Queue of {name}",
        here="queues",
        facts={
            "actor": found,
            "held": sorted(held, key=lambda each: each.seq)[:_HELD_SHOWN],
            "spark": _spark(console, name, wide=480, tall=60),
            "now": datetime.now(UTC),
        },
        json={"queue": found, "waiting": held},
        command=found.command,
        sources=(QUEUES,),
    )


def _actors(
    console: Console, looked: Looked, workers: list[Here], never_up: dict[str, list[datetime]]
) -> list[ActorQueue]:
    names = {queue.actor: None for queue in looked.queues if queue.kind == "handoff"}
    names |= {actor: None for here in workers for actor in here.actors}
    found = [_actor(console, looked, name, workers) for name in sorted(names)]
    found += [_down(actor, times) for actor, times in never_up.items() if actor not in names]
    # Where work stands still comes first, then where there is any.
    return sorted(found, key=lambda each: (not (each.is_down and each.waiting), not each.waiting, each.actor))


def _actor(console: Console, looked: Looked, name: str, workers: list[Here]) -> ActorQueue:
    queues = _of(looked, name)
    own = next((each for each in queues if each.kind == "handoff"), None)
    replies = next((each for each in queues if each.kind == "reply"), None)
    rate = console.queues.rate(own.name) if own is not None else None
    ages = [looked.oldest[each.name] for each in queues if each.name in looked.oldest]
    return ActorQueue(
        actor=name,
        waiting=own.waiting if own is not None else 0,
        replies=replies.waiting if replies is not None else 0,
        in_hand=own.in_hand if own is not None else 0,
        in_hand_max=own.in_hand_max if own is not None else -1,
        redelivered=sum(each.redelivered for each in queues),
        oldest_at=min(ages, default=None),
        came_s=rate[0] if rate is not None else None,
        went_s=rate[1] if rate is not None else None,
        workers=[here for here in workers if name in here.actors],
        is_down=own is None or own.down,
        says=[f"{each.says}. {each.advice}".rstrip() for queue in queues for each in queue.says],
        command=start_command(name),
    )


async def _never_up(console: Console, looked: Looked) -> dict[str, list[datetime]]:
    """Return since when what waits for actors of open runs that were never up, by actor."""
    database = console.index.database
    if database is None or not looked.allowed:
        return {}
    with files.told(console.index.path):
        running = Wanted(limit=_OPEN_LOOKED, statuses=("running",))
        rows = find(database, running, datetime.now(UTC))
    known = {queue.actor for queue in looked.queues if queue.kind == "handoff"}
    names = {actor: None for row in rows for actor in row.actors if actor not in known}
    subjects = console.bus.subjects
    found = [
        await console.bus.log.raw_some(subjects.for_actor("handoff", name), 1, _NEVER_UP_MAX)
        for name in itertools.islice(names, _OPEN_LOOKED)
    ]
    return {name: [each.at for each in some] for name, some in zip(names, found, strict=False) if some}


def _down(actor: str, times: list[datetime]) -> ActorQueue:
    return ActorQueue(
        actor=actor,
        waiting=len(times),
        replies=0,
        in_hand=0,
        in_hand_max=-1,
        redelivered=0,
        oldest_at=min(times),
        came_s=None,
        went_s=None,
        workers=[],
        is_down=True,
        says=[f"It was never up, and work waits for it; it is kept until it is. Start it: {start_command(actor)}"],
        command=start_command(actor),
    )


def _without(console: Console, actor: str, times: list[datetime]) -> Queue:
    """Return the queue that an actor would have which was never up."""
    return Queue(
        name="",
        kind="handoff",
        actor=actor,
        waiting=len(times),
        in_hand=0,
        in_hand_max=-1,
        redelivered=0,
        asking=0,
        down=True,
        handed_out=0,
        after_seq=0,
        subject=console.bus.subjects.for_actor("handoff", actor),
        at=None,
        says=(),
    )


def _of(looked: Looked, actor: str) -> list[Queue]:
    return [each for each in looked.queues if each.actor == actor and each.kind in ("handoff", "reply")]


def _spark(console: Console, actor: str, wide: int = _SPARK_WIDE, tall: int = _SPARK_TALL) -> dict[str, Any]:
    """Return the lines of what came in and went out, in units of the picture; nothing before there are some."""
    rates = console.queues.rates(f"handoff-{actor}")[-_SPARK_S:]
    if len(rates) < 2:
        return {"wide": wide, "tall": tall, "came": "", "went": "", "most": 0.0}
    end, most = rates[-1].at, max(max(each.came, each.went) for each in rates)
    places = [wide * (1 - (end - each.at) / _SPARK_S) for each in rates]
    return {
        "wide": wide,
        "tall": tall,
        "most": most,
        "came": polyline(places, [each.came for each in rates], most, tall),
        "went": polyline(places, [each.went for each in rates], most, tall),
    }
