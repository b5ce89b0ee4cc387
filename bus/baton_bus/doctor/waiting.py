"""What the doctor says of work that waits: for actors, for what an actor lacks, for a provider, for time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from baton_bus.doctor.facts import Account, Consumer, Newer, Stream, Vitals, Waiting
from baton_bus.doctor.findings import Finding, span
from baton_bus.doctor.monitor import Monitor
from baton_bus.settings import Settings
from baton_bus.store.timers import KEPT_S
from baton_bus.subjects import Subjects
from baton_schemas.wire.facts import BUDGET
from baton_schemas.wire.messages import VERSION

CONSUMERS_MAX = 1_000
"""Consumers of one stream that a server allows unless it is configured: each actor is one, and each reader."""
SILENT_LEASES = 3
"""A consumer that has said nothing for so many leases has lost whoever held its messages."""
REDELIVERED_MANY = 10
"""A few messages that come again are retries."""
_CROWDED = 0.8
LEFT_OVER_S = 7 * 24 * 3600
"""An actor without work and without a process for so long may be one of a flow that is gone."""
_NAMED_MAX = 3
"""Names in one finding: enough to look for one, and one line."""


def judge_consumers(vitals: Vitals, log: Stream, settings: Settings) -> Iterator[Finding]:
    """Say which actors are down or stuck, and which consumers are not as Baton makes them."""
    if "the consumers" in vitals.withheld:
        return
    ours = [consumer for consumer in vitals.consumers if consumer.config.durable_name]
    found = [finding for consumer in ours for finding in judge_consumer(consumer, settings)]
    yield from found
    if not found:
        yield Finding("ok", "consumers", f"{len(ours)} actors and stewards; none has work that stands still")
    yield from _left_over(ours)
    limit = _consumers_max(vitals, log)
    if len(vitals.consumers) >= limit * _CROWDED:
        says = f"{len(vitals.consumers):,} of at most {limit:,} on the log: beyond that, actors and readers are refused"
        advice = "Stop some of those that watch runs, or raise the limit of consumers of the stream or the server."
        yield Finding("warning", "consumers", says, advice)


def judge_waits(waits: Sequence[Waiting]) -> Iterator[Finding]:
    """Say what steps wait for, a finding for each actor and thing."""

    def thing(wait: Waiting) -> tuple[str, str, str, str]:
        return wait.actor, wait.kind, wait.flow, wait.what if wait.kind == "handler" else ""

    for (actor, kind, flow, _), group in groupby(sorted(waits, key=thing), key=thing):
        found = list(group)
        runs = sorted({wait.run for wait in found})
        wait = "1 run waits" if len(runs) == 1 else f"{len(runs):,} runs wait"
        says = f"{wait} for {found[0].what}: {_some(runs)}"
        if kind == "provider":
            advice = "It goes on by itself, slower. Ask the provider for more, or lower the agent's concurrency."
            yield Finding("note", f"actor {actor}", says, advice)
        elif kind == "limits":
            advice = "It goes on by itself when its turn comes. Raise [limits] of the flow if the provider allows more."
            yield Finding("note", f"actor {actor}", says, advice)
        elif kind == BUDGET:
            wait = "1 run is" if len(runs) == 1 else f"{len(runs):,} runs are"
            says = f"{wait} parked, as a budget is spent: {_some(runs)}"
            advice = (
                "Allow more: `baton retry RUN --budget AMOUNT` (`baton show RUN` says how much). Or `baton cancel RUN`."
            )
            yield Finding("warning", f"actor {actor}", says, advice)
        else:
            advice = (
                f"Start one: `baton up {flow}` (or the path of its file), in the version of the flow that these runs "
                "have. Or end them: `baton cancel RUN`."
            )
            yield Finding("warning", f"actor {actor}", says, advice)


def judge_newer(newer: Sequence[Newer]) -> Iterator[Finding]:
    """Say which consumers have messages that are newer than the workers which get them."""
    for each in newer:
        says = f"the message at sequence {each.seq} has version {each.version}: who reads up to {VERSION} gives it back"
        yield Finding("warning", f"consumer {each.consumer}", says, "Start workers of the later release.")


def judge_timers(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Say whether deadlines and scheduled tasks come, and reach the log when they are due."""
    if vitals.timers is None:
        return
    stuck = list(_stuck_timers(vitals, vitals.timers, settings))
    yield from stuck or (() if "who takes them" in vitals.withheld else _due(vitals, vitals.timers))


def _stuck_timers(vitals: Vitals, timers: Stream, settings: Settings) -> Iterator[Finding]:
    """Why timers cannot fire. That the stream is sealed or drops what is old is told with its limits."""
    missing = [subject for subject in Subjects(settings.namespace).timers() if subject not in timers.config.subjects]
    if not timers.config.allow_msg_schedules:
        says = "allow_msg_schedules is off: deadlines and schedules are refused, or never come"
        yield Finding("error", "timers", says, "Delete the stream of timers; it is made anew with the next deadline.")
    elif missing:
        says = f"their stream takes no {', '.join(missing)}: what is due there goes nowhere"
        yield Finding("error", "timers", says, "Add the subjects: `nats stream edit`.")
    elif vitals.overdue_s is not None:
        says = f"one should have fired {span(vitals.overdue_s)} ago and has not: the server does not fire them"
        yield Finding("error", "timers", says, "See the server's log and its disk; restart it.")


def _due(vitals: Vitals, timers: Stream) -> Iterator[Finding]:
    due = vitals.due
    waiting = due.num_pending if due else sum(timers.state.subjects.values())
    if due is not None and due.paused:
        yield _paused("timers", due, "deadlines and scheduled tasks")
    elif waiting and (due is None or is_down(due)):
        says = f"{waiting:,} deadlines or tasks are due and no process takes them; they are kept {span(KEPT_S)}"
        yield Finding("warning", "timers", says, "Start any worker, or `baton steward FLOW`.")
    elif due is not None and _is_stuck(due):
        says = f"{due.num_ack_pending:,} due messages were taken {span(_silent_s(due))} ago and not written to the log"
        yield Finding("warning", "timers", says, "Start any worker; see the logs of those that run.")
    else:
        yield Finding("ok", "timers", "nothing is due that nobody takes")


def judge_consumer(consumer: Consumer, settings: Settings) -> Iterator[Finding]:
    """Say what is not well with one consumer; nothing of one that is."""
    what, config = f"consumer {consumer.name}", consumer.config
    if config.max_deliver > 0:
        says = f"max_deliver = {config.max_deliver}: after that the server drops a handoff, and its run never ends"
        yield Finding("error", what, says, "Delete the consumer; a worker makes it anew as it must be.")
    if abs(config.lease_s - settings.lease_s) > 1e-6:
        says = f"leases of {span(config.lease_s)}, and {span(settings.lease_s)} in the settings of this command"
        yield Finding("note", what, says, "Give all workers one BATON_LEASE_S: the last to start wins.")
    if consumer.paused:
        yield _paused(what, consumer, f"its {consumer.num_pending:,} messages")
    elif consumer.num_pending and is_down(consumer):
        wait = "1 message waits" if consumer.num_pending == 1 else f"{consumer.num_pending:,} messages wait"
        says = f"{wait} and no process takes them; they are kept until one does"
        yield Finding("warning", what, says, "Start it: `baton up FLOW`, `baton actor` or `baton steward`.")
    elif _is_stuck(consumer):
        held = "1 message is" if consumer.num_ack_pending == 1 else f"{consumer.num_ack_pending:,} messages are"
        says = (
            f"{held} held, and for {span(_silent_s(consumer))} none was handed out "
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


def _paused(what: str, consumer: Consumer, held: str) -> Finding:
    says = f"paused for {span(consumer.pause_remaining / 1e9)} more: until then the server hands out none of {held}"
    return Finding(
        "error", what, says, f"`nats consumer resume {consumer.stream_name} {consumer.name}`, if nobody means it."
    )


def _left_over(ours: Sequence[Consumer]) -> Iterator[Finding]:
    """Actors whose flows may be gone. Each costs the server memory, and counts for its limit."""
    idle = [each.name for each in ours if not each.num_pending and is_down(each) and _silent_s(each) > LEFT_OVER_S]
    if idle:
        says = f"{len(idle):,} had neither work nor a process for {span(LEFT_OVER_S)}: {_some(idle)}"
        yield Finding("note", "consumers", says, "If their flows are gone, `nats consumer rm` removes them.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED_MAX]) + (", …" if len(names) > _NAMED_MAX else "")


def is_down(consumer: Consumer) -> bool:
    """Nobody asks for work, and nobody has any."""
    return not consumer.num_waiting and not consumer.num_ack_pending


def _is_stuck(consumer: Consumer) -> bool:
    """Nobody asks for work, and what is in hand has not moved for long."""
    held = bool(consumer.num_ack_pending) and not consumer.num_waiting
    return held and _silent_s(consumer) > SILENT_LEASES * consumer.config.lease_s


def _silent_s(consumer: Consumer) -> float:
    times = (consumer.delivered.last_active, consumer.ack_floor.last_active, consumer.created)
    moved = [at for at in times if at is not None]
    return (consumer.ts - max(moved)).total_seconds() if consumer.ts and moved else 0.0


def _consumers_max(vitals: Vitals, log: Stream) -> int:
    """Return the least of the limits that are known: of the stream, of the account, of the server."""
    account = vitals.account or Account()
    tier = account.tiers.get(f"R{log.config.num_replicas}", account)
    server = vitals.monitor.max_consumers if isinstance(vitals.monitor, Monitor) else CONSUMERS_MAX
    limits = (log.config.max_consumers, tier.limits.max_consumers, server)
    return min((limit for limit in limits if limit > 0), default=CONSUMERS_MAX)
