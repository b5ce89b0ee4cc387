"""The stream and the consumers: made when missing, brought up to date when ours, refused when not ours."""

from __future__ import annotations

import time
from datetime import datetime

import msgspec
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError, ServiceUnavailableError

from .errors import JetStreamOff, StreamMismatch
from .requests import NoAnswer, Requests
from .settings import Settings
from .subjects import Subjects

REPLIES_IN_FLIGHT = 20_000
"""Replies unacked per merger, over all its processes: twice the largest fan-out, so a join never waits on it."""


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
        max_bytes=settings.max_bytes,
        allow_direct=True,
        allow_msg_ttl=True,
    )


async def ensure_stream(js: JetStreamContext, settings: Settings, subjects: Subjects) -> None:
    """Make the log's stream, or add what an existing one of ours lacks. Doing it twice changes nothing.

    Raises `StreamMismatch` when a stream of that name is something else, `JetStreamOff`.
    """
    wanted = stream_config(settings, subjects)
    try:
        found = (await js.stream_info(settings.namespace)).config
    except NotFoundError:
        await js.add_stream(wanted)
        return
    except ServiceUnavailableError as error:
        raise JetStreamOff(settings.url) from error
    if found.storage != StorageType.FILE:
        raise StreamMismatch(settings.namespace, "storage", found.storage, "file")
    if found.retention != RetentionPolicy.LIMITS:
        raise StreamMismatch(settings.namespace, "retention", found.retention, "limits")
    missing = [subject for subject in subjects.stored() if subject not in (found.subjects or [])]
    flags = ("allow_direct", "allow_msg_ttl")
    if missing or found.discard != DiscardPolicy.NEW or not all(getattr(found, flag) for flag in flags):
        if found.subjects and not any(subject.startswith(f"{settings.namespace}.") for subject in found.subjects):
            raise StreamMismatch(settings.namespace, "subjects", found.subjects, subjects.stored())
        await js.update_stream(
            found.evolve(
                subjects=[*(found.subjects or []), *missing],
                discard=DiscardPolicy.NEW,
                **dict.fromkeys(flags, True),
            )
        )


async def ensure_consumer(
    js: JetStreamContext, stream: str, name: str, filter_subject: str, lease_s: float, max_ack_pending: int
) -> None:
    """Make a durable pull consumer, or bring its lease and bound up to date.

    `max_ack_pending` bounds the deliveries that all worker processes together hold. Deliveries are not
    limited by the broker: the worker counts attempts, and says in the log when it gives up.
    """
    await js.add_consumer(
        stream,
        ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=filter_subject,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=lease_s,
            max_ack_pending=max_ack_pending,
            max_deliver=-1,
        ),
    )


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
