"""The lifecycle of a run: properties of every flow, in every order of events, each decided twice."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.flow.flow import Flow
from baton_schemas.run.refs import base_of, ended_by, joined, name_of, parse, replied, tokens
from baton_schemas.run.rounds import ended_by_loop, in_round, outlasted, round_of
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import (
    After,
    Begins,
    Handoff,
    Joined,
    Message,
    OutcomeRecord,
    Reply,
    Result,
    Started,
)
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Done, Failed, Outcome, Skipped
from tests.simulator import Simulator
from tests.strategies import flows

CHOICES = st.randoms(use_true_random=False)
# Without `explain`, which traces each line while it shrinks; and with the time that hypothesis shrinks for (300 s), or
# a failure is cut off in its middle and told as a flaky strategy, in place of what failed.
MANY = settings(max_examples=60, deadline=None, phases=[each for each in Phase if each is not Phase.explain])
pytestmark = pytest.mark.timeout(400)


def simulated(flow: Flow, choose: Random, *, stops: bool = False) -> Simulator:
    simulator = Simulator(flow, choose, stops=stops)
    simulator.run()
    return simulator


def outcomes_in(message: Message) -> list[tuple[str, Outcome]]:
    """The outcomes that a message tells, by step."""
    match message:
        case Handoff(cause=After(step=step, outcome=outcome)):
            pass
        case Reply(source=source, outcome=outcome) if source != DEADLINE:
            step = ended_by(message)
        case OutcomeRecord(step=step, outcome=outcome) | Result(step=step, outcome=outcome):
            pass
        case _:
            return []
    return [(step, outcome)] if outcome else []


def outcomes_of(simulator: Simulator) -> dict[str, Outcome]:
    return dict(pair for stored in simulator.log for pair in outcomes_in(stored.message))


@MANY
@given(flows(), CHOICES)
def test_every_run_ends_in_exactly_one_result(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    assert len(simulator.results) == 1
    result = simulator.results[0]
    assert result.status == ("done" if isinstance(result.outcome, Done | Skipped) else "failed")
    assert result.status == "failed" or name_of(result.step) == simulator.plan.final


@MANY
@given(flows() | flows(loops=True), CHOICES)
def test_run_that_may_expire_or_be_cancelled_ends_in_exactly_one_result(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose, stops=True)
    assert len(simulator.results) == 1
    reasons = {"cancelled": "no longer needed", "expired": "the deadline of 100 s"}
    result = simulator.results[0]
    last = ended_by_loop(simulator.plan, result)
    assert result.reason == reasons.get(result.status, outlasted(simulator.plan, last) if last else "")
    assert (result.outcome is None) == (result.status in reasons or bool(last))


@MANY
@given(flows(), CHOICES)
def test_all_that_the_log_tells_of_a_step_is_one_outcome(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    told: dict[str, Outcome] = {}
    for stored in simulator.log:
        for step, outcome in outcomes_in(stored.message):
            assert told.setdefault(step, outcome) == outcome
    assert told


@MANY
@given(flows(), CHOICES)
def test_working_through_any_message_again_changes_nothing(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    before = list(simulator.log)
    # A join whose last reply was dropped may be closed by another of its replies: that is new, and no harm.
    unfinished = {stored.message.step for stored in simulator.dropped}
    again = [stored for stored in simulator.acked if stored.message.step not in unfinished]
    choose.shuffle(again)
    for stored in again:
        simulator.redeliver(stored)
    assert simulator.log == before


@MANY
@given(flows(), CHOICES)
def test_a_handoff_carries_no_more_than_is_read_later(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan = simulator.plan
    assert isinstance(simulator.log[0].message, Handoff)
    for stored in simulator.log[1:]:
        message = stored.message
        if isinstance(message, Handoff | Reply):
            step = name_of(message.step)
            names = {*message.state.input, *message.state.outputs, *message.state.blobs}
            assert names <= plan.carried[step]


@MANY
@given(flows(), CHOICES)
def test_a_step_sees_all_that_it_reads_and_every_error_before_it(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan, outcomes = simulator.plan, outcomes_of(simulator)
    result = simulator.results[0]
    # Nobody is called where all there was to do is to put out the list of nothing.
    nothing = isinstance(result.outcome, Skipped) or plan.final in plan.implied
    assert simulator.calls or result.status == "failed" or nothing
    for handoff, state in simulator.calls:
        step = base_of(handoff)
        loop = plan.loops.get(plan.loop_of.get(step, ""), frozenset[str]())
        earlier, number = {*ancestors(simulator, step), *loop}, round_of(handoff.step)
        if any(leaves_branches(simulator, name) for name in [step, *earlier] if name in plan.joins):
            continue
        for name in plan.reads[step]:
            if name in flow.input:
                assert state.input[name] == simulator.input.input[name]
                continue
            key = plan.key(step, name)
            read = in_round(name, number if name in loop else last_round(outcomes, name))
            if key != name:
                read = in_round(name, number - 1)
            if key != name and number == 1:
                assert key not in state.outputs
            elif flow.steps[name].each:
                assert (key in state.outputs) != (read in left_out(simulator))
            elif isinstance(outcome := outcomes[read], Done):
                assert state.outputs[key] == outcome.output
            else:
                assert key not in state.outputs or passes(flow)
        for token, outcome in outcomes.items():
            comes_later = round_of(token) >= number and (name_of(token) in loop - plan.earlier[step])
            in_time = name_of(token) not in loop or round_of(token) <= number
            if isinstance(outcome, Failed) and name_of(token) in earlier and in_time and not comes_later:
                assert state.errors.count(outcome.error) == 1


def left_out(simulator: Simulator) -> dict[str, str]:
    """The steps that the log says were left out, with the reason; a join of nothing tells of its fan-outs itself."""
    found = {
        step: outcome.reason
        for step, outcome in outcomes_of(simulator).items()
        if isinstance(outcome, Skipped) and outcome.left_out
    }
    for _, handoff, closing in closings_of(simulator):
        if isinstance(handoff.cause, Started) or not closing.branches:
            found |= {in_round(name, round_of(handoff.step)): why for name, why in closing.left_out.items()}
    return found


def passes(flow: Flow) -> bool:
    """Whether an error may stand in the place of an output."""
    return any(step.join is not None and step.join.failed == "pass" for step in flow.steps.values())


def last_round(outcomes: dict[str, Outcome], step: str) -> int:
    return max((round_of(token) for token in outcomes if name_of(token) == step), default=1)


def leaves_branches(simulator: Simulator, join: str) -> bool:
    """Whether a join may close without some of its branches."""
    policy = simulator.plan.join_policy(join)
    return policy.wait != "all" or policy.deadline_s is not None


def ancestors(simulator: Simulator, step: str) -> set[str]:
    sources = simulator.plan.sources[step]
    return set(sources).union(*(ancestors(simulator, source) for source in sources))


def closings_of(simulator: Simulator) -> list[tuple[int, Handoff, Joined]]:
    """The handoffs that close joins, with the sequence of each."""
    handoffs = [(seq, message) for seq, _, message in simulator.log if isinstance(message, Handoff)]
    return [(seq, handoff, closing) for seq, handoff in handoffs if (closing := joined(handoff)) is not None]


def replies_to(simulator: Simulator, join: str) -> dict[str, tuple[int, Reply]]:
    """The replies to a join and their sequences, by branch."""
    return {
        replied(stored.message): (stored.seq, stored.message)
        for stored in simulator.log
        if isinstance(stored.message, Reply) and stored.message.step == join
    }


@MANY
@given(flows(), CHOICES)
def test_a_join_hands_over_the_branches_it_names_and_closes_once(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    closings = closings_of(simulator)
    assert len({handoff.step for _, handoff, _ in closings}) == len(closings)
    for seq, handoff, closing in closings:
        replies = replies_to(simulator, handoff.step)
        sources = simulator.plan.sources[base_of(handoff)]
        assert list(closing.branches) == [source for source in sources if source in closing.branches]
        for source, text in closing.branches.items():
            for branch in tokens(source, text):
                assert replies[branch][0] < seq
                assert parse(branch).name == source
                assert replies[branch][1].count == closing.counts[source]
        assert not closing.deadline or replies[DEADLINE][0] < seq


@MANY
@given(flows(), CHOICES)
def test_a_join_closes_with_what_its_chain_says(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    for _, handoff, _ in closings_of(simulator):
        chain = simulator.chain_of(handoff.step)
        if isinstance(handoff.cause, Joined) and chain is not None:
            assert chain.closing() == handoff


@MANY
@given(flows(), CHOICES)
def test_a_join_with_too_few_branches_fails_without_its_handler(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    called = [handoff.step for handoff, _ in simulator.calls]
    for _, handoff, closing in closings_of(simulator):
        replies = replies_to(simulator, handoff.step)
        names = [branch for source, text in closing.branches.items() for branch in tokens(source, text)]
        done = sum(isinstance(replies[branch][1].outcome, Done) for branch in names)
        all_left_out = closing.left_out.keys() >= set(simulator.plan.sources[base_of(handoff)])
        short = done < simulator.plan.join_policy(handoff.step).min_done and not all_left_out
        assert (closing.error is not None) == short
        assert not (short and handoff.step in called)


@MANY
@given(flows(), CHOICES)
def test_every_message_is_the_same_after_encoding_and_decoding(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    for stored in simulator.log:
        assert decode(encode(stored.message)) == stored.message


@MANY
@given(flows(), CHOICES)
def test_only_the_first_handoff_carries_the_flow_and_all_others_point_to_it(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    first, *others = [stored.message for stored in simulator.log]
    assert isinstance(first, Handoff)
    assert isinstance(first.cause, Started)
    assert first.cause.begins == Begins(flow_body=Raw(simulator.plan.body))
    assert first.state == simulator.input
    for message in others:
        assert not (isinstance(message, Handoff) and isinstance(message.cause, Started) and message.cause.begins)
        assert getattr(message, "start_seq", 0) == 1
