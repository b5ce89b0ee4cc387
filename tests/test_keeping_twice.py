"""A run that goes on from one that goes on: its joins may close otherwise than the first time; nothing is guessed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baton_schemas.flow.flow import Agent, Flow, JoinPolicy, Step
from baton_schemas.run.fork import copies, decided_by
from baton_schemas.run.keeping import UNKNOWN, keeping
from baton_schemas.run.past import Logged, Past, past_of
from baton_schemas.run.refs import name_of
from baton_schemas.run.remaking import remade
from baton_schemas.wire.messages import Handoff, Started

from .simulator import Simulator, subject_of
from .strategies import INPUT
from .test_forks_property import Fork

LISTS = ["", "topics", "conf.items", "a", "b"]


def flow_of(each: str, reads: list[str] | None = None) -> Flow:
    """`a` and `b` each over a list; `c` (over a list too, as `each` says) once any of their branches has ended."""
    last = JoinPolicy() if each else None
    steps = {
        "a": Step(agent="x", each="topics"),
        "b": Step(agent="x", each="topics"),
        "c": Step(agent="first", each=each, after=["a", "b"], join=JoinPolicy(wait=1)),
        "d": Step(agent="last", after=["c"], join=last),
    }
    agents = {
        "x": Agent(handler="module:name", reads=[]),
        "first": Agent(handler="module:name", reads=["a", "b"]),
        "last": Agent(handler="module:name", reads=reads or ["c"]),
    }
    return Flow(name="any", input=INPUT, agents=agents, steps=steps)


def gone_on(flow: Flow, choose: Random) -> Fork:
    """A run that goes on from another of the same flow."""
    origin = Simulator(flow, choose)
    origin.run()
    fork = Fork(flow, origin, 0, choose)
    fork.run()
    return fork


def past_in(log: list[Logged]) -> Past:
    past = past_of(log)
    assert past is not None
    return past


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LISTS), st.randoms(use_true_random=False))
def test_what_a_merger_saw_is_what_its_record_says_however_its_join_closed_since(each: str, choose: Random) -> None:
    fork = gone_on(flow_of(each), choose)
    log, first = [Logged(*stored) for stored in fork.log], fork.first
    past = past_in(log)
    again = keeping(past, fork.plan, first.state).again
    made = {subject_of(create): create for create in remade(past, fork.plan, first, 1)}
    for create in copies(fork.plan, log, first.run, 1):
        message, subject = create.message, subject_of(create)
        if not (isinstance(message, Handoff) and isinstance(message.cause, Started)):
            assert made.get(subject) == create or (subject not in made and name_of(decided_by(message)) in again)


@pytest.mark.parametrize("reads", [["a", "c"], ["c", "topic"]])
def test_merger_is_done_again_when_what_it_saw_is_read_anew_and_no_record_says_it(reads: list[str]) -> None:
    """What it saw of its branches stands in no record; the input is known."""
    flow = flow_of("")
    later = replace(flow, agents={**flow.agents, "last": replace(flow.agents["last"], reads=reads)})
    plan = Simulator(later, Random(0)).plan
    whys = []
    for seed in range(60):
        fork = gone_on(flow, Random(seed))
        past = past_in([Logged(*stored) for stored in fork.log])
        kept = keeping(past, plan, fork.first.state)
        told = {decided_by(create.message) for create in remade(past, plan, fork.first, 1)}
        assert ("c" in told) == ("c" in kept.steps)
        if "c" in past.told and not kept.again.keys() & {"a", "b"}:
            whys.append(kept.again.get("c", ""))
    assert set(whys) == ({UNKNOWN} if "a" in reads else {""})
