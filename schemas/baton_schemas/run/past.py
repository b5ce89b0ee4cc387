"""How the steps of a run ended, as its log says up to a point: what a run that goes on from it may keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from baton_schemas.errors import SchemaError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Branch, Handoff, Joined, Message, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Done, Failed, Outcome, Skipped, State

from .fits import misfit
from .refs import INDEX_MAX, ended_by, joined, name_of, parse, whole
from .rounds import Follows, ended_by_loop, in_round, may_follow, round_of


class Logged(NamedTuple):
    """A message of the log, with its stream sequence and the actor in its subject."""

    seq: int
    actor: str
    message: Message


class Past(Struct, frozen=True):
    """What the log of a run says of its steps, by their tokens (`digest-3` for a branch)."""

    plan: Plan
    """The flow that the run has."""
    first: Handoff
    outcomes: dict[str, Outcome]
    """How each ended. The failure that ended the run is among them, and so is the output of the last step."""
    branches: dict[str, Branch]
    """Of a fan-out's branches: place and item, as far as their handoffs are there."""
    counts: dict[str, int]
    """By fan-out: how many branches it has; 0 when its list was empty."""
    closings: dict[str, Joined]
    """By step that joins: the branches that it closed with."""
    left_out: dict[str, str] = {}
    """The fan-outs that were left out, and why."""
    deadlines: dict[str, State] = {}
    """By step that joins, in its round: what word of its deadline carries."""
    told: dict[str, State] = {}
    """By step that joins, in its round: what its record carries, where that was copied from the run before, and its
    join may have closed there with other branches than here."""
    led: dict[str, Follows] = {}
    """What came after a step with `again`, by its token, as far as that is there."""

    def tokens(self, step: str) -> list[str]:
        """Return the step itself, or its branches in their order, as far as they have ended; `step` has its round."""
        count, ref = self.counts.get(step), parse(step)
        names = [step] if count is None else [replace(ref, index=index).token for index in range(count)]
        return [name for name in names if name in self.outcomes]

    def led_to(self, token: str) -> Follows | None:
        """Return what came after a step with `again`, by its token; None when that is not known."""
        outcome = self.outcomes.get(token)
        sure: Follows | None = "on" if outcome is not None and not isinstance(outcome, Done) else None
        return sure or self.led.get(token)

    def rounds(self, step: str) -> list[str]:
        """Return a step with each of the rounds that it has had of its loop; of one in no loop, itself."""
        if step not in self.plan.loop_of:
            return [step]
        ended = (parse(token) for token in self.outcomes)
        last = max((ref.round for ref in ended if ref.name == step), default=1)
        last = min(max(last, 1), self.plan.rounds_max(step))  # a stranger's may say anything
        return [in_round(step, number) for number in range(1, last + 1)]


def past_of(log: Iterable[Logged], until_seq: int = 0) -> Past | None:
    """Return how the steps of a run had ended by `until_seq` (0: all of them), from its messages in their order.

    None when its first handoff is not there, or has a flow that this release cannot read.
    """
    past: Past | None = None
    for seq, _, message in log:
        if past is None:
            past = _begun(message)
        # What its first handoff says is so from the beginning on.
        elif (not until_seq or seq <= until_seq) and is_ours(past.plan, message) and _fits(past.plan, message):
            _take(past, message)
    return past


def is_ours(plan: Plan, message: Message) -> bool:
    """Say whether the lifecycle of this flow could have written a message: the log keeps what it rejected, too."""
    if not isinstance(message, Handoff | Reply | OutcomeRecord | Result):
        return False
    if (message.flow, message.digest) != (plan.flow.name, plan.digest):
        return False
    sources = plan.sources.get(name_of(message.step))
    match message:
        case Handoff(cause=After(step=step)):
            return sources is not None and whole(message.step) in may_follow(plan, step)
        case Reply(source=source) if source != DEADLINE:
            return sources is not None and source in sources
        case _:
            return sources is not None


def _fits(plan: Plan, message: Message) -> bool:
    """Say whether a message of this flow tells of branches that there can be."""
    match message:
        case Handoff() | Reply():
            return not misfit(plan, message)
        case OutcomeRecord(branch=Branch() as branch):
            return 0 <= branch.index < branch.count <= INDEX_MAX and parse(message.step).index == branch.index
        case OutcomeRecord(step=step) | Result(step=step):
            return round_of(step) <= plan.rounds_max(name_of(step))
        case _:
            return True


def _begun(message: Message) -> Past | None:
    cause = message.cause if isinstance(message, Handoff) else None
    if not isinstance(message, Handoff) or not isinstance(cause, Started) or cause.begins is None:
        return None
    try:
        plan = check_flow(decode_flow(cause.begins.flow_body), stored=True)
    except (msgspec.DecodeError, SchemaError, ValueError, RecursionError):
        return None
    past = Past(plan=plan, first=message, outcomes={}, branches={}, counts={}, closings={}, deadlines={}, told={})
    _take(past, message)
    return past


def _take_what_led_to(past: Past, reply: Reply) -> None:
    """Take which step came before a fan-out that had no branches, if that ends a loop."""
    plan, fan_out = past.plan, reply.source
    if reply.round > 1 and fan_out == plan.first_of_loop(last := plan.loop_of[fan_out]):
        past.led.setdefault(in_round(last, reply.round - 1), "again")
    for source in plan.sources[fan_out]:
        if source in plan.loops:
            past.led.setdefault(past.rounds(source)[-1], "on")


def _take_what_was_told(past: Past, message: Message) -> None:
    """Take what the record of a merger carries that was copied from another run, if it may rest on another closing."""
    match message:
        case Handoff(copied=True, cause=After(step=token, outcome=Done() | Failed() | Skipped())):
            pass
        case Reply(copied=True, source=source) if source != DEADLINE and not message.each:
            token = ended_by(message)
        case OutcomeRecord(copied=True, branch=None, step=token):
            pass
        case _:
            return
    step = past.plan.name_of(token)
    if step in past.plan.joins:
        policy = past.plan.join_policy(step)
        if policy.wait != "all" or policy.deadline_s:
            assert isinstance(message, Handoff | Reply | OutcomeRecord)
            past.told.setdefault(token, message.state)


def _take(past: Past, message: Message) -> None:
    _take_what_was_told(past, message)
    match message:
        case Handoff():
            if message.branch is not None:
                past.branches.setdefault(message.step, message.branch)
                past.counts.setdefault(whole(message.step), message.branch.count)
            if (closing := joined(message)) is not None:
                past.closings.setdefault(message.step, closing)
                for name in [name for name in closing.left_out if past.plan.step(name).each]:
                    fan_out = in_round(name, round_of(message.step))
                    past.counts.setdefault(fan_out, 0)
                    past.left_out.setdefault(fan_out, closing.left_out[name])
            if isinstance(message.cause, After):
                again = round_of(message.step) > round_of(message.cause.step)
                past.led.setdefault(message.cause.step, "again" if again else "on")
            if isinstance(message.cause, After) and message.cause.outcome is not None:
                past.outcomes.setdefault(message.cause.step, message.cause.outcome)
        case Reply(source=source) if source == DEADLINE:
            past.deadlines.setdefault(message.step, message.state)
        case Reply(source=source):
            ended = ended_by(message)
            past.led.setdefault(ended, "on")
            if not message.count:  # a fan-out without branches has no handoff, which would say what it comes after
                _take_what_led_to(past, message)
            if message.each:
                past.counts.setdefault(whole(ended), message.count)
                if isinstance(message.outcome, Skipped) and message.outcome.left_out:
                    past.left_out.setdefault(whole(ended), message.outcome.reason)
            if message.count:
                past.outcomes.setdefault(ended, message.outcome)
        case OutcomeRecord():
            if message.branch is not None:
                past.counts.setdefault(whole(message.step), message.branch.count)
            past.outcomes.setdefault(message.step, message.outcome)
        case Result() if last := ended_by_loop(past.plan, message):
            past.led.setdefault(last, "fail")
        case Result(step=step, outcome=Done() | Failed() | Skipped() as outcome):
            past.outcomes.setdefault(step, outcome)
        case _:
            pass
