"""Queues: what waits for each actor, what is in hand, how old the oldest is, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from baton_bus.doctor.facts import Consumer
from baton_bus.doctor.findings import Finding
from baton_bus.doctor.waiting import is_down, judge_consumer
from baton_bus.jetstream.gets import Stored
from baton_bus.settings import Settings
from baton_bus.store.bus import Bus

_HANDOFFS, _REPLIES = "handoff", "reply"


class Queue(Struct, frozen=True, kw_only=True):
    """What waits for an actor, or for a service."""

    name: str
    """Of the consumer."""
    kind: str
    """`handoff` and `reply` are of actors; others of services."""
    actor: str
    waiting: int
    in_hand: int
    in_hand_max: int
    """How many may be; -1 for no bound."""
    redelivered: int
    asking: int
    """How many requests for work wait here: none, and there is no process, or all are busy."""
    down: bool
    """Nobody asks for work, and nobody has any."""
    handed_out: int
    """How many were handed out in all, again or not."""
    after_seq: int
    """What waits comes after this in the log."""
    subject: str
    at: datetime | None
    """When the server said so."""
    says: tuple[Finding, ...]
    """What is not well with it."""


class Held(Struct, frozen=True, kw_only=True):
    """A message that waits for an actor."""

    seq: int
    run: str
    step: str
    since: datetime


def queues_of(consumers: Sequence[Consumer], settings: Settings) -> list[Queue]:
    """Return the queues of these consumers: of actors by name, handoffs first, then of services. Pure."""
    found = [_queue(each, settings) for each in consumers if each.config.durable_name]
    return sorted(found, key=lambda queue: (queue.kind not in (_HANDOFFS, _REPLIES), queue.actor, queue.kind))


async def oldest_of(bus: Bus, queue: Queue) -> datetime | None:
    """Return when the oldest that waits was stored; None when none does. Raises `BusUnavailable`, `NoStream`."""
    if not queue.waiting or not queue.subject:
        return None
    found = await bus.log.raw_some(queue.subject, queue.after_seq + 1, 1)
    return found[0].at if found else None


async def held_in(bus: Bus, queue: Queue, limit: int) -> list[Held]:
    """Return the first messages that wait in a queue, the oldest first. Raises `BusUnavailable`, `NoStream`."""
    if not queue.waiting or not queue.subject:
        return []
    found = await bus.log.raw_some(queue.subject, queue.after_seq + 1, min(limit, queue.waiting))
    return [_held(bus, each) for each in found]


def start_command(actor: str) -> str:
    """Return the command that starts an actor: its name is that of its flow and that of an agent."""
    flow, _, agent = actor.partition("--")
    return f"baton actor {flow} {agent}" if agent else f"baton up {flow}"


def _queue(consumer: Consumer, settings: Settings) -> Queue:
    kind, _, who = consumer.name.partition("-")
    return Queue(
        name=consumer.name,
        kind=kind,
        actor=who,
        waiting=consumer.num_pending,
        in_hand=consumer.num_ack_pending,
        in_hand_max=consumer.config.max_ack_pending,
        redelivered=consumer.num_redelivered,
        asking=consumer.num_waiting,
        down=is_down(consumer),
        handed_out=consumer.delivered.consumer_seq,
        after_seq=consumer.delivered.stream_seq,
        subject=consumer.config.filter_subject,
        at=consumer.ts,
        says=tuple(judge_consumer(consumer, settings)),
    )


def _held(bus: Bus, stored: Stored) -> Held:
    parts = bus.subjects.split(stored.subject)
    return Held(seq=stored.seq, run=parts.run, step=next(iter(parts.rest), ""), since=stored.at)
