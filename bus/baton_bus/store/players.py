"""Who plays the actors of a flow, as the server tells it: whether anybody asks for their work, and how much waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from baton_bus.errors import BusError, NotAllowed
from baton_bus.jetstream.requests import NoAnswer

from .bus import Bus

_ASK_S = 1.0
"""How long the server may take to say how a consumer is: what it does not say is not known."""
_SILENT_LEASES = 2
"""A consumer that nobody asks for work, and that has said nothing for so many leases, is that of a worker that died."""

_NOT_FOUND = b'"err_code":10014'
"""`consumer not found`."""

Played = Literal["nobody", "silent", "somebody", "unknown"]


class _At(Struct, frozen=True):
    last_active: datetime | None = None


class _Consumer(Struct, frozen=True):
    """What the server says of a consumer, as far as it counts here."""

    name: str
    """Not in the server's errors."""
    delivered: _At = _At()
    ack_floor: _At = _At()
    num_ack_pending: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    created: datetime | None = None
    ts: datetime | None = None
    """The broker's time."""


class Player(Struct, frozen=True):
    """How an actor is played."""

    actor: str
    played: Played
    """`somebody` asks for its work, or holds some. `silent`: some is held, nobody asks for more, and nothing was heard
    for long: whoever held it is gone, or all are busy with long steps. `unknown` when the server does not say."""
    waiting: int = 0
    """Messages that wait for it, or are in somebody's hand."""


async def players(bus: Bus, actors: Iterable[str]) -> list[Player]:
    """Return how these actors are played now, in their order. Never fails: what is not told is `unknown`."""
    return await asyncio.gather(*(_player(bus, actor) for actor in actors))


async def _player(bus: Bus, actor: str) -> Player:
    told = [await _told(bus, f"{kind}-{actor}") for kind in ("handoff", "reply")]
    handoffs = told[0]
    if handoffs == "unknown":
        return Player(actor, "unknown")
    if handoffs == "missing":  # nobody has ever played it
        return Player(actor, "nobody", await _stored(bus, actor))
    waiting = sum(each.num_pending + each.num_ack_pending for each in told if isinstance(each, _Consumer))
    return Player(actor, _played(handoffs, bus.settings.lease_s), waiting)


def _played(consumer: _Consumer, lease_s: float) -> Played:
    if consumer.num_waiting:
        return "somebody"
    if not consumer.num_ack_pending:
        return "nobody"
    times = (consumer.delivered.last_active, consumer.ack_floor.last_active, consumer.created)
    moved = [at for at in times if at is not None]
    silent_s = (consumer.ts - max(moved)).total_seconds() if consumer.ts and moved else 0.0
    return "silent" if silent_s > _SILENT_LEASES * lease_s else "somebody"


async def _told(bus: Bus, consumer: str) -> _Consumer | Literal["missing", "unknown"]:
    where = bus.requests.api.consumer(bus.settings.namespace, consumer)
    try:
        answer = await bus.requests.ask(where, again=True, within_s=_ASK_S)
        return msgspec.json.decode(answer.data, type=_Consumer)
    except (NoAnswer, NotAllowed):
        return "unknown"
    except msgspec.DecodeError:  # an error, or nothing where nobody listens
        return "missing" if _NOT_FOUND in answer.data else "unknown"


async def _stored(bus: Bus, actor: str) -> int:
    """Return whether there is any handoff to an actor that has no consumer: 1 or 0."""
    with contextlib.suppress(BusError, TimeoutError):
        async with asyncio.timeout(_ASK_S):
            return int(await bus.log.last_sure(bus.subjects.for_actor("handoff", actor)) is not None)
    return 0
