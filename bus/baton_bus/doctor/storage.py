"""What the doctor says of disks: what a power cut takes, what the loss of a server takes, how much room there is."""

from __future__ import annotations

from collections.abc import Iterator

from baton_bus.doctor.facts import Account, Placement, Stream, Vitals
from baton_bus.doctor.findings import Finding, size, span
from baton_bus.doctor.monitor import Monitor, NoMonitor
from baton_bus.doctor.streams import holds, streams_of
from baton_bus.settings import Settings

JEPSEN = "https://jepsen.io/analyses/nats-2.12.1"
"""What lazy flushing loses when machines crash, measured: 131,418 of 930,005 acknowledged messages in one power cut."""
DEFAULT_SYNC_S = 120.0
"""The server's own `sync_interval`: https://docs.nats.io/reference/config/jetstream/sync_interval"""
_FILLING, _FULL = 0.80, 0.95
"""Parts of a limit from which on a store counts as filling, and as full."""


def judge_storage(vitals: Vitals, log: Stream, settings: Settings) -> Iterator[Finding]:
    """Say what can be lost, and whether what is new is taken."""
    yield from _flushing(vitals, log)
    yield from _copies(vitals, log, settings)
    yield from _space(vitals, log)
    yield from _health(vitals)


def _flushing(vitals: Vitals, log: Stream) -> Iterator[Finding]:
    """What a power cut takes: the messages that were acknowledged, and were not on a disk yet."""
    seen, copies = vitals.monitor, log.config.num_replicas
    if isinstance(seen, NoMonitor):
        yield Finding("warning", "monitoring", f"{seen.url} does not answer: {seen.reason}", "Correct --monitor.")
    if log.config.persist_mode == "async":
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


def _copies(vitals: Vitals, log: Stream, settings: Settings) -> Iterator[Finding]:
    """What the loss of a server takes."""
    wanted = log.config.num_replicas
    asked = settings.placement_cluster, settings.tags
    for name, stream in streams_of(vitals):
        what, copies = f"replicas of {name}", stream.config.num_replicas
        yield _standing(name, what, stream)
        if copies < wanted:
            says = f"{copies}, and the log has {wanted}: runs outlive {holds(name)}"
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
        says = f"one, on {cluster.leader}: all waits while it is down, and its disk lost is {holds(name)} lost"
        return Finding("warning", what, says, "Set BATON_REPLICAS=3.")
    if copies == 1:
        says = f"one, on the only server: its disk lost is {holds(name)} lost"
        return Finding("note", what, says, "Back it up, or run three servers with BATON_REPLICAS=3.")
    if up < copies:
        says = f"{up} of {copies} are up: with fewer than {copies // 2 + 1} nothing can be written"
        return Finding("warning", what, says, "Start the servers that are down.")
    if behind:
        says = f"{copies}, of which some lag: {', '.join(behind)} messages"
        return Finding("note", what, says, "Look again: one that stays behind is slow or cut off.")
    return Finding("ok", what, f"{copies}, all current: any {copies // 2} may be lost")


def _space(vitals: Vitals, log: Stream) -> Iterator[Finding]:
    """How far new work is from being refused. What was accepted stays: the log never makes room by itself."""
    account, config, state = vitals.account or Account(), log.config, log.state
    tier = account.tiers.get(f"R{config.num_replicas}", account)
    yield from _filled("storage of the account", tier.storage, tier.limits.max_storage)
    yield from _filled("size of the log", state.bytes, config.max_bytes)
    if config.discard == "new":
        yield from _filled("messages of the log", state.messages, config.max_msgs, "messages")
    if isinstance(vitals.monitor, Monitor):
        yield from _filled("storage of the server", vitals.monitor.storage, vitals.monitor.max_storage)
    elif tier.limits.max_storage < 0 and config.max_bytes < 0:
        says = f"{size(state.bytes)} in {state.messages:,} messages; how much room there is cannot be seen over NATS"
        yield Finding(
            "note",
            "space",
            says,
            "--monitor URL shows it, and whether the disk is full; BATON_MAX_BYTES limits the log.",
        )


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


def _health(vitals: Vitals) -> Iterator[Finding]:
    """A server whose disk was full answers no write until it is started again, with room or without."""
    if isinstance(vitals.monitor, Monitor) and vitals.monitor.unhealthy:
        says = f"{vitals.monitor.unhealthy}: what is written there is not answered, or refused"
        advice = "Free space on its disk (`df`), then restart the server: it does not try again by itself."
        yield Finding("error", "health of the server", says, advice)
