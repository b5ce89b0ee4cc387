"""What a server says of itself: asks for the facts that the doctor judges. It makes and changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from baton_bus.doctor.facts import Account, Consumer, Stream, Vitals
from baton_bus.doctor.monitor import read_monitor
from baton_bus.doctor.waits import read_newer, read_waits
from baton_bus.errors import BusError, BusUnavailable, NotAllowed, StreamMismatch
from baton_bus.jetstream.requests import NoAnswer
from baton_bus.jetstream.streams import Lack, ensure_stream
from baton_bus.store.bus import Bus

_SILENCE_S = 4.0
"""How long each question may take: what may have no server left must not keep the rest from being said soon."""
_TIMERS_READ = 100
"""Timers of which it is read when they were to fire, the oldest first: where some are late, those are."""
_LOG_S = 2 * _SILENCE_S
"""For what is read from the log itself."""
_LATE_S = 5.0
"""The broker fires a timer within a second."""
_FIRES_S = 1.5
"""A server that starts fires what came due in the meantime after half a second."""
_NO_LEADER = 10008
"""The server's error "JetStream system temporarily unavailable": who would answer has to be elected first."""
_AT = "@at "

_Answer = TypeVar("_Answer", bound=Struct)
_Read = TypeVar("_Read")


class _Error(Struct, frozen=True):
    err_code: int = 0


class _Envelope(Struct, frozen=True):
    error: _Error | None = None


class _Page(Struct, frozen=True):
    total: int = 0
    consumers: list[Consumer] = field(default_factory=list)


class _Names(Struct, frozen=True):
    streams: list[str] | None = None


async def read_vitals(bus: Bus, monitor_url: str = "") -> Vitals:
    """Read the facts, within `_SILENCE_S` for each of three rounds of questions. What gives no answer is a fact too."""
    ask, api, stream = _Asking(bus), bus.requests.api, bus.settings.namespace
    due = {"subjects_filter": bus.subjects.due("*", "*", "*")}
    account, log, timers, blobs, counters, monitor = await asyncio.gather(
        ask.one("JetStream", api.account(), Account),
        ask.one("the log", api.info(stream), Stream),
        ask.one("the timers", api.info(bus.timers.stream), Stream, due),
        ask.one("the blobs", api.info(bus.blobs.stream), Stream),
        ask.one("the counters", api.info(bus.counters.stream), Stream),
        read_monitor(monitor_url) if monitor_url else _nothing(),
    )
    consumers, due_consumer, overdue_s, others, (lacks, mismatch) = await asyncio.gather(
        ask.consumers(stream) if log else _nothing(),
        ask.one("who takes them", api.consumer(bus.timers.stream, "due"), Consumer) if timers else _nothing(),
        ask.overdue_s(bus.timers.stream, bus.subjects.timer("*", "*", "*")) if timers else _nothing(),
        ask.logs() if log is None else _nothing(),
        ask.lacks() if log else _all_there(),
    )
    version = bus.nc.connected_server_version
    readable = log is not None and log.config.allow_direct  # otherwise nobody would answer
    return Vitals(
        version=(version.major, version.minor, version.patch),
        max_payload=bus.nc.max_payload,
        clock_ahead_s=log.ts.timestamp() - time.time() if log and log.ts else 0.0,
        account=account,
        log=log,
        timers=timers,
        blobs=blobs,
        counters=counters,
        consumers=consumers or [],
        due=due_consumer,
        monitor=monitor,
        overdue_s=overdue_s,
        others=others or (),
        waits=await ask.of_log(read_waits(bus), ()) if readable else (),
        newer=await ask.of_log(read_newer(bus, consumers or []), ()) if readable else (),
        lacks=lacks,
        mismatch=mismatch,
        withheld=tuple(ask.withheld) if ask.answers else (),
        silent=tuple(ask.silent),
    )


async def read_consumers(bus: Bus) -> list[Consumer] | None:
    """Return the consumers of the log as they stand; None when this user may not ask. Raises `BusUnavailable`."""
    ask = _Asking(bus)
    found = await ask.consumers(bus.settings.namespace)
    if ask.silent:
        raise BusUnavailable("look at the consumers of the log", _SILENCE_S)
    return None if ask.withheld else found


async def _all_there() -> tuple[tuple[Lack, ...], str]:
    return (), ""


async def _nothing() -> None:
    return None


class _Asking:
    """Asks the JetStream API, and notes what does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._requests = bus, bus.requests
        self.silent: list[str] = []
        self.withheld: list[str] = []
        """What this user may not ask, or nobody who listens answers."""
        self.answers = False
        """Whether anything was answered: where nothing is, JetStream is off."""

    async def one(
        self, name: str, what: str, kind: type[_Answer], query: dict[str, Any] | None = None
    ) -> _Answer | None:
        """Return the answer; None when there is no such thing, or when none comes, which is noted under `name`.

        Without a `name`, that it does not come is told by other questions.
        """
        try:
            async with asyncio.timeout(_SILENCE_S):
                answer = await self._requests.ask(what, msgspec.json.encode(query or {}), again=True)
        except (NoAnswer, TimeoutError):
            if name:
                self.silent.append(name)
            return None
        except NotAllowed:
            self.withheld.append(name)
            return None
        if not answer.data:
            self.withheld.append(name)
            return None
        self.answers = True
        error = msgspec.json.decode(answer.data, type=_Envelope).error
        if error is not None:
            if error.err_code == _NO_LEADER and name:
                self.silent.append(name)
            return None
        return msgspec.json.decode(answer.data, type=kind)

    async def consumers(self, stream: str) -> list[Consumer]:
        """Return all consumers of a stream, as far as they are told."""
        found: list[Consumer] = []
        while page := await self.one(
            "the consumers", self._requests.api.consumers(stream), _Page, {"offset": len(found)}
        ):
            found += page.consumers
            if not page.consumers or len(found) >= page.total:
                break
        return found

    async def logs(self) -> tuple[str, ...]:
        """Return the namespaces that have a log on this server."""
        subjects = self._bus.subjects
        pattern = "*" + subjects.reply("*", "*", "*", "*").removeprefix(subjects.namespace)
        names = await self.one("", self._requests.api.names(), _Names, {"subject": pattern})
        return tuple(names.streams or ()) if names else ()

    async def lacks(self) -> tuple[tuple[Lack, ...], str]:
        """Return what the log lacks, and why it is none of ours if it is not."""
        settings, subjects = self._bus.settings, self._bus.subjects
        try:
            async with asyncio.timeout(_SILENCE_S):
                return await ensure_stream(self._bus.js, settings, subjects, mend=False), ""
        except StreamMismatch as error:
            return (), str(error)
        except (BusError, TimeoutError):
            return (), ""

    async def of_log(self, read: Coroutine[None, None, _Read], nothing: _Read) -> _Read:
        """Return what is read from the log, or nothing: that it does not answer is told by other questions."""
        try:
            async with asyncio.timeout(_LOG_S):
                return await read
        except (BusError, TimeoutError):
            return nothing

    async def overdue_s(self, stream: str, pattern: str) -> float | None:
        """Return how late the latest of the oldest timers is; None too when it fires in a moment.

        A server that was down fires what came due meanwhile just after its start.
        """
        if await self._late_s(stream, pattern) is None:
            return None
        await asyncio.sleep(_FIRES_S)
        return await self._late_s(stream, pattern)

    async def _late_s(self, stream: str, pattern: str) -> float | None:
        """Return how late the latest of the oldest timers is, by the broker's clock as far as we know it."""
        query = {"seq": 1, "next_by_subj": pattern, "batch": _TIMERS_READ}
        try:
            async with asyncio.timeout(_SILENCE_S):
                *timers, _ = await self._requests.collect(self._requests.api.direct(stream), msgspec.json.encode(query))
        except (NoAnswer, NotAllowed, TimeoutError, ValueError):
            return None
        dues = [_due_s((timer.headers or {}).get("Nats-Schedule", "")) for timer in timers]
        late_s = max((self._bus.now_s() - due_s for due_s in dues if due_s is not None), default=0.0)
        return late_s if late_s > _LATE_S else None


def _due_s(schedule: str) -> float | None:
    """Return when a timer that fires once is due, in seconds of Unix time."""
    if not schedule.startswith(_AT):
        return None
    try:
        return datetime.fromisoformat(schedule.removeprefix(_AT)).timestamp()
    except (ValueError, OverflowError):
        return None
