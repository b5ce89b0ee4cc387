"""The stream and the consumers: made when missing, brought up to date when ours, refused when not ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import msgspec
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    Placement,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from baton_bus.errors import JetStreamOff, NoLeader, StreamMismatch, TooFewServers
from baton_bus.jetstream.requests import NoAnswer, Requests
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

REPLIES_IN_FLIGHT = 20_000
"""Replies unacked per merger, over all its processes: twice the largest fan-out, so a join never waits on it."""
_NO_PEERS = frozenset({10005, 10074})
"""`no suitable peers for placement`, and `replicas > 1 not supported in non-clustered mode`."""
_ELECTS = 10008
"""`JetStream system temporarily unavailable`: there is no leader now, and there may be one soon."""
_BEING_REMOVED = 10012
"""`could not create consumer`: one of the same name is being removed from the disk at this moment."""
_MADE_BY_ANOTHER = 10058
"""`stream name already in use with a different configuration`: another client was first; soon it can be looked at."""
_PASSING = frozenset({_ELECTS, _BEING_REMOVED, _MADE_BY_ANOTHER})
_SILENCE_S = 1.0
_ASK_AGAIN_S = 0.2
"""How long a question waits for its answer, and from then to the next time: all of them may be asked twice."""

_Answer = TypeVar("_Answer")


def stream_config(settings: Settings, subjects: Subjects) -> StreamConfig:
    """Return the log as a stream: nothing accepted is ever dropped, and a full log refuses new work."""
    return StreamConfig(
        name=settings.namespace,
        description="Baton's log: every handoff, reply, outcome and result",
        subjects=subjects.stored(),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=settings.replicas,
        placement=placement(settings),
        max_bytes=settings.max_bytes,
        allow_direct=True,
        allow_msg_ttl=True,
    )


def placement(settings: Settings) -> Placement | None:
    """Return where streams are to be made; None leaves it to the server."""
    if not settings.placement_cluster and not settings.tags:
        return None
    return Placement(cluster=settings.placement_cluster or None, tags=settings.tags or None)


async def ensure_stream(js: JetStreamContext, settings: Settings, subjects: Subjects) -> None:
    """Make the log's stream, or add what an existing one of ours lacks. Doing it twice changes nothing.

    Raises `StreamMismatch` when a stream of that name is something else, and as `ensure_made`.
    """
    found = await ensure_made(js, settings, stream_config(settings, subjects))
    if found.storage != StorageType.FILE:
        raise StreamMismatch(settings.namespace, "storage", found.storage, "file")
    if found.retention != RetentionPolicy.LIMITS:
        raise StreamMismatch(settings.namespace, "retention", found.retention, "limits")
    missing = [subject for subject in subjects.stored() if subject not in (found.subjects or [])]
    flags = ("allow_direct", "allow_msg_ttl")
    if missing or found.discard != DiscardPolicy.NEW or not all(getattr(found, flag) for flag in flags):
        if found.subjects and not any(subject.startswith(f"{settings.namespace}.") for subject in found.subjects):
            raise StreamMismatch(settings.namespace, "subjects", found.subjects, subjects.stored())
        mended = found.evolve(
            subjects=[*(found.subjects or []), *missing], discard=DiscardPolicy.NEW, **dict.fromkeys(flags, True)
        )
        found = (await _answered(settings, settings.namespace, lambda: js.update_stream(mended))).config
    await ensure_replicas(js, settings, found)


async def ensure_made(js: JetStreamContext, settings: Settings, wanted: StreamConfig) -> StreamConfig:
    """Make a stream if there is none of that name; return the configuration of the one there is.

    Raises `TooFewServers`, `JetStreamOff`, and `NoLeader` when the cluster has none for `patience_s`.
    """
    name = str(wanted.name)

    async def look_or_make() -> StreamInfo:
        try:
            return await js.stream_info(name)
        except NotFoundError:
            return await js.add_stream(wanted)

    return (await _answered(settings, name, look_or_make)).config


async def ensure_replicas(js: JetStreamContext, settings: Settings, found: StreamConfig) -> None:
    """Give a stream as many copies as the settings say, if it has fewer; the server makes them while it is used.

    Never fewer: the settings of one client must not take what others rely on. Raises as `ensure_made`.
    """
    if (found.num_replicas or 1) < settings.replicas:
        more = found.evolve(num_replicas=settings.replicas)
        await _answered(settings, str(found.name), lambda: js.update_stream(more))


async def _answered(settings: Settings, stream: str, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask until the cluster answers: while it elects a leader it is silent, or says that it is unavailable."""
    started = time.monotonic()
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                return await ask()
        except TimeoutError as error:
            silence: Exception = error
        except APIError as error:
            if error.err_code in _NO_PEERS:
                raise TooFewServers(stream, settings.replicas, _wanted(settings), str(error.description)) from error
            if isinstance(error, ServiceUnavailableError) and error.err_code not in _PASSING:
                raise JetStreamOff(settings.url) from error
            if error.err_code not in _PASSING:
                raise
            silence = error
        if time.monotonic() - started > settings.patience_s:
            raise NoLeader(settings.url, stream, time.monotonic() - started) from silence
        await asyncio.sleep(_ASK_AGAIN_S)


def _wanted(settings: Settings) -> str:
    cluster = f"cluster {settings.placement_cluster}" if settings.placement_cluster else ""
    tags = f"tags {', '.join(settings.tags)}" if settings.tags else ""
    return " and ".join(filter(None, (cluster, tags)))


async def ensure_consumer(
    js: JetStreamContext, settings: Settings, stream: str, name: str, filter_subject: str, max_ack_pending: int
) -> None:
    """Make a durable pull consumer, or bring its lease and bound up to date.

    `max_ack_pending` bounds the deliveries that all worker processes together hold. Deliveries are not
    limited by the broker: the worker counts attempts, and says in the log when it gives up. Raises as `ensure_made`.
    """
    config = ConsumerConfig(
        name=name,
        durable_name=name,
        filter_subject=filter_subject,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=settings.lease_s,
        max_ack_pending=max_ack_pending,
        max_deliver=-1,
    )
    await _answered(settings, stream, lambda: js.add_consumer(stream, config))


class _Info(msgspec.Struct):
    ts: datetime | None = None


async def clock_ahead_s(requests: Requests, settings: Settings) -> float:
    """Return how far the broker's clock is ahead of ours, in seconds; 0 when it does not say.

    The age of a delivery is told by the broker's timestamp: a worker whose clock is wrong must not take an old
    handoff for a fresh one.
    """
    try:
        answer = await requests.ask(f"$JS.API.STREAM.INFO.{settings.namespace}")
        info = msgspec.json.decode(answer.data, type=_Info)
    except (NoAnswer, msgspec.DecodeError):
        return 0.0
    return info.ts.timestamp() - time.time() if info.ts is not None else 0.0
