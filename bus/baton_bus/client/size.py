"""How large the log is, and how large it may become."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from msgspec import Struct

from baton_bus.errors import BusError
from baton_bus.store.bus import Bus

_Answer = TypeVar("_Answer", bound=Struct)


class LogSize(Struct, frozen=True, kw_only=True):
    """What the streams of a namespace hold. Sizes are those on the server's disk, headers included."""

    messages: int
    """Of the log itself."""
    size_bytes: int
    values_bytes: int = 0
    """Of the large values beside it."""
    limit_bytes: int | None = None
    """At which the log refuses new work: its own limit, or else the account's for all its streams. None without one."""
    limits_account: bool = False
    """Whether that limit is the account's."""


class _State(Struct, frozen=True):
    messages: int = 0
    bytes: int = 0


class _Config(Struct, frozen=True):
    max_bytes: int = -1


class _Stream(Struct, frozen=True):
    state: _State = _State()
    config: _Config = _Config()


class _Limits(Struct, frozen=True):
    max_storage: int = -1


class _Account(Struct, frozen=True):
    limits: _Limits = _Limits()


async def log_size(bus: Bus) -> LogSize:
    """Ask how large the log is. What this user may not ask counts as not there. Raises `BusUnavailable`."""
    api = bus.requests.api
    log, blobs, account = await asyncio.gather(
        _ask(bus, api.info(bus.settings.namespace), _Stream),
        _ask(bus, api.info(bus.blobs.stream), _Stream),
        _ask(bus, api.account(), _Account),
    )
    own, whole = log.config.max_bytes, account.limits.max_storage
    limit = own if own > 0 else whole if whole > 0 else None
    return LogSize(
        messages=log.state.messages,
        size_bytes=log.state.bytes,
        values_bytes=blobs.state.bytes,
        limit_bytes=limit,
        limits_account=own <= 0 and limit is not None,
    )


async def _ask(bus: Bus, subject: str, kind: type[_Answer]) -> _Answer:
    """Return an answer of the JetStream API; the empty one when there is none for us, or no such stream."""
    try:
        answer = await bus.requests.ask(subject, b"", again=True)
        return msgspec.json.decode(answer.data or b"{}", type=kind)
    except (BusError, msgspec.DecodeError):
        return kind()
