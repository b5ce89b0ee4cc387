"""The stream and the consumers: made when missing, brought up to date when ours, refused when not ours."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from typing import NamedTuple

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    Placement,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from baton_bus.errors import NoStream, NotImported, StreamMismatch
from baton_bus.jetstream.asking import BEING_REMOVED, SILENCE_S, answered
from baton_bus.jetstream.nats_client import api_of
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

REPLIES_IN_FLIGHT = 20_000
"""Replies unacked per merger, over all its processes: twice the largest fan-out, so a join never waits on it."""
_HINTS = 5
"""Namespaces that are named where there is none of the name that was given: one of them is likely meant."""
_DESCRIPTION = "Baton's log: every handoff, reply, outcome and result"


class Lack(NamedTuple):
    """A field of the log's stream that is not as the log needs it, and that an update mends."""

    field: str
    found: object
    needed: object


def stream_config(settings: Settings, subjects: Subjects) -> StreamConfig:
    """Return the log as a stream: nothing accepted is ever dropped, and a full log refuses new work."""
    return StreamConfig(
        name=settings.namespace,
        description=_DESCRIPTION,
        subjects=subjects.stored(),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=settings.replicas,
        placement=placement(settings),
        max_bytes=settings.max_bytes,
        allow_direct=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=False,  # or any client could purge what others wrote
        republish=RePublish(*subjects.republished()),
    )


def placement(settings: Settings) -> Placement | None:
    """Return where streams are to be made; None leaves it to the server."""
    if not settings.placement_cluster and not settings.tags:
        return None
    return Placement(cluster=settings.placement_cluster or None, tags=settings.tags or None)


async def ensure_stream(
    js: JetStreamContext, settings: Settings, subjects: Subjects, *, mend: bool = True
) -> tuple[Lack, ...]:
    """Make the log's stream, or add what an existing one of ours lacks. Doing it twice changes nothing.

    Without `mend` nothing is made or changed, nor in an account that has imported no more than to look. Returns what
    was, or would be, changed in an existing stream. Raises `StreamMismatch` when a stream of that name is something
    else, `NoStream` when there is none and none is to be made, and as `ensure_made`.
    """
    wanted = stream_config(settings, subjects)
    try:
        found = await (ensure_made(js, settings, wanted) if mend else _look(js, settings))
    except NotImported as error:
        raise NoStream(settings.namespace) from error
    lacks = _lacks(found, wanted, settings)
    if lacks and mend:
        mended = found.evolve(
            subjects=[*(found.subjects or []), *_missing(found, wanted)],
            discard=wanted.discard,
            allow_direct=True,
            allow_msg_ttl=True,
            allow_rollup_hdrs=False,
            republish=found.republish or wanted.republish,
        )
        found = await _changed(js, settings, found, mended)
    if mend:
        await ensure_replicas(js, settings, found)
    return lacks


async def _changed(js: JetStreamContext, settings: Settings, found: StreamConfig, wanted: StreamConfig) -> StreamConfig:
    """Change a stream, and return how it is then: as it was, in an account that has not imported such questions.

    Who uses one only for what it may leaves the rest to others. Raises as `ensure_made`.
    """
    name = str(wanted.name)
    try:
        subject = api_of(js).update(name)
        return (await answered(js, settings, name, lambda: js.update_stream(wanted), subject)).config
    except NotImported:
        return found


async def _look(js: JetStreamContext, settings: Settings) -> StreamConfig:
    """Return the log's configuration; when there is no log, say which others there are. Raises `NoStream`."""

    async def look() -> StreamConfig | None:
        try:
            return (await js.stream_info(settings.namespace)).config
        except NotFoundError:
            return None

    found = await answered(js, settings, settings.namespace, look)
    if found is None:
        raise NoStream(settings.namespace, await _namespaces(js, settings.namespace))
    return found


async def _namespaces(js: JetStreamContext, wanted: str) -> list[str]:
    """Return namespaces that have a log here, the one most like it first, as a hint: none when that cannot be asked."""
    names: list[str] = []
    seen = 0
    with contextlib.suppress(NatsError, TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            while page := await js.streams_info(offset=seen):  # 256 at a time
                names += [str(info.config.name) for info in page if info.config.description == _DESCRIPTION]
                seen += len(page)
    return difflib.get_close_matches(wanted, names, n=_HINTS, cutoff=0.0)


def _lacks(found: StreamConfig, wanted: StreamConfig, settings: Settings) -> tuple[Lack, ...]:
    """Return what an update of the stream would mend. Raises `StreamMismatch` for what it cannot."""
    if found.storage != StorageType.FILE:
        raise StreamMismatch(settings.namespace, "storage", found.storage, "file")
    if found.retention != RetentionPolicy.LIMITS:
        raise StreamMismatch(settings.namespace, "retention", found.retention, "limits")
    lacks: list[Lack] = []
    if missing := _missing(found, wanted):
        if found.subjects and not any(subject.startswith(f"{settings.namespace}.") for subject in found.subjects):
            raise StreamMismatch(settings.namespace, "subjects", found.subjects, wanted.subjects)
        lacks.append(Lack("subjects", found.subjects, missing))
    fields = ("discard", "allow_direct", "allow_msg_ttl", "allow_rollup_hdrs")
    both = [(field, getattr(found, field), getattr(wanted, field)) for field in fields]
    lacks += [Lack(field, has, needs) for field, has, needs in both if has != needs]
    if found.republish is None:
        lacks.append(Lack("republish", None, _pair(wanted.republish)))
    elif _pair(found.republish) != _pair(wanted.republish):
        # Somebody listens to that: taking it away is not for us.
        raise StreamMismatch(settings.namespace, "republish", _pair(found.republish), _pair(wanted.republish))
    return tuple(lacks)


def _missing(found: StreamConfig, wanted: StreamConfig) -> list[str]:
    return [subject for subject in wanted.subjects or [] if subject not in (found.subjects or [])]


def _pair(republish: RePublish | None) -> tuple[str | None, str | None] | None:
    return None if republish is None else (republish.src, republish.dest)


async def ensure_made(js: JetStreamContext, settings: Settings, wanted: StreamConfig) -> StreamConfig:
    """Make a stream if there is none of that name; return the configuration of the one there is.

    Raises `TooFewServers`, `AccountFull`, `NotAllowed` (`NotImported`), `JetStreamOff`, `StreamRefused`, and
    `NoLeader` when the cluster has none for `patience_s`.
    """
    name = str(wanted.name)

    async def look_or_make() -> StreamInfo:
        try:
            return await js.stream_info(name)
        except NotFoundError:
            return await js.add_stream(wanted)

    return (await answered(js, settings, name, look_or_make, api_of(js).create(name))).config


async def ensure_replicas(js: JetStreamContext, settings: Settings, found: StreamConfig) -> None:
    """Give a stream as many copies as the settings say, if it has fewer; the server makes them while it is used.

    Never fewer: the settings of one client must not take what others rely on. Raises as `ensure_made`.
    """
    if (found.num_replicas or 1) < settings.replicas:
        more = found.evolve(num_replicas=settings.replicas)
        await _changed(js, settings, found, more)


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

    async def make() -> None:
        try:
            await js.add_consumer(stream, config)
        except APIError as error:
            if error.err_code != BEING_REMOVED or not await _is_there(js, stream, config):
                raise

    subject = api_of(js).make_consumer(stream, name)
    await answered(js, settings, stream, make, subject)


async def _is_there(js: JetStreamContext, stream: str, wanted: ConsumerConfig) -> bool:
    """Say whether a consumer works as it is wanted.

    When one is made while its namesake is being removed, the server may take its files away with the other's: it works,
    and cannot be written any more.
    """
    try:
        found = (await js.consumer_info(stream, str(wanted.name))).config
    except NotFoundError:
        return False
    return (found.filter_subject, found.ack_wait, found.max_ack_pending) == (
        wanted.filter_subject,
        wanted.ack_wait,
        wanted.max_ack_pending,
    )
