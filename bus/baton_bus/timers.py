"""Timers: messages that the broker publishes at a time to come, with every worker dead.

They have a stream of their own. A stream with message schedules cannot refuse new work when it is full
(`message scheduling cannot use discard new`), and the log must. A timer's body is the message that is to go into
the log; when it is due, any process that `baton_actors.clerk` runs in writes it there, create-only.

Source: ADR-51, https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-51.md
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from .errors import BadSchedule, PublishRefused
from .publisher import EXPECTED, Publisher
from .requests import NoAnswer, Requests
from .settings import Settings
from .subjects import Subjects

KEPT_S = 7 * 24 * 3600
"""How long a message that is due waits for a process to take it, in seconds: a system that is down over a weekend."""
_BAD_PATTERN = 10189


class Timers:
    """Sets and cancels timers of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._js, self._requests, self._settings, self._subjects = js, requests, settings, subjects
        self.stream = f"{settings.namespace}-timers"
        self._publisher = Publisher(js._nc, requests, self.stream)
        self._made = False

    async def ensure(self) -> None:
        """Make the stream of timers if it is missing. Doing it twice changes nothing."""
        if self._made:
            return
        try:
            await self._js.stream_info(self.stream)
        except NotFoundError:
            await self._js.add_stream(
                StreamConfig(
                    name=self.stream,
                    description="Baton's timers: what the broker is to publish, and what is due",
                    subjects=self._subjects.timers(),
                    retention=RetentionPolicy.LIMITS,
                    storage=StorageType.FILE,
                    num_replicas=self._settings.replicas,
                    allow_direct=True,
                    allow_msg_schedules=True,
                    allow_msg_ttl=True,
                    allow_rollup_hdrs=True,
                )
            )
        self._made = True

    async def at(self, who: str, run: str, step: str, due_s: float, body: bytes) -> None:
        """Have `body` become due at `due_s` (seconds of Unix time), unless the timer is set already.

        Raises the errors of `Publisher.create`.
        """
        when = datetime.fromtimestamp(due_s, UTC).isoformat().replace("+00:00", "Z")
        await self._set(who, run, step, f"@at {when}", body, {EXPECTED: "0"})

    async def repeat(self, flow: str, name: str, cron: str, body: bytes) -> None:
        """Have `body` become due again and again (`0 0 6 * * *`: seconds first); replaces one of that name.

        Raises `BadSchedule` when the broker cannot read `cron`, and the errors of `Publisher.create`.
        """
        try:
            await self._set("task", flow, name, cron, body, {})
        except PublishRefused as error:
            if error.code == _BAD_PATTERN:
                raise BadSchedule(cron) from error
            raise

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
        await self.ensure()
        headers = {
            "Nats-Schedule": when,
            "Nats-Schedule-Target": self._subjects.due(who, run, step),
            "Nats-Schedule-TTL": f"{KEPT_S}s",
            **headers,
        }
        await self._publisher.publish(self._subjects.timer(who, run, step), body, headers)
