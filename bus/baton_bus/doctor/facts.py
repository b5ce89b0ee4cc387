"""The facts that the doctor judges, as the server tells them: streams, consumers, the account. Only what counts."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from baton_bus.doctor.monitor import Monitor, NoMonitor
from baton_bus.jetstream.streams import Lack

SILENT_S = 4.0
"""A follower that its leader has not heard for so long counts as down: the shortest time after which it would itself
call for an election. They are heard every second."""
_SECONDS = 1e9
"""Durations are in nanoseconds on the wire."""


class Placement(Struct, frozen=True):
    """Where a stream was to be made."""

    cluster: str = ""
    tags: list[str] = field(default_factory=list)


class Republish(Struct, frozen=True):
    """What is said again on another subject once it is stored."""

    src: str = ""
    dest: str = ""


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
    subjects: list[str] = field(default_factory=list)
    max_consumers: int = -1
    allow_direct: bool = False
    allow_rollup_hdrs: bool = False
    allow_msg_schedules: bool = False
    allow_msg_counter: bool = False
    republish: Republish | None = None
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
    consumer_seq: int = 0
    """Counts what was handed out, again or not."""
    last_active: datetime | None = None


class ConsumerConfig(Struct, frozen=True):
    """The part of a consumer's configuration that decides how its messages are handed out."""

    durable_name: str = ""
    ack_wait: int = 0
    """In nanoseconds."""
    max_deliver: int = -1
    max_ack_pending: int = -1
    filter_subject: str = ""

    @property
    def lease_s(self) -> float:
        """The same in seconds."""
        return self.ack_wait / _SECONDS


class Consumer(Struct, frozen=True):
    """One of our consumers, or one that reads."""

    stream_name: str
    name: str
    config: ConsumerConfig
    delivered: Position = Position()
    ack_floor: Position = Position()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    paused: bool = False
    pause_remaining: int = 0
    """In nanoseconds."""
    created: datetime | None = None
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


class Waiting(Struct, frozen=True, kw_only=True):
    """A step that waits for something outside."""

    actor: str
    """As in the subject of the handoff."""
    flow: str
    run: str
    step: str
    what: str
    """What it waits for: `a worker that has './news.py:write'`."""
    kind: str
    """As in the note: `handler`, `provider` or `budget`."""


class Newer(Struct, frozen=True, kw_only=True):
    """A message of a later version: the workers of this release give it back."""

    consumer: str
    seq: int
    version: int


class Vitals(Struct, frozen=True, kw_only=True):
    """All that is judged."""

    version: tuple[int, int, int]
    max_payload: int
    clock_ahead_s: float
    account: Account | None
    log: Stream | None
    """None when there is no such stream, or it is `silent`."""
    timers: Stream | None
    blobs: Stream | None
    consumers: list[Consumer]
    """Of the log."""
    due: Consumer | None
    """Takes what is due out of the stream of timers."""
    counters: Stream | None = None
    """None too where nothing was spent of a budget yet."""
    monitor: Monitor | NoMonitor | None = None
    """None when nobody asked."""
    overdue_s: float | None = None
    """How long ago the timer that is the most late should have fired, of the oldest; None when none is late."""
    others: tuple[str, ...] = ()
    """The namespaces that have a log, when this one has none."""
    waits: tuple[Waiting, ...] = ()
    """Steps that wait for something outside, as notes in the log say."""
    newer: tuple[Newer, ...] = ()
    """The first such message of each consumer."""
    lacks: tuple[Lack, ...] = ()
    """What the log lacks of what this release would make."""
    mismatch: str = ""
    """Why the log's stream is none of ours, if it is not."""
    withheld: tuple[str, ...] = ()
    """What this user may not ask."""
    silent: tuple[str, ...] = ()
    """What does not answer though it exists: no server that has a copy of it is up, or they elect a leader."""
