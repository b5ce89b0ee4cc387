"""Routing, joins and the state carried: properties of every flow, in every order of events."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.lifecycle import base_of, start
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import (
    NULL,
    Done,
    Failed,
    Handoff,
    Message,
    Outcome,
    OutcomeRecord,
    Reply,
    Result,
    State,
)
from baton_schemas.wire.names import JOIN
from tests.simulator import Simulator
from tests.strategies import flows

CHOICES = st.randoms(use_true_random=False)
MANY = settings(max_examples=60, deadline=None)


def simulated(flow: Flow, choose: Random) -> Simulator:
    simulator = Simulator(flow, choose)
    simulator.run()
    return simulator


def outcomes_in(message: Message) -> list[tuple[str, Outcome]]:
    """The outcomes that a message tells, by step."""
    match message:
        case Handoff(source=step, outcome=outcome) | Reply(branch=step, outcome=outcome):
            pass
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
    assert result.status == ("done" if isinstance(result.outcome, Done) else "failed")
    assert result.status == "failed" or result.step == simulator.plan.final


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
            step = base_of(message) if isinstance(message, Handoff) else message.step
            names = {*message.state.input, *message.state.outputs, *message.state.blobs}
            assert names <= plan.carried[step]


@MANY
@given(flows(), CHOICES)
def test_a_step_sees_all_that_it_reads_and_every_error_before_it(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan, outcomes = simulator.plan, outcomes_of(simulator)
    assert simulator.calls or simulator.results[0].status == "failed"
    for handoff, state in simulator.calls:
        step = base_of(handoff)
        earlier = ancestors(simulator, step)
        if any(plan.join_policy(name).wait != "all" for name in [step, *earlier] if name in plan.joins):
            continue
        for name in plan.reads[step]:
            if name in flow.input:
                assert state.input[name] == simulator.input.input[name]
            elif flow.steps[name].each:
                assert name in state.outputs
            elif isinstance(outcome := outcomes[name], Done):
                assert state.outputs[name] == outcome.output
        for name, outcome in outcomes.items():
            if isinstance(outcome, Failed) and plan.name_of(name) in earlier:
                assert state.errors.count(outcome.error) == 1


def ancestors(simulator: Simulator, step: str) -> set[str]:
    sources = simulator.plan.sources[step]
    return set(sources).union(*(ancestors(simulator, source) for source in sources))


@MANY
@given(flows(), CHOICES)
def test_a_join_hands_over_the_branches_it_names_and_closes_once(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    closings = [
        stored.message
        for stored in simulator.log
        if isinstance(stored.message, Handoff) and stored.message.source == JOIN
    ]
    assert len({handoff.step for handoff in closings}) == len(closings)
    for handoff in closings:
        for branch in handoff.branches:
            reply = simulator.log[branch.seq - 1].message
            assert isinstance(reply, Reply)
            assert (reply.step, reply.branch) == (handoff.step, branch.name)


@MANY
@given(flows(), CHOICES)
def test_a_join_with_too_few_branches_fails_without_its_handler(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    called = [handoff.step for handoff, _ in simulator.calls]
    for stored in simulator.log:
        message = stored.message
        if not isinstance(message, Handoff) or message.source != JOIN:
            continue
        replies = [simulator.log[branch.seq - 1].message for branch in message.branches]
        done = sum(isinstance(reply, Reply) and isinstance(reply.outcome, Done) for reply in replies)
        short = done < simulator.plan.join_policy(message.step).min_done
        assert (message.error is not None) == short
        assert not (short and message.step in called)


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
    assert first.flow_body != NULL
    assert first.state == simulator.input
    for message in others:
        assert getattr(message, "flow_body", NULL) == NULL
        assert getattr(message, "start_seq", 0) == 1


@pytest.mark.parametrize(("min_done", "error"), [(0, None), (1, "JoinShort")])
def test_a_join_of_nothing_but_an_empty_list_begins_at_once(min_done: int, error: str | None) -> None:
    steps = {
        "split": Step(agent="x", each="topics"),
        "merge": Step(agent="x", after=["split"], join=JoinPolicy(min_done=min_done)),
    }
    agents = {"x": Agent(handler="module:name")}
    flow = Flow(name="any", input={"topics": Field(type="list")}, agents=agents, steps=steps)
    (only,) = start(check_flow(flow), "run", State(input=encode_input({"topics": []})), {"split": []})
    assert isinstance(only.message, Handoff)
    assert (only.message.step, only.message.source) == ("merge", JOIN)
    assert (only.message.error.type if only.message.error else None) == error
