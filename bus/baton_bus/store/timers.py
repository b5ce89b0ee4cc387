"""Timers: messages that the broker publishes at a time to come, with every worker dead.

They have a stream of their own. A stream with message schedules cannot refuse new work when it is full
(`message scheduling cannot use discard new`), and the log must. A timer's body is the message that is to go into
the log; when it is due, any process that `baton_actors.clerk` runs in writes it there, create-only.

Source: ADR-51, https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from baton_bus.errors import BadSchedule, BusUnavailable, NoStream, PublishRefused, ServerTooOld
from baton_bus.jetstream.publisher import EXPECTED, Publisher
from baton_bus.jetstream.requests import NoAnswer, Requests
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

KEPT_S = 7 * 24 * 3600
"""How long a message that is due waits for a process to take it, in seconds: a system that is down over a weekend."""
REPEATS_NEED = (2, 14)
"""The version of nats-server with schedules that repeat; 2.12 has those that fire once."""
_BAD_PATTERN = 10189
_AT = "@at "
_READ_AT_ONCE = 30
"""Schedules read in one request: each is two messages of mostly up to 1 MiB, and an answer is cut short at 64 MiB."""


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


class Timers:
    """Sets, lists and cancels timers of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._js, self._requests, self._settings, self._subjects = js, requests, settings, subjects
        self.stream = f"{settings.namespace}-timers"
        self._publisher = Publisher(js._nc, requests, self.stream)
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
            allow_rollup_hdrs=True,
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
            if error.code == _BAD_PATTERN:
                raise BadSchedule(cron) from error
            raise

    async def list(self) -> tuple[Scheduled, ...]:
        """Return the tasks that are to come, by flow and name. Raises `BusUnavailable`."""
        try:
            info = await self._js.stream_info(self.stream, subjects_filter=self._subjects.timer("task", "*", "*"))
        except NotFoundError:
            return ()
        except (APIError, NatsError) as error:
            raise BusUnavailable("read the schedules", self._settings.request_timeout_s) from error
        subjects = sorted(info.state.subjects or {})
        found: dict[str, Msg] = {}
        for start in range(0, len(subjects), _READ_AT_ONCE):
            timers = subjects[start : start + _READ_AT_ONCE]
            found |= await self._last([*timers, *map(self._due_of, timers)])
        return tuple(self._scheduled(found[subject], found) for subject in subjects if subject in found)

    async def cancel(self, who: str, run: str, step: str) -> bool:
        """Remove a timer; False when there was none. One that was due a moment ago may still come."""
        query = msgspec.json.encode({"filter": self._subjects.timer(who, run, step)})
        for _ in range(3):
            try:
                answer = await self._requests.ask(f"$JS.API.STREAM.PURGE.{self.stream}", query)
            except NoAnswer:
                continue
            return bool(answer.data) and bool(msgspec.json.decode(answer.data).get("purged"))
        return False

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

    async def _last(self, subjects: Sequence[str]) -> dict[str, Msg]:
        """Return the last message on each of these subjects, as far as there is one, by its subject."""
        query = msgspec.json.encode({"multi_last": subjects})
        try:
            *answers, _ = await self._requests.collect(f"$JS.API.DIRECT.GET.{self.stream}", query)
        except NoAnswer as error:
            raise BusUnavailable("read the schedules", self._settings.request_timeout_s) from error
        return {(answer.headers or {})["Nats-Subject"]: answer for answer in answers}

    def _due_of(self, timer: str) -> str:
        """Return where the broker publishes what the timer on this subject holds."""
        _, who, run, (step,) = self._subjects.split(timer)
        return self._subjects.due(who, run, step)

    def _scheduled(self, timer: Msg, found: Mapping[str, Msg]) -> Scheduled:
        """Return what a timer says, and what the last task that came of it says."""
        headers = timer.headers or {}
        _, _, flow, (name,) = self._subjects.split(headers["Nats-Subject"])
        last = found.get(self._due_of(headers["Nats-Subject"]))
        came = (last.headers or {}) if last is not None else {}
        when, next_at = headers.get("Nats-Schedule", ""), None
        if when.startswith(_AT):
            next_at = when.removeprefix(_AT)
        elif came and int(came["Nats-Sequence"]) > int(headers["Nats-Sequence"]):  # else another schedule had that name
            next_at = came.get("Nats-Schedule-Next")
        return Scheduled(
            flow=flow,
            name=name,
            cron="" if when.startswith(_AT) else when,
            body=timer.data,
            next_at=datetime.fromisoformat(next_at) if next_at else None,
            last_at=datetime.fromisoformat(came["Nats-Time-Stamp"]) if came else None,
        )


def _at(due_s: float) -> str:
    return _AT + datetime.fromtimestamp(due_s, UTC).isoformat().replace("+00:00", "Z")
