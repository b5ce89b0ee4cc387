"""Actors with what waits for them, also those that were never up: the same facts for pages and for the terminal."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from baton_bus.doctor.queues import Queue, start_command
from baton_bus.index import file as files
from baton_bus.index.finding import Wanted, find
from baton_schemas.wire.words import Here

from .queue_watch import Looked

if TYPE_CHECKING:
    from .core import Console

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


def actors_of(
    console: Console, looked: Looked, workers: list[Here], absent: dict[str, list[datetime]]
) -> list[ActorQueue]:
    """Return the actors: where work stands still comes first, then where there is any; `absent` is `never_up`."""
    names = {queue.actor: None for queue in looked.queues if queue.kind == "handoff"}
    names |= {actor: None for here in workers for actor in here.actors}
    found = [_actor(console, looked, name, workers) for name in sorted(names)]
    found += [_down(actor, times) for actor, times in absent.items() if actor not in names]
    return sorted(found, key=lambda each: (not (each.is_down and each.waiting), not each.waiting, each.actor))


def _actor(console: Console, looked: Looked, name: str, workers: list[Here]) -> ActorQueue:
    queues = queues_of_actor(looked, name)
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


async def never_up(console: Console, looked: Looked) -> dict[str, list[datetime]]:
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


def queues_of_actor(looked: Looked, actor: str) -> list[Queue]:
    """Return the queues of an actor: its handoffs, and the replies to its joins."""
    return [each for each in looked.queues if each.actor == actor and each.kind in ("handoff", "reply")]
