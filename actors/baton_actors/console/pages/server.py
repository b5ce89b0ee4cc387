"""The server: whether anything can be lost, who is there, how large the log is and how it grows, and the index."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import LISTS, Page
from baton_bus.doctor.doctor import judge
from baton_bus.doctor.facts import Stream, Vitals
from baton_bus.doctor.findings import Finding, size
from baton_bus.doctor.streams import streams_of
from baton_bus.index import file as files
from baton_bus.index.finding import first_seq, reach_of

_EVERY_S = 10.0
_LEVELS = ("error", "warning", "note", "ok")
_SPANS = ((timedelta(hours=1), "last hour"), (timedelta(days=1), "last day"), (timedelta(days=7), "last 7 days"))


class Store(Struct, frozen=True, kw_only=True):
    """A stream of Baton's."""

    name: str
    messages: int
    bytes: int
    limit: str
    replicas: int
    up: int
    """Servers with a copy that are up."""
    leader: str
    since: datetime | None


class Growth(Struct, frozen=True, kw_only=True):
    """How much came in a time."""

    span: str
    messages: int
    bytes: float
    """About: by the average size of what is in the log."""


async def server_page(console: Console, request: Request) -> Page:
    """Return what the doctor says, in words and with what to do, and what is there."""
    vitals = await console.examined.vitals()
    findings = judge(vitals, console.settings)
    now = datetime.now(UTC)
    return Page(
        template="server.html",
        title="Server",
        here="server",
        facts={
            "findings": sorted(findings, key=lambda each: _LEVELS.index(each.level)),
            "stores": [_store(name, stream) for name, stream in streams_of(vitals)],
            "growth": list(_growth(console, vitals, now)),
            "workers": console.workers(),
            "reach": _reach(console),
            "index_path": str(console.options.index),
            "index_bytes": _size_of(console),
            "says": console.index.says,
            "why": console.index.why,
            "server": ".".join(map(str, vitals.version)),
            "size": size,
            "counts": _counts(findings),
            "now": now,
        },
        json=findings,
        command="baton doctor",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


def _counts(findings: list[Finding]) -> dict[str, int]:
    return {level: sum(each.level == level for each in findings) for level in _LEVELS}


def _store(name: str, stream: Stream) -> Store:
    config, state = stream.config, stream.state
    limits = [
        *([size(config.max_bytes)] if config.max_bytes > 0 else []),
        *([f"{config.max_msgs:,} messages"] if config.max_msgs > 0 else []),
    ]
    return Store(
        name=name.removeprefix("the "),
        messages=state.messages,
        bytes=state.bytes,
        limit=" or ".join(limits) or "none",
        replicas=config.num_replicas,
        up=1 + sum(peer.is_up for peer in stream.cluster.replicas),
        leader=stream.cluster.leader if stream.cluster.name else "the only server",
        since=state.first_ts if state.messages else None,
    )


def _growth(console: Console, vitals: Vitals, now: datetime) -> Iterator[Growth]:
    """Yield how much came in some times, by the sequences at which runs began."""
    database, log = console.index.database, vitals.log
    if database is None or log is None or not log.state.messages:
        return
    each_bytes = log.state.bytes / log.state.messages
    with files.told(console.index.path):
        reach = reach_of(database)
        for span, words in _SPANS:
            if reach.back_to is None or (not reach.is_whole and reach.back_to > now - span):
                continue
            came = max(reach.high_seq - first_seq(database, now - span) + 1, 0)
            yield Growth(span=words, messages=came, bytes=came * each_bytes)


def _reach(console: Console) -> dict[str, object] | None:
    reach = console.index.reach()
    if reach is None:
        return None
    read = sum(span.high - span.low + 1 for span in reach.spans)
    whole = reach.high_seq - reach.first_seq + 1
    return {"reach": reach, "read": read, "share": min(read / whole, 1.0) if whole > 0 else 1.0}


def _size_of(console: Console) -> int:
    try:
        return console.options.index.stat().st_size
    except OSError:
        return 0
