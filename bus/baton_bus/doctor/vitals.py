"""What a server says of itself: the facts that `doctor` judges. It reads them and changes nothing."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from baton_bus.doctor.monitor import Monitor, NoMonitor, read_monitor
from baton_bus.engine.bus import Bus
from baton_bus.errors import BusUnavailable
from baton_bus.jetstream.requests import NoAnswer, Requests

SILENT_S = 4.0
"""A follower that its leader has not heard for so long counts as down: the shortest time after which it would itself
call for an election. They are heard every second."""
_TRIES = 2
"""Each takes `request_timeout_s`, 5 s, and an election up to 9 s."""
_SILENCE_S = 3.5
"""How long what may have no server left is waited for, so that the rest is said soon."""
_SECONDS = 1e9
"""Durations are in nanoseconds on the wire."""


class Placement(Struct, frozen=True):
    """Where a stream was to be made."""

    cluster: str = ""
    tags: list[str] = field(default_factory=list)


class StreamConfig(Struct, frozen=True):
    """The part of a stream's configuration that decides what can be lost; -1 and 0 are no limit."""

    num_replicas: int = 1
    discard: str = "old"
    max_bytes: int = -1
    max_msgs: int = -1
    max_msgs_per_subject: int = -1
    max_msg_size: int = -1
    max_age: int = 0
    """In nanoseconds."""
    placement: Placement | None = None
    sealed: bool = False
    persist_mode: str = "default"

    @property
    def max_age_s(self) -> float:
        """The same in seconds."""
        return self.max_age / _SECONDS


class StreamState(Struct, frozen=True):
    """What is in a stream."""

    messages: int = 0
    bytes: int = 0
    first_ts: datetime | None = None
    consumer_count: int = 0
    subjects: dict[str, int] = field(default_factory=dict)
    """Messages by subject, of those that were asked about."""


class Peer(Struct, frozen=True):
    """A server that follows the leader of a stream."""

    name: str = ""
    current: bool = False
    offline: bool = False
    lag: int = 0
    active: int = 0
    """Nanoseconds since the leader heard from it; 0 too when it never did since it leads."""

    @property
    def is_up(self) -> bool:
        """Whether the leader hears from it."""
        heard = self.current or self.active > 0
        return heard and not self.offline and self.active < SILENT_S * _SECONDS


class Replicas(Struct, frozen=True):
    """Who holds the copies. Without a cluster there is a leader only, and no `name`."""

    name: str = ""
    leader: str = ""
    replicas: list[Peer] = field(default_factory=list)


class Stream(Struct, frozen=True):
    """One of our streams."""

    config: StreamConfig
    state: StreamState
    cluster: Replicas = Replicas()
    ts: datetime | None = None
    """The broker's time."""


class Position(Struct, frozen=True):
    """How far a consumer has come."""

    stream_seq: int = 0
    last_active: datetime | None = None


class ConsumerConfig(Struct, frozen=True):
    """The part of a consumer's configuration that decides how its messages are handed out."""

    durable_name: str = ""
    ack_wait: int = 0
    """In nanoseconds."""
    max_deliver: int = -1
    max_ack_pending: int = -1

    @property
    def lease_s(self) -> float:
        """The same in seconds."""
        return self.ack_wait / _SECONDS


class Consumer(Struct, frozen=True):
    """One of our consumers, or one that reads."""

    name: str
    config: ConsumerConfig
    delivered: Position = Position()
    ack_floor: Position = Position()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    ts: datetime | None = None
    """The broker's time."""


class Limits(Struct, frozen=True):
    """What the account may take; -1 is no limit."""

    max_storage: int = -1
    max_consumers: int = -1


class Account(Struct, frozen=True):
    """What the account has taken. With limits by replicas (`tiers`, as `R3`), what counts is in there."""

    storage: int = 0
    limits: Limits = Limits()
    tiers: dict[str, Account] = field(default_factory=dict)


class Vitals(Struct, frozen=True, kw_only=True):
    """All that is judged."""

    version: tuple[int, int, int]
    max_payload: int
    clock_ahead_s: float
    account: Account
    log: Stream
    timers: Stream | None
    blobs: Stream | None
    consumers: list[Consumer]
    """Of the log."""
    due: Consumer | None
    """Takes what is due out of the stream of timers."""
    monitor: Monitor | NoMonitor | None = None
    """None when nobody asked."""
    silent: tuple[str, ...] = ()
    """What does not answer though it exists: no server that has a copy of it is up, or they elect a leader."""


class _Error(Struct, frozen=True):
    description: str = ""


class _Envelope(Struct, frozen=True):
    error: _Error | None = None


class _Page(Struct, frozen=True):
    total: int = 0
    consumers: list[Consumer] = field(default_factory=list)


_Answer = TypeVar("_Answer", bound=Struct)


async def read_vitals(bus: Bus, monitor_url: str = "") -> Vitals:
    """Read the facts. Raises `BusUnavailable`; a monitoring port that does not answer is a fact like any other."""
    ask, names = _Asking(bus._requests), bus.settings
    version = bus.nc.connected_server_version
    due = bus.subjects.due("*", "*", "*")
    timers = await ask.if_answered("the timers", f"STREAM.INFO.{bus.timers.stream}", Stream, {"subjects_filter": due})
    log = await ask.needed(f"STREAM.INFO.{names.namespace}", Stream)
    clock_ahead_s = log.ts.timestamp() - time.time() if log.ts else 0.0
    return Vitals(
        version=(version.major, version.minor, version.patch),
        max_payload=bus.nc.max_payload,
        clock_ahead_s=clock_ahead_s,
        account=await ask.needed("INFO", Account),
        log=log,
        timers=timers,
        blobs=await ask.if_answered("the blobs", f"STREAM.INFO.{bus.blobs.stream}", Stream),
        consumers=await ask.consumers(names.namespace),
        due=await ask.optional(f"CONSUMER.INFO.{bus.timers.stream}.due", Consumer) if timers else None,
        monitor=await read_monitor(monitor_url) if monitor_url else None,
        silent=tuple(ask.silent),
    )


class _Asking:
    """Asks the JetStream API."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.silent: list[str] = []

    async def if_answered(
        self, name: str, what: str, kind: type[_Answer], query: dict[str, Any] | None = None
    ) -> _Answer | None:
        """Return the answer, or None when there is none, which is then noted under `name`."""
        try:
            async with asyncio.timeout(_SILENCE_S):
                return await self.optional(what, kind, query)
        except (BusUnavailable, TimeoutError):
            self.silent.append(name)
            return None

    async def needed(self, what: str, kind: type[_Answer], query: dict[str, Any] | None = None) -> _Answer:
        answer = await self.optional(what, kind, query)
        if answer is None:
            raise BusUnavailable(f"a question about {what}", 0.0)
        return answer

    async def optional(self, what: str, kind: type[_Answer], query: dict[str, Any] | None = None) -> _Answer | None:
        """Return the answer, or None when there is no such thing."""
        started = asyncio.get_running_loop().time()
        for _ in range(_TRIES):
            try:
                data = (await self._requests.ask(f"$JS.API.{what}", msgspec.json.encode(query or {}), again=True)).data
            except NoAnswer:
                continue
            if msgspec.json.decode(data, type=_Envelope).error is not None:
                return None
            return msgspec.json.decode(data, type=kind)
        raise BusUnavailable(f"a question about {what}", asyncio.get_running_loop().time() - started)

    async def consumers(self, stream: str) -> list[Consumer]:
        found: list[Consumer] = []
        while True:
            page = await self.needed(f"CONSUMER.LIST.{stream}", _Page, {"offset": len(found)})
            found += page.consumers
            if not page.consumers or len(found) >= page.total:
                return found
