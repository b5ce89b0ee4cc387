"""What a run keeps that goes on under a changed flow: nothing that the change touches, and all that it does not."""

from __future__ import annotations

from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Flow, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import copies, decided_by, told_by
from baton_schemas.run.keeping import FAILED, keeping
from baton_schemas.run.past import Logged, Past, past_of
from baton_schemas.run.refs import base_of, name_of
from baton_schemas.run.remaking import remade
from baton_schemas.run.rounds import round_of
from baton_schemas.wire.messages import Handoff, Reply, Started
from baton_schemas.wire.outcomes import Done, Failed

from .simulator import Simulator, subject_of
from .strategies import flows
from .test_forks_property import Fork
from .test_lifecycle import leaves_branches, outcomes_in

MANY = settings(max_examples=40, deadline=None)
PROMPT = "Go on otherwise."


@st.composite
def changed(draw: st.DrawFn, flow: Flow) -> tuple[Flow, str]:
    """A later version of a flow, and the step that it changes; empty when what it changes decides nothing."""
    name = draw(st.sampled_from(list(flow.steps)))
    step, agent = flow.steps[name], flow.agents[flow.steps[name].agent]
    match draw(st.sampled_from(["prompt", "kind", "added", "join", "patience", "renamed", "again"])):
        case "again":
            assume(step.again is not None)
            assert step.again is not None
            longer = replace(step.again, max_rounds=step.again.max_rounds + 1)
            return replace(flow, steps={**flow.steps, name: replace(step, again=longer)}), name
        case "prompt":
            other = replace(agent, handler="module:other") if agent.handler else replace(agent, prompt=PROMPT)
            return replace(flow, agents={**flow.agents, step.agent: other}), name
        case "kind":
            other = Agent(handler="module:other", reads=[])
            return replace(flow, agents={**flow.agents, step.agent: other}), name
        case "added":
            assume(step.after)
            agents = {**flow.agents, "new": Agent(handler="module:new", reads=[])}
            steps = {"new": Step(agent="new"), **flow.steps, name: replace(step, after=[*step.after, "new"])}
            assume(not step.each)
            return replace(flow, agents=agents, steps=steps), name
        case "join":
            assume(name in Plan(flow).joins)
            policy = step.join or JoinPolicy()
            other_policy = replace(policy, deadline_s=7.0)
            return replace(flow, steps={**flow.steps, name: replace(step, join=other_policy)}), name
        case "patience":
            other = replace(agent, timeout_s=1.0, max_attempts=9, concurrency=3, actor="elsewhere")
            return replace(flow, agents={**flow.agents, step.agent: other}), ""
        case _:
            agents = {**{key: value for key, value in flow.agents.items() if key != step.agent}, "other": agent}
            steps = {key: replace(value, agent="other") if key == name else value for key, value in flow.steps.items()}
            return replace(flow, agents=agents, steps=steps), ""


@st.composite
def mended(draw: st.DrawFn) -> tuple[Simulator, Past, Fork, str]:
    """A run, and one that goes on from it under a changed flow; and the step that is another."""
    flow, choose = draw(flows()), draw(st.randoms(use_true_random=False))
    later, step = draw(changed(flow))
    try:
        check_flow(later)
    except FlowError:
        assume(False)
    origin = Simulator(flow, choose, stops=draw(st.booleans()))
    origin.run()
    until_seq = draw(st.one_of(st.just(0), st.integers(1, len(origin.log))))
    past = past_of([Logged(*stored) for stored in origin.log], until_seq)
    assert past is not None
    fork = Fork(later, origin, until_seq, choose, failed=draw(st.booleans()))
    fork.run()
    return origin, past, fork, step


def after(plan: Plan, step: str) -> set[str]:
    """The step and all that come after it."""
    found = {step} if step else set()
    for name in plan.order:
        if found & set(plan.sources[name]):
            found.add(name)
    return found


@MANY
@given(mended())
def test_run_under_a_changed_flow_ends_in_exactly_one_result(made: tuple[Simulator, Past, Fork, str]) -> None:
    _, _, fork, _ = made
    assert len(fork.results) == 1
    assert fork.results[0].status in ("failed", "expired") or name_of(fork.results[0].step) == fork.plan.final


@MANY
@given(mended())
def test_nothing_is_kept_of_what_a_change_touches(made: tuple[Simulator, Past, Fork, str]) -> None:
    _, _, fork, step = made
    touched = after(fork.plan, step)
    assert not {name_of(token) for token in fork.taken_over} & touched
    for loop in fork.plan.loops.values():
        if loop & touched:  # what the first round of a loop came to is what the next begins with
            assert not {token for token in fork.taken_over if name_of(token) in loop and round_of(token) > 1}


@MANY
@given(mended())
def test_what_no_change_touches_is_kept_as_it_was_and_not_done_again(made: tuple[Simulator, Past, Fork, str]) -> None:
    _, past, fork, step = made
    again = keeping(past, fork.plan, fork.input, failed=fork.redoes_failed).again
    for token, outcome in past.outcomes.items():
        name = name_of(token)
        if name in again or not past.plan.successors[name]:
            continue
        if round_of(token) > 1 and again.keys() & past.plan.loops[past.plan.loop_of[name]]:
            continue
        assert fork.finished[token] == outcome
    for name, why in again.items():
        touched = after(fork.plan, step) if step else set()
        tokens = [token for place in past.rounds(name) for token in past.tokens(place)]
        failed = [
            token for token in tokens if isinstance(past.outcomes[token], Failed) or past.led.get(token) == "fail"
        ]
        assert name in touched or (why == FAILED and failed) or why.startswith("after ") or why == "it is new"
    told = dict(fork.finished)
    for stored in fork.log:
        for token, ended in outcomes_in(stored.message):
            assert told.setdefault(token, ended) == ended
    few = {name for name in fork.plan.joins if leaves_branches(fork, name)}
    again_too = {call.handoff.step for call in fork.calls} & fork.finished.keys()
    assert not {token for token in again_too if name_of(token) not in few}


@MANY
@given(mended())
def test_what_is_done_anew_sees_what_was_kept(made: tuple[Simulator, Past, Fork, str]) -> None:
    _, _, fork, _ = made
    for call in fork.calls:
        step = base_of(call.handoff)
        for name in fork.plan.reads[step] & fork.finished.keys() - fork.plan.loop_of.keys():
            kept = fork.finished[name]
            if isinstance(kept, Done) and name not in fork.plan.sources[step]:
                seen = call.state.outputs.get(name)
                # A join that closed without a branch knows nothing of what came before that one.
                assert seen in (None, kept.output)
                assert seen is not None or leaves_any(fork, step)
        for name in fork.plan.reads[step] & fork.input.input.keys():
            assert call.state.input.get(name) in (None, fork.input.input[name])


def leaves_any(fork: Fork, step: str) -> bool:
    """Whether a step comes after a join that may close without a branch, or after an empty fan-out."""
    return bool(fork.plan.joins & {name for name in fork.plan.order if step in after(fork.plan, name)})


@MANY
@given(flows(), st.randoms(use_true_random=False), st.booleans(), st.integers(0, 60))
def test_records_that_are_made_anew_under_the_same_flow_are_those_of_the_log(
    flow: Flow, choose: Random, stops: bool, until_seq: int
) -> None:
    origin = Simulator(flow, choose, stops=stops)
    origin.run()
    log = [Logged(*stored) for stored in origin.log]
    until_seq = min(until_seq, len(log))
    past, first = past_of(log, until_seq), origin.log[0].message
    assert past is not None
    assert isinstance(first, Handoff)
    again = keeping(past, origin.plan, first.state).again
    copied = {subject_of(create): create for create in copies(origin.plan, log, first.run, 1, until_seq)}
    made = {subject_of(create): create for create in remade(past, origin.plan, first, 1)}
    for subject, create in copied.items():
        message = create.message
        if isinstance(message, Handoff) and isinstance(message.cause, Started):
            continue  # whoever begins the run writes it
        assert made.get(subject) == create or (subject not in made and name_of(decided_by(message)) in again)
    # What had not been derived yet from a record, when the run was cut off there, is only earlier.
    decided = told_by(copied.values())
    for subject in made.keys() - copied.keys():
        message = made[subject].message
        assert decided_by(message) in {*decided, ""} or (isinstance(message, Reply) and message.count == 0)
