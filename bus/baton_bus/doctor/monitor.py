"""The monitoring port of a nats-server: what it tells that no client can ask for over NATS."""

from __future__ import annotations

import asyncio
import base64
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from baton_bus.addresses import redacted
from baton_bus.errors import BusError

_TIMEOUT_S = 3.0
_NOT_WELL = 503
"""The status of `/healthz` when the server is not well; its body says why."""
_NAME_MAX = 50
"""A server without a name of its own is called by its id of 56 characters."""


class Monitor(Struct, frozen=True):
    """What only the monitoring port of a server tells."""

    server_name: str
    sync_always: bool
    sync_interval_s: float
    max_storage: int
    storage: int
    max_consumers: int
    unhealthy: str = ""
    """Why the server says that it is not well; empty when it is."""


class NoMonitor(BusError):
    """The monitoring port does not answer, or what answers is not one."""

    def __init__(self, url: str, reason: str) -> None:
        """`url` as it may be shown; `reason` is what was found."""
        self.url, self.reason = url, reason
        super().__init__(f"nothing to be seen at {url}: {reason}. Give the `http` address of a nats-server.")


class _Storage(Struct, frozen=True):
    sync_interval: int = 0
    sync_always: bool = False
    max_storage: int = -1


class _Stats(Struct, frozen=True):
    storage: int = 0


class _ServerLimits(Struct, frozen=True):
    default_max_consumers: int = -1


class _JetStream(Struct, frozen=True):
    config: _Storage = _Storage()
    stats: _Stats = _Stats()
    limits: _ServerLimits = _ServerLimits()


class _Varz(Struct, frozen=True):
    server_name: str
    jetstream: _JetStream = _JetStream()


class _Health(Struct, frozen=True):
    status: str = "ok"
    error: str = ""


async def read_monitor(url: str) -> Monitor | NoMonitor:
    """Ask a server's monitoring port; one that does not answer is a fact like any other."""
    address = url.rstrip("/")
    try:
        varz = msgspec.json.decode(await asyncio.to_thread(_get, f"{address}/varz"), type=_Varz)
        health = msgspec.json.decode(await asyncio.to_thread(_get, f"{address}/healthz"), type=_Health)
    except (OSError, ValueError, HTTPException) as error:  # a body that does not decode is a ValueError
        return NoMonitor(redacted(url), redacted(str(getattr(error, "reason", error))))
    return Monitor(
        server_name=varz.server_name if len(varz.server_name) < _NAME_MAX else "the server",
        sync_always=varz.jetstream.config.sync_always,
        sync_interval_s=varz.jetstream.config.sync_interval / 1e9,
        max_storage=varz.jetstream.config.max_storage,
        storage=varz.jetstream.stats.storage,
        max_consumers=varz.jetstream.limits.default_max_consumers,
        unhealthy=health.error if health.status != "ok" else "",
    )


def _get(url: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected a URL that begins with http:// or https://")
    login, _, rest = url.partition("//")[2].rpartition("@")
    request = urllib.request.Request(f"{url.partition('//')[0]}//{rest}")
    if login:  # of a proxy: nats-server asks for none
        basic = base64.b64encode(unquote(login).encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        if error.code == _NOT_WELL:
            return bytes(error.read())
        raise
