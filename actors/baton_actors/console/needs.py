"""What people have to see to: looked up while somebody looks, and not more often than it may change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec import Struct

from baton_bus.client.dead import RejectedMessage, rejected_messages
from baton_bus.client.people import Waiting
from baton_bus.doctor.doctor import judge
from baton_bus.doctor.facts import Waiting as Waits
from baton_bus.doctor.findings import Finding
from baton_bus.doctor.vitals import read_vitals
from baton_bus.errors import BusError
from baton_bus.index import file as files
from baton_bus.index.errors import IndexUnusable
from baton_bus.index.failing import Failures, count_causes, failures
from baton_bus.index.forking import Fork, forks_of
from baton_bus.store.log import Log
from baton_schemas.errors import SchemaError
from baton_schemas.wire.facts import BUDGET
from baton_schemas.wire.names import retry_run

if TYPE_CHECKING:
    from .core import Console

FAILED_WITHIN = timedelta(days=7)
"""What failed before that is in the list of runs."""
_COUNT_EVERY_S = 1.0
_ASK_EVERY_S = 1.0
_EXAMINE_EVERY_S = 5.0
_SHARE = 4.0
"""And looking takes at most a fifth of the time."""
_CAUSES_MAX = 100
_RUNS_SHOWN = 20
"""Of a cause: its other runs are in the list of runs."""
_REJECTED_MAX = 20
_BYTES_SHOWN = 2_000

T = TypeVar("T")


class Rejected(Struct, frozen=True, kw_only=True):
    """A message that was rejected, with its bytes."""

    told: RejectedMessage
    text: str
    """What it says, as far as it is shown; empty when it is gone."""
    size_bytes: int


class Health(Struct, frozen=True, kw_only=True):
    """What the doctor says, as far as somebody has to do something."""

    findings: list[Finding]
    parked: list[Waits]
    """Steps that are parked for a budget, each run once."""


class Seen:
    """Which failures somebody has seen: kept beside the index, by cause, up to the last that was shown then."""

    def __init__(self, path: Path) -> None:
        """`path` is where they are kept."""
        self._path = path
        self._marks: dict[str, str] = {}
        self._read_at = -1.0

    def mark(self, cause: str, last: str) -> None:
        """Take the failures of a cause as seen up to a time. Raises `ValueError` for what is none."""
        datetime.fromisoformat(last).astimezone(UTC)
        self._look()
        self._marks[cause[:100]] = max(last, self._marks.get(cause, ""))
        oldest_last = sorted(self._marks.items(), key=lambda each: each[1])[-1_000:]
        self._marks = dict(oldest_last)
        written = self._path.with_suffix(f".{os.getpid()}")  # others may keep their consoles here too
        with contextlib.suppress(OSError):
            written.touch(mode=0o600)
            written.write_bytes(msgspec.json.encode(self._marks))
            written.replace(self._path)

    def has(self, cause: str, last: datetime) -> bool:
        """Say whether all failures of a cause were seen."""
        self._look()
        return self._marks.get(cause, "") >= stamp(last)

    def _look(self) -> None:
        """Read what is kept: another console may have kept more."""
        with contextlib.suppress(OSError, ValueError):
            changed = self._path.stat().st_mtime
            if changed != self._read_at:
                kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
                self._marks, self._read_at = kept, changed


def stamp(at: datetime) -> str:
    """Return a time as it is compared: as text, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


class _Kept(Generic[T]):
    """Something that is looked up again when it is old, by one of those who ask."""

    def __init__(self, look: Callable[[], Awaitable[T]], every_s: float) -> None:
        """It is as old as `every_s`, or more where looking it up takes long: that is not done all the time."""
        self._look, self._every_s, self._took_s = look, every_s, 0.0
        self._value: T | None = None
        self._at = -1e9
        self._task: asyncio.Task[T] | None = None

    async def value(self) -> T:
        """Return it, at most so old. Raises as looking it up does."""
        if self._value is not None and time.monotonic() - self._at < max(self._every_s, _SHARE * self._took_s):
            return self._value
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._looked())
            self._task.add_done_callback(_heard)  # who asked may have gone
        return await asyncio.shield(self._task)

    def forget(self) -> None:
        """Look it up anew the next time: somebody has changed it."""
        self._at, self._task = -1e9, None

    async def _looked(self) -> T:
        began = time.monotonic()
        value = await self._look()
        if self._task is asyncio.current_task():  # else it is of before it was changed
            self._value, self._at = value, time.monotonic()
            self._took_s = self._at - began
        return value


def _heard(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()


class Needs:
    """What waits for people, in a console."""

    def __init__(self, console: Console) -> None:
        """`console` has the index and the client."""
        self._console = console
        self.seen = Seen(console.options.index.with_suffix(".seen.json"))
        self._questions = _Kept(lambda: console.client.inbox(), _ASK_EVERY_S)
        self._rejected = _Kept(self._look_for_rejected, _EXAMINE_EVERY_S)
        self._health = _Kept(self._examine, _EXAMINE_EVERY_S)
        self._count, self._counted_at = 0, -1e9

    def count(self) -> int:
        """Return how many runs wait for people, and causes of failures nobody has seen: by the index, in no time."""
        if time.monotonic() - self._counted_at > _COUNT_EVERY_S:
            self._counted_at = time.monotonic()
            with contextlib.suppress(IndexUnusable, sqlite3.Error):
                self._count = self._counted()
        return self._count

    async def questions(self) -> list[Waiting]:
        """Return the questions to people, the one that is answered by itself first, then the oldest."""
        found = await self._questions.value()
        last = datetime.max.replace(tzinfo=UTC)
        return sorted(found, key=lambda each: (each.until or last, each.since))

    def answered(self) -> None:
        """A question was answered here, or a run may spend more: whoever looks is to see that at once."""
        self._questions.forget()
        self._health.forget()

    async def rejected(self) -> list[Rejected]:
        """Return the messages that were rejected last, with their bytes."""
        return await self._rejected.value()

    async def health(self) -> Health:
        """Return what the doctor says that needs somebody."""
        return await self._health.value()

    def causes(self, *, seen: bool = False) -> list[Failures] | None:
        """Return why runs failed lately that nobody has gone on from, and what nobody has seen of it; with `seen`, all.

        None while there is no index.
        """
        database = self._console.index.database
        if database is None:
            return None
        with files.told(self._console.index.path):
            since = datetime.now(UTC) - FAILED_WITHIN
            found = failures(database, since=since, limit=_CAUSES_MAX, runs=_RUNS_SHOWN, gone_on=seen)
        return [each for each in found if seen or not self.seen.has(each.cause.key, each.last_at)]

    def more_causes(self) -> int:
        """Return how many further causes there are of which `causes` says nothing, as they are too many."""
        database = self._console.index.database
        if database is None:
            return 0
        with files.told(self._console.index.path):
            return max(count_causes(database, datetime.now(UTC) - FAILED_WITHIN) - _CAUSES_MAX, 0)

    def retries(self, runs: Sequence[str]) -> dict[str, str]:
        """Return how the retry of each of these runs stands, of those that have one, as far as the index has it."""
        database = self._console.index.database
        if database is None or not runs:
            return {}
        of = {retry_run(run): run for run in runs}
        with files.told(self._console.index.path):
            question = "SELECT run, status FROM runs WHERE run IN (SELECT value FROM json_each(?))"
            asked = msgspec.json.encode(list(of)).decode()
            return {of[run]: status for run, status in database.execute(question, (asked,))}

    def forks(self, runs: Sequence[str]) -> dict[str, list[Fork]]:
        """Return the runs that go on from each of these, the newest first, as far as the index has them."""
        database = self._console.index.database
        if database is None or not runs:
            return {}
        with files.told(self._console.index.path):
            return forks_of(database, runs)

    def _counted(self) -> int:
        database = self._console.index.database
        if database is None:
            return 0
        with files.told(self._console.index.path):
            (asking,) = database.execute(
                "SELECT count(*) FROM runs WHERE status = 'running' AND asks_people"
            ).fetchone()
        return int(asking) + len(self.causes() or ()) + self.more_causes()

    async def _look_for_rejected(self) -> list[Rejected]:
        told = await rejected_messages(self._console.bus, _REJECTED_MAX)
        return await asyncio.gather(*(_with_bytes(self._console.bus.log, each) for each in told))

    async def _examine(self) -> Health:
        vitals = await read_vitals(self._console.bus)
        found = [each for each in judge(vitals, self._console.settings) if _needs_somebody(each)]
        parked = {each.run: each for each in vitals.waits if each.kind == BUDGET}
        return Health(
            findings=[each for each in found if "parked, as a budget is spent" not in each.says],
            parked=[parked[run] for run in sorted(parked)],
        )


def _needs_somebody(finding: Finding) -> bool:
    """Say whether something is lost, or stands still; what may be lost one day is on the page of the server."""
    stands_still = finding.level == "warning" and finding.what.startswith(("consumer ", "actor ", "timers"))
    return finding.level == "error" or stands_still


async def _with_bytes(log: Log, told: RejectedMessage) -> Rejected:
    data = b""
    with contextlib.suppress(BusError, SchemaError):
        entry = await log.at(told.seq) if told.subject else None
        data = entry.data if entry is not None else b""
    return Rejected(told=told, text=data[:_BYTES_SHOWN].decode(errors="replace"), size_bytes=len(data))
