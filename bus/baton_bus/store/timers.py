"""Timers: messages that the broker publishes at a time to come, with every worker dead.

They have a stream of their own. A stream with message schedules cannot refuse new work when it is full
(`message scheduling cannot use discard new`), and the log must. A timer's body is the message that is to go into
the log; when it is due, any process that `baton_actors.clerk` runs in writes it there, create-only.

A stream with schedules takes rollups, whatever we ask for: the server sets `allow_rollup_hdrs` itself, when the stream
is made and at each update (2.15.1, tried), for `Nats-Schedule-Next: purge`. So whoever may publish to it may also purge
it with one header. Permissions keep clients from that: only workers may publish to `{ns}.timer.>` and `{ns}.due.>`.

Source: ADR-51, https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md
"""

from __future__ import annotations

import contextlib
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from baton_bus.errors import BadSchedule, NoStream, PublishRefused, ServerTooOld
from baton_bus.jetstream.gets import Gets, Stored, TooManySubjects
from baton_bus.jetstream.publisher import EXPECTED, Publisher
from baton_bus.jetstream.reader import EVERYTHING, Reader
from baton_bus.jetstream.requests import Requests
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects
from baton_schemas.wire.names import run_of_firing

from .removing import purge

KEPT_S = 7 * 24 * 3600
"""How long a message that is due waits for a process to take it, in seconds: a system that is down over a weekend."""
REPEATS_NEED = (2, 14)
"""The version of nats-server with schedules that repeat; 2.12 has those that fire once."""
_BAD_PATTERN = 10189
_AT = "@at "
_FIRINGS_BACK = 500
"""Sequences that are looked through for what came before the last: of a schedule beside many, some may be older."""
_EPOCH = datetime.fromtimestamp(0, UTC)


OfRuns = dict[str, list[Stored]]
"""Messages by the run that they are about."""


class Scheduled(Struct, frozen=True, kw_only=True):
    """A task that is to come: once, or again and again."""

    flow: str
    name: str
    cron: str
    """When, as it was given to `repeat`; empty for one that comes once."""
    body: bytes
    next_at: datetime | None
    """None for one that repeats and has not come yet: the broker says it with each task that it publishes."""
    last_at: datetime | None
    """When it came last; None also when that is more than `KEPT_S` ago."""
    last_seq: int = 0
    """Where that is in the stream of timers; 0 without one."""


class Firing(NamedTuple):
    """A task that came of a schedule."""

    at: datetime
    run: str
    """The run that it began."""


class Timers:
    """Sets, lists and cancels timers of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._js, self._requests, self._settings, self._subjects = js, requests, settings, subjects
        self.stream = f"{settings.namespace}-timers"
        self._publisher = Publisher(js._nc, requests, self.stream)
        self._gets = Gets(js._nc, requests, self.stream, settings.patience_s)
        self._reader = Reader(js._nc, requests, self._gets, settings.patience_s)
        self._made = False

    async def ensure(self) -> None:
        """Make the stream of timers if it is missing. Doing it twice changes nothing. Raises as `ensure_made`."""
        wanted = StreamConfig(
            name=self.stream,
            description="Baton's timers: what the broker is to publish, and what is due",
            subjects=self._subjects.timers(),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            num_replicas=self._settings.replicas,
            placement=placement(self._settings),
            allow_direct=True,
            allow_msg_schedules=True,
            allow_msg_ttl=True,
        )
        await ensure_replicas(self._js, self._settings, await ensure_made(self._js, self._settings, wanted))
        self._made = True

    async def at(self, who: str, run: str, step: str, due_s: float, body: bytes) -> None:
        """Have `body` become due at `due_s` (seconds of Unix time), unless the timer is set already.

        Raises the errors of `Publisher.create`.
        """
        await self._set(who, run, step, _at(due_s), body, {EXPECTED: "0"})

    async def once(self, flow: str, name: str, due_s: float, body: bytes) -> None:
        """Have a task become due at `due_s` (seconds of Unix time); replaces a schedule of that name.

        Raises the errors of `Publisher.create`.
        """
        await self._set("task", flow, name, _at(due_s), body, {})

    async def repeat(self, flow: str, name: str, cron: str, body: bytes) -> None:
        """Have a task become due again and again (`0 0 6 * * *`: seconds first, in UTC); replaces one of that name.

        Raises `BadSchedule` when the broker cannot read `cron`, `ServerTooOld`, and the errors of `Publisher.create`.
        """
        version = self._js._nc.connected_server_version
        if (version.major, version.minor) < REPEATS_NEED:
            raise ServerTooOld(f"{version.major}.{version.minor}.{version.patch}", ".".join(map(str, REPEATS_NEED)))
        if not cron.strip() or cron.strip().startswith(_AT.strip()):  # which the broker would take
            raise BadSchedule(cron)
        try:
            await self._set("task", flow, name, cron, body, {})
        except PublishRefused as error:
            if error.err_code == _BAD_PATTERN:
                raise BadSchedule(cron) from error
            raise

    async def list(self) -> tuple[Scheduled, ...]:
        """Return the tasks that are to come, by flow and name. Raises `BusUnavailable`."""
        pattern = self._subjects.timer("task", "*", "*")
        try:
            try:
                timers = await self._gets.matching_sure([pattern])
            except TooManySubjects:
                async with aclosing(self._reader.read(pattern)) as read:
                    timers = [*{each.subject: each async for each in read}.values()]
            came = await self._gets.matching_sure([self._due_of(timer.subject) for timer in timers])
        except NoStream:
            return ()
        last = {each.subject: each for each in came}
        timers.sort(key=lambda timer: timer.subject)
        return tuple(self._scheduled(timer, last.get(self._due_of(timer.subject))) for timer in timers)

    async def firings(self, schedule: Scheduled, count: int) -> tuple[Firing, ...]:
        """Return the last tasks that came of a schedule, the newest first, as far as they are kept (`KEPT_S`).

        Raises `BusUnavailable`.
        """
        if not schedule.last_seq:
            return ()
        subject = self._subjects.due("task", schedule.flow, schedule.name)
        first = max(schedule.last_seq - _FIRINGS_BACK, 1)
        try:
            found = await self._gets.batch(subject, first, _FIRINGS_BACK)
        except NoStream:
            return ()
        return tuple(Firing(each.at, run_of_firing(_ns(each.at), each.seq)) for each in reversed(found[-count:]))

    async def cancel(self, who: str, run: str, step: str) -> bool:
        """Remove a timer; False when there was none. One that was due a moment ago may still come.

        Asked again when an answer was lost, and then there is none: that counts as removed. Raises `BusUnavailable`,
        `NotAllowed`.
        """
        try:
            removed = await purge(
                self._requests, self.stream, self._subjects.timer(who, run, step), self._settings.patience_s
            )
        except NoStream:
            return False
        return removed.lost or removed.messages > 0

    async def of_runs(self) -> OfRuns:
        """Return what is set or due, by the run that it is about; schedules are about none. Raises `BusUnavailable`."""
        found: OfRuns = {}
        try:
            async with aclosing(self._reader.read(EVERYTHING)) as read:
                async for each in read:
                    parts = self._subjects.split(each.subject)
                    if parts.who != "task":
                        found.setdefault(parts.run, []).append(each)
        except NoStream:
            pass
        return found

    async def forget(self, subject: str) -> None:
        """Remove what is on a subject of this stream. Raises as `cancel`."""
        with contextlib.suppress(NoStream):
            await purge(self._requests, self.stream, subject, self._settings.patience_s)

    async def _set(self, who: str, run: str, step: str, when: str, body: bytes, headers: dict[str, str]) -> None:
        if not self._made:
            await self.ensure()
        headers = {
            "Nats-Schedule": when,
            "Nats-Schedule-Target": self._subjects.due(who, run, step),
            "Nats-Schedule-TTL": f"{KEPT_S}s",
            **headers,
        }
        subject = self._subjects.timer(who, run, step)
        try:
            await self._publisher.publish(subject, body, headers)
        except NoStream:  # deleted behind our back
            await self.ensure()
            await self._publisher.publish(subject, body, headers)

    def _due_of(self, timer: str) -> str:
        """Return where the broker publishes what the timer on this subject holds."""
        _, who, run, (step,) = self._subjects.split(timer)
        return self._subjects.due(who, run, step)

    def _scheduled(self, timer: Stored, came: Stored | None) -> Scheduled:
        """Return what a timer says, and what the last task that came of it says."""
        _, _, flow, (name,) = self._subjects.split(timer.subject)
        when, next_at = timer.headers.get("Nats-Schedule", ""), None
        if when.startswith(_AT):
            next_at = when.removeprefix(_AT)
        elif came is not None and came.seq > timer.seq:  # else another schedule had that name
            next_at = came.headers.get("Nats-Schedule-Next")
        return Scheduled(
            flow=flow,
            name=name,
            cron="" if when.startswith(_AT) else when,
            body=timer.data,
            next_at=datetime.fromisoformat(next_at) if next_at else None,
            last_at=came.at if came is not None else None,
            last_seq=came.seq if came is not None else 0,
        )


def _ns(at: datetime) -> int:
    """Return a time as nanoseconds of Unix time, as far as a `datetime` knows them."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1_000


def _at(due_s: float) -> str:
    return _AT + datetime.fromtimestamp(due_s, UTC).isoformat().replace("+00:00", "Z")
