"""The doctor: says what a server and our streams on it, as they are set up and as they stand, can lose and how much."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from baton_bus.doctor.facts import Vitals
from baton_bus.doctor.findings import Finding, size
from baton_bus.doctor.storage import judge_storage
from baton_bus.doctor.streams import judge_no_log, judge_streams
from baton_bus.doctor.vitals import read_vitals
from baton_bus.doctor.waiting import judge_consumers, judge_newer, judge_timers, judge_waits
from baton_bus.errors import JetStreamOff
from baton_bus.jetstream.connection import opened
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings
from baton_bus.store.bus import Bus

TESTED = (2, 15)
"""The version of nats-server that the tests run."""
CLOCK_OFF_S = 1.0
"""Clocks that are kept by NTP differ by milliseconds."""
_WITHHELD = {"JetStream": "limits of the account", "who takes them": "who takes what is due"}
_OVERHEAD_BYTES = 64 * 1024
"""Of a message beside its values: the flow, ids, errors."""


async def examine_server(settings: Settings, monitor_url: str = "") -> list[Finding]:
    """Connect to the server, and look at it and at the log, the timers, the blobs and their consumers.

    It makes and changes nothing. `monitor_url` is the `http` address of a server, for what no client can ask over
    NATS. Raises `NoServer`, `ServerTooOld`.
    """
    try:
        async with _looking(settings) as bus:
            return await examine(bus, monitor_url)
    except JetStreamOff:
        says = "the server runs without it: nothing can be written or read"
        advice = "Start it with `-js`. If it was on, its disk was full or failed: free space, then restart the server."
        return [Finding("error", "JetStream", says, advice)]


async def examine(bus: Bus, monitor_url: str = "") -> list[Finding]:
    """Look as `examine_server`, over a bus that is open."""
    return judge(await read_vitals(bus, monitor_url), bus.settings)


def judge(vitals: Vitals, settings: Settings) -> list[Finding]:
    """Say what the facts mean. Pure."""
    general = [*_version(vitals), *_silent(vitals), *_withheld(vitals), *_account(vitals), *_payload(vitals, settings)]
    log = vitals.log
    if log is None:
        return [*general, *judge_no_log(vitals, settings)]
    return [
        *general,
        *judge_storage(vitals, log, settings),
        *judge_streams(vitals, settings),
        *_clock(vitals),
        *judge_consumers(vitals, log, settings),
        *judge_waits(vitals.waits),
        *judge_newer(vitals.newer),
        *judge_timers(vitals, settings),
    ]


@contextlib.asynccontextmanager
async def _looking(settings: Settings) -> AsyncIterator[Bus]:
    """Open the bus without making its streams, and without waiting for those that elect a leader."""
    async with opened(settings, name="baton doctor", on_lost=lambda: None, on_back=lambda: None) as nc:
        requests = Requests(nc, settings.request_timeout_s)
        async with requests.opened():
            js = nc.jetstream(prefix=settings.api_prefix, timeout=settings.request_timeout_s)
            yield Bus(nc, js, requests, settings)


def _version(vitals: Vitals) -> Iterator[Finding]:
    version = ".".join(map(str, vitals.version))
    if vitals.version[:2] == TESTED:
        yield Finding("ok", "server", f"nats-server {version}")
    else:
        tested = ".".join(map(str, TESTED))
        says = f"nats-server {version}; Baton is tested with {tested}"
        yield Finding("note", "server", says, f"Prefer {tested} where you can choose.")


def _silent(vitals: Vitals) -> Iterator[Finding]:
    for name in vitals.silent:
        says = "do not answer: every server that has a copy is down, or they elect a leader; what needs them waits"
        yield Finding(
            "error", name, says, "Look again in 10 s, then start them. Three replicas survive one that is lost."
        )


def _withheld(vitals: Vitals) -> Iterator[Finding]:
    names = [_WITHHELD.get(name, name) for name in dict.fromkeys(vitals.withheld) if name]
    if names:
        says = f"not for this user, so nothing is said of them: {', '.join(names)}"
        yield Finding("note", "permissions", says, "Ask as `operator` or `admin` (deploy/README.md).")


def _account(vitals: Vitals) -> Iterator[Finding]:
    if vitals.account is None and "JetStream" not in (*vitals.silent, *vitals.withheld):
        says = "it is off for this account: nothing can be written or read"
        yield Finding("error", "JetStream", says, "Turn it on for the account in the server's configuration.")


def _payload(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """A handoff carries up to twice the inline limit in values; the rest become blobs."""
    limit, needed = vitals.max_payload, 2 * settings.inline_limit_bytes + _OVERHEAD_BYTES
    says = f"messages may have {size(limit)}; values over {size(settings.inline_limit_bytes)} become blobs"
    if limit >= needed:
        yield Finding("ok", "payload", says)
        return
    says += f", and several smaller ones make up to {size(needed)}: such a step fails with PayloadTooLarge"
    advice = f"Raise the server's max_payload to {needed:,} bytes, or lower BATON_INLINE_LIMIT_BYTES."
    yield Finding("error", "payload", says, advice)


def _clock(vitals: Vitals) -> Iterator[Finding]:
    ahead_s = vitals.clock_ahead_s
    if abs(ahead_s) <= CLOCK_OFF_S:
        yield Finding("ok", "clock", f"ours and the server's differ by {abs(ahead_s) * 1e3:.0f} ms")
        return
    way = "ahead of" if ahead_s > 0 else "behind"
    says = (
        f"the server's clock is {abs(ahead_s):.1f} s {way} ours. A process allows for that when it connects; "
        "a clock that is set while it runs moves deadlines by as much"
    )
    yield Finding("warning", "clock", says, "Keep both with NTP.")
