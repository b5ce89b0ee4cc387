"""The doctor: says what a server and our streams on it, as they are set up and as they stand, can lose and how much."""

from __future__ import annotations

from collections.abc import Iterator

from baton_bus.doctor.findings import Finding, size, span
from baton_bus.doctor.monitor import Monitor, NoMonitor
from baton_bus.doctor.vitals import Placement, Stream, Vitals, read_vitals
from baton_bus.doctor.waiting import judge_consumers, judge_due
from baton_bus.engine.bus import Bus
from baton_bus.settings import Settings
from baton_bus.store.timers import KEPT_S

JEPSEN = "https://jepsen.io/analyses/nats-2.12.1"
"""What lazy flushing loses when machines crash, measured: 131,418 of 930,005 acknowledged messages in one power cut."""
TESTED = (2, 15)
"""The version of nats-server that the tests run."""
DEFAULT_SYNC_S = 120.0
"""The server's own `sync_interval`: https://docs.nats.io/reference/config/jetstream/sync_interval"""
CLOCK_OFF_S = 1.0
"""Clocks that are kept by NTP differ by milliseconds."""
_FILLING, _FULL = 0.80, 0.95
"""Parts of a limit from which on a store counts as filling, and as full."""
_OVERHEAD_BYTES = 64 * 1024
"""Of a message beside its values: the flow, ids, errors."""


async def examine(bus: Bus, monitor_url: str = "") -> list[Finding]:
    """Look at the server, and at the log, the timers, the blobs and their consumers.

    `monitor_url` is the `http` address of a server, for what no client can ask over NATS. Raises `BusUnavailable`.
    """
    return judge(await read_vitals(bus, monitor_url), bus.settings)


def judge(vitals: Vitals, settings: Settings) -> list[Finding]:
    """Say what the facts mean. Pure."""
    return [
        *_version(vitals),
        *_silent(vitals),
        *_flushing(vitals),
        *_copies(vitals, settings),
        *_space(vitals),
        *_dropping(vitals, settings),
        *_payload(vitals, settings),
        *_clock(vitals),
        *judge_consumers(vitals, settings),
        *judge_due(vitals),
    ]


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


def _flushing(vitals: Vitals) -> Iterator[Finding]:
    """What a power cut takes: the messages that were acknowledged, and were not on a disk yet."""
    seen, copies = vitals.monitor, vitals.log.config.num_replicas
    if isinstance(seen, NoMonitor):
        yield Finding("warning", "monitoring", f"{seen.url} does not answer: {seen.reason}", "Correct --monitor.")
    if vitals.log.config.persist_mode == "async":
        says = "persist_mode = async: a crash of the server alone loses messages that were acknowledged and not written"
        yield Finding("error", "flushing", says, "Make the stream anew without it.")
    if isinstance(seen, Monitor) and seen.sync_always:
        says = f"{seen.server_name} flushes each message before it acknowledges it: a power cut loses nothing"
        advice = "Ask each server of the cluster." if copies > 1 else ""
        yield Finding("ok", "flushing", says, advice)
        return
    if isinstance(seen, Monitor):
        says = f"{seen.server_name} flushes what it has acknowledged every {span(seen.sync_interval_s)}"
    else:
        says = f"cannot be seen over NATS; by default what is acknowledged is flushed every {span(DEFAULT_SYNC_S)}"
    if copies == 1:
        says += ". A power cut or a crash of the machine loses up to as much; a crash of the server alone loses nothing"
    else:
        says += (
            f". A power cut of {copies // 2 + 1} of the {copies} machines at once loses up to as much, and so can "
            f"a crash of one while others are slow or cut off ({JEPSEN})"
        )
    advice = "Set `sync_interval: always`." + ("" if seen else " --monitor URL shows whether it is.")
    yield Finding("warning" if copies == 1 else "note", "flushing", says, advice)


def _copies(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """What the loss of a server takes."""
    wanted = vitals.log.config.num_replicas
    asked = settings.placement_cluster, settings.tags
    for name, stream in _streams(vitals):
        what, copies = f"replicas of {name}", stream.config.num_replicas
        yield _standing(name, what, stream)
        if copies < wanted:
            says = f"{copies}, and the log has {wanted}: runs outlive {_holds(name)}"
            yield Finding("warning", what, says, f"Connect with BATON_REPLICAS={wanted}.")
        place = stream.config.placement or Placement()
        if any(asked) and (place.cluster, place.tags) != asked:
            says = f"{name} were placed otherwise than the settings of this command say"
            yield Finding("note", what, says, "Move them with `nats stream edit`, or change the settings.")


def _standing(name: str, what: str, stream: Stream) -> Finding:
    copies, cluster = stream.config.num_replicas, stream.cluster
    up = 1 + sum(peer.is_up for peer in cluster.replicas)
    behind = [f"{peer.name} by {peer.lag:,}" for peer in cluster.replicas if not peer.current or peer.lag]
    if not cluster.leader:
        return Finding("error", what, "no leader: nothing can be written", "Start the servers that are down.")
    if copies == 1 and cluster.name:
        says = f"one, on {cluster.leader}: all waits while it is down, and its disk lost is {_holds(name)} lost"
        return Finding("warning", what, says, "Set BATON_REPLICAS=3.")
    if copies == 1:
        says = f"one, on the only server: its disk lost is {_holds(name)} lost"
        return Finding("note", what, says, "Back it up, or run three servers with BATON_REPLICAS=3.")
    if up < copies:
        says = f"{up} of {copies} are up: with fewer than {copies // 2 + 1} nothing can be written"
        return Finding("warning", what, says, "Start the servers that are down.")
    if behind:
        says = f"{copies}, of which some lag: {', '.join(behind)} messages"
        return Finding("note", what, says, "Look again: one that stays behind is slow or cut off.")
    return Finding("ok", what, f"{copies}, all current: any {copies // 2} may be lost")


def _space(vitals: Vitals) -> Iterator[Finding]:
    """How far new work is from being refused. What was accepted stays: the log never makes room by itself."""
    account, config, state = vitals.account, vitals.log.config, vitals.log.state
    tier = account.tiers.get(f"R{config.num_replicas}", account)
    yield from _filled("storage of the account", tier.storage, tier.limits.max_storage)
    yield from _filled("size of the log", state.bytes, config.max_bytes)
    if config.discard == "new":
        yield from _filled("messages of the log", state.messages, config.max_msgs, "messages")
    if isinstance(vitals.monitor, Monitor):
        yield from _filled("storage of the server", vitals.monitor.storage, vitals.monitor.max_storage)
    elif tier.limits.max_storage < 0 and config.max_bytes < 0:
        says = f"{size(state.bytes)} in {state.messages:,} messages; how much room there is cannot be seen over NATS"
        yield Finding("note", "space", says, "--monitor URL shows it; BATON_MAX_BYTES limits the log.")


def _filled(what: str, used: int, limit: int, unit: str = "bytes") -> Iterator[Finding]:
    if limit <= 0:
        return
    part, show = used / limit, (size if unit == "bytes" else lambda number: f"{number:,} {unit}")
    says = f"{show(used)} of {show(limit)} ({part:.0%})"
    if part < _FILLING:
        yield Finding("ok", what, says)
        return
    says += ": when it is full, new work is refused with LogFull, and accepted work is kept"
    advice = "Raise the limit, or purge messages of runs that have ended."
    yield Finding("error" if part >= _FULL else "warning", what, says, advice)


def _dropping(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Limits that somebody set on our streams, by which the server drops or refuses what must be kept."""
    found = [
        Finding("error", f"limits of {name}", says, "Take it away: `nats stream edit`.")
        for name, stream in _streams(vitals)
        for says in _limits(name, stream, settings)
    ]
    yield from found
    if not found:
        yield Finding("ok", "limits", "no stream drops or refuses what must be kept")


def _limits(name: str, stream: Stream, settings: Settings) -> Iterator[str]:
    config, state, loses = stream.config, stream.state, _loses(name)
    if config.max_age:
        yield f"max_age = {span(config.max_age_s)} drops messages{_next_drop(stream)}: {loses}"
    if config.max_msgs_per_subject > 0:
        yield f"max_msgs_per_subject = {config.max_msgs_per_subject} drops or refuses tasks and versions: {loses}"
    if config.discard == "old" and config.max_msgs > 0:
        yield f"discard = old drops the oldest of {config.max_msgs:,} messages (now {state.messages:,}): {loses}"
    if config.discard == "old" and config.max_bytes > 0:
        yield f"discard = old drops the oldest of {size(config.max_bytes)} (now {size(state.bytes)}): {loses}"
    if config.discard == "old" and name == "the log":
        yield "discard = old: a full log would drop accepted work and not refuse new"
    if config.sealed:
        yield "sealed: nothing can be written"
    if 0 < config.max_msg_size < 2 * settings.inline_limit_bytes:
        yield f"max_msg_size = {size(config.max_msg_size)} refuses messages that Baton writes"


def _next_drop(stream: Stream) -> str:
    if stream.state.first_ts is None or stream.ts is None or not stream.state.messages:
        return ""
    left_s = stream.config.max_age_s - (stream.ts - stream.state.first_ts).total_seconds()
    return f", the next in {span(max(left_s, 0.0))}"


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


def _streams(vitals: Vitals) -> Iterator[tuple[str, Stream]]:
    for name, stream in (("the log", vitals.log), ("the timers", vitals.timers), ("the blobs", vitals.blobs)):
        if stream is not None:
            yield name, stream


def _holds(name: str) -> str:
    return {"the log": "every run", "the timers": "every deadline", "the blobs": "every large value"}[name]


def _loses(name: str) -> str:
    return {
        "the log": "runs that are not done by then never end, and finished ones cannot be read or replayed",
        "the timers": f"deadlines and schedules that are later never come (what is due is kept {span(KEPT_S)})",
        "the blobs": "steps that read an older large value fail with BlobMissing",
    }[name]
