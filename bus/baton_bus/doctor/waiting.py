"""What the doctor says of work that waits: actors that are down, leases that ended, deadlines that nobody takes."""

from __future__ import annotations

from collections.abc import Iterator

from baton_bus.doctor.findings import Finding, span
from baton_bus.doctor.monitor import Monitor
from baton_bus.doctor.vitals import Consumer, Vitals
from baton_bus.settings import Settings
from baton_bus.store.timers import KEPT_S

CONSUMERS_MAX = 1_000
"""Consumers of one stream that a server allows unless it is configured: each actor is one, and each reader."""
SILENT_LEASES = 3
"""A consumer that has said nothing for so many leases has lost whoever held its messages."""
REDELIVERED_MANY = 10
"""A few messages that come again are retries."""
_CROWDED = 0.8


def judge_consumers(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Say which actors are down or stuck, and which consumers are not as Baton makes them."""
    ours = [consumer for consumer in vitals.consumers if consumer.config.durable_name]
    found = [finding for consumer in ours for finding in _judge(consumer, settings)]
    yield from found
    if not found:
        yield Finding("ok", "consumers", f"{len(ours)} actors and stewards; none has work that stands still")
    limit = _consumers_max(vitals)
    if len(vitals.consumers) >= limit * _CROWDED:
        says = f"{len(vitals.consumers):,} of at most {limit:,} on the log: beyond that, actors and readers are refused"
        advice = "Stop some of those that watch runs, or raise the server's limit of consumers."
        yield Finding("warning", "consumers", says, advice)


def judge_due(vitals: Vitals) -> Iterator[Finding]:
    """Say whether deadlines and scheduled tasks that are due reach the log."""
    if vitals.timers is None:
        return
    due = vitals.due
    waiting = due.num_pending if due else sum(vitals.timers.state.subjects.values())
    if waiting and (due is None or _is_down(due)):
        says = f"{waiting:,} deadlines or tasks are due and no process takes them; they are kept {span(KEPT_S)}"
        yield Finding("warning", "timers", says, "Start any worker, or `baton steward FLOW`.")
    elif due is not None and _is_stuck(due):
        says = f"{due.num_ack_pending:,} due messages were taken {span(_silent_s(due))} ago and not written to the log"
        yield Finding("warning", "timers", says, "Start any worker; see the logs of those that run.")
    else:
        yield Finding("ok", "timers", "nothing is due that nobody takes")


def _judge(consumer: Consumer, settings: Settings) -> Iterator[Finding]:
    what, config = f"consumer {consumer.name}", consumer.config
    if config.max_deliver > 0:
        says = f"max_deliver = {config.max_deliver}: after that the server drops a handoff, and its run never ends"
        yield Finding("error", what, says, "Delete the consumer; a worker makes it anew as it must be.")
    if abs(config.lease_s - settings.lease_s) > 1e-6:
        says = f"leases of {span(config.lease_s)}, and {span(settings.lease_s)} in the settings of this command"
        yield Finding("note", what, says, "Give all workers one BATON_LEASE_S: the last to start wins.")
    if consumer.num_pending and _is_down(consumer):
        says = f"{consumer.num_pending:,} messages wait and no process takes them; they are kept until one does"
        yield Finding("warning", what, says, "Start it: `baton up FLOW`, `baton actor` or `baton steward`.")
    elif _is_stuck(consumer):
        says = (
            f"{consumer.num_ack_pending:,} messages are held, and for {span(_silent_s(consumer))} none was handed out "
            "or done: whoever held them is gone, or every process is busy with long steps"
        )
        yield Finding("warning", what, says, "See whether its processes run and what their logs say.")
    elif config.max_ack_pending > 0 and consumer.num_ack_pending >= config.max_ack_pending and consumer.num_pending:
        says = f"all {consumer.num_ack_pending:,} that may be in hand are, and {consumer.num_pending:,} wait"
        yield Finding("note", what, says, "Raise the agent's max_in_flight if its processes idle.")
    if consumer.num_redelivered:
        many = consumer.num_redelivered >= REDELIVERED_MANY
        says = f"{consumer.num_redelivered:,} of {consumer.num_ack_pending:,} in hand were handed out before: "
        says += "retries, or leases that ended with their worker"
        advice = "Look for workers that die or stall; raise BATON_LEASE_S if they stall."
        yield Finding("warning" if many else "note", what, says, advice)


def _is_down(consumer: Consumer) -> bool:
    """Nobody asks for work, and nobody has any."""
    return not consumer.num_waiting and not consumer.num_ack_pending


def _is_stuck(consumer: Consumer) -> bool:
    """Nobody asks for work, and what is in hand has not moved for long."""
    held = bool(consumer.num_ack_pending) and not consumer.num_waiting
    return held and _silent_s(consumer) > SILENT_LEASES * consumer.config.lease_s


def _silent_s(consumer: Consumer) -> float:
    moved = [at for at in (consumer.delivered.last_active, consumer.ack_floor.last_active) if at is not None]
    return (consumer.ts - max(moved)).total_seconds() if consumer.ts and moved else 0.0


def _consumers_max(vitals: Vitals) -> int:
    if vitals.account.limits.max_consumers > 0:
        return vitals.account.limits.max_consumers
    if isinstance(vitals.monitor, Monitor) and vitals.monitor.max_consumers > 0:
        return vitals.monitor.max_consumers
    return CONSUMERS_MAX
