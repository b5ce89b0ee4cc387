"""What follows from one event of a run: starts, fan-outs over little or nothing, timers and ends."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.lifecycle import (
    Action,
    Begun,
    CancelTimer,
    Create,
    Ended,
    Entered,
    Event,
    Lists,
    Recorded,
    SetTimer,
    Stopped,
    Submitted,
    View,
    decide,
)
from baton_schemas.run.refs import joined, replied
from baton_schemas.wire.messages import (
    Branch,
    Handoff,
    Joined,
    Message,
    OutcomeRecord,
    Reply,
    Result,
    Started,
)
from baton_schemas.wire.names import DEADLINE, END
from baton_schemas.wire.outcomes import Done, Error, Failed, ResultStatus, Skipped, State

HANDLER = {"x": Agent(handler="module:name")}
INPUT = State(input=encode_input({"topics": ["a"]}))


def plan_of(steps: dict[str, Step], **more: Any) -> Plan:
    return check_flow(Flow(name="any", input={"topics": Field(type="list")}, agents=HANDLER, steps=steps, **more))


def first_of(plan: Plan, lists: Lists | None = None, deadline_s: float = 0.0) -> Handoff:
    (create,) = decide(View(plan, lists=lists or {}), Submitted("run", INPUT, deadline_s))
    assert isinstance(create, Create)
    assert isinstance(create.message, Handoff)
    return create.message


def created(plan: Plan, event: Event, lists: Lists | None = None) -> list[Message]:
    actions = decide(View(plan, lists=lists or {}), event)
    return [action.message for action in actions if isinstance(action, Create)]


SPREAD = {"split": Step(agent="x", each="topics"), "merge": Step(agent="x", after=["split"])}
ITEM = Raw(b'"a"')


@pytest.mark.parametrize(("min_done", "error"), [(0, None), (1, "JoinShort")])
def test_a_join_of_nothing_but_an_empty_list_begins_at_once(min_done: int, error: str | None) -> None:
    plan = plan_of({**SPREAD, "merge": Step(agent="x", after=["split"], join=JoinPolicy(min_done=min_done))})
    first = first_of(plan)
    assert isinstance(first.cause, Started)
    closing = joined(first)
    assert closing is not None
    assert (first.step, closing.branches, closing.counts) == ("merge", {}, {"split": 0})
    assert (closing.error.type if closing.error else None) == error
    assert created(plan, Begun(first, 1, 0.0)) == []


def test_a_join_of_an_empty_list_beside_another_first_step_is_told_that_there_is_nothing() -> None:
    steps = {"split": Step(agent="x", each="topics"), "other": Step(agent="x")}
    plan = plan_of({**steps, "merge": Step(agent="x", after=["split", "other"])})
    first = first_of(plan)
    (reply,) = created(plan, Begun(first, 7, 0.0))
    assert (first.step, joined(first)) == ("other", None)
    assert isinstance(reply, Reply)
    assert (replied(reply), reply.count, reply.each, reply.start_seq) == ("split", 0, True, 7)
    assert reply.outcome == Skipped(reason="'topics' is empty")


def test_a_run_that_starts_with_two_joins_of_nothing_begins_both() -> None:
    steps = {**SPREAD, "also": Step(agent="x", after=["split"]), "last": Step(agent="x", after=["merge", "also"])}
    plan = plan_of(steps)
    first = first_of(plan)
    (second,) = created(plan, Begun(first, 1, 0.0))
    assert isinstance(second, Handoff)
    assert (first.step, second.step) == ("merge", "also")
    assert second.cause == Joined(counts={"split": 0})


def test_each_of_one_item_is_one_branch_that_the_join_waits_for() -> None:
    plan = plan_of(SPREAD)
    first = first_of(plan, {"split": [ITEM]})
    assert (first.step, first.branch) == ("split-0", Branch(index=0, count=1, item=ITEM))
    assert created(plan, Begun(first, 1, 0.0), {"split": [ITEM]}) == []
    (reply,) = created(plan, Ended(first, first.state, Done(), 1))
    assert isinstance(reply, Reply)
    assert (reply.source, reply.index, reply.count, reply.each, replied(reply)) == ("split", 0, 1, True, "split-0")


def test_a_step_that_goes_on_after_its_failure_tells_the_fan_out_over_it_that_there_is_nothing() -> None:
    steps = {
        "plan": Step(agent="x", on_error="continue"),
        "part": Step(agent="x", each="plan"),
        "merge": Step(agent="x", after=["part"]),
    }
    plan = plan_of(steps)
    first = first_of(plan)
    failed = Failed(error=Error(step="plan", type="Oops", message="no"))
    (record,) = created(plan, Ended(first, first.state, failed, 1))
    assert isinstance(record, OutcomeRecord)
    (reply,) = created(plan, Recorded(record))
    assert isinstance(reply, Reply)
    assert reply.outcome == Skipped(reason="the step before it failed")
    assert reply.state.errors == [failed.error]


# ---- timers ----------------------------------------------------------------------------------------


def timers_in(actions: list[Action]) -> list[SetTimer]:
    return [action for action in actions if isinstance(action, SetTimer)]


TIMED = {
    "a": Step(agent="x"),
    "b": Step(agent="x"),
    "merge": Step(agent="x", after=["a", "b"], join=JoinPolicy(deadline_s=5.0)),
}


def test_the_deadline_of_a_run_counts_from_when_its_first_handoff_was_stored() -> None:
    plan = plan_of({"a": Step(agent="x")})
    first = first_of(plan, deadline_s=10.0)
    (timer,) = timers_in(decide(View(plan, now_s=1005.0), Begun(first, 3, 1000.0)))
    assert (timer.who, timer.run, timer.step, timer.due_s) == ("any", "run", END, 1010.0)
    assert isinstance(timer.message, Result)
    assert (timer.message.status, timer.message.start_seq) == ("expired", 3)
    assert timer.message.reason == "the deadline of 10 s"


def test_a_run_that_is_begun_after_its_deadline_expires_and_nothing_else_of_it_starts() -> None:
    plan = plan_of(TIMED)
    first = first_of(plan, deadline_s=10.0)
    (only,) = decide(View(plan, now_s=1010.0), Begun(first, 3, 1000.0))
    assert isinstance(only, Create)
    assert isinstance(only.message, Result)
    assert (only.message.status, only.message.flow) == ("expired", "any")


def test_the_deadline_of_a_join_is_set_when_the_first_of_its_sources_is_entered() -> None:
    plan = plan_of(
        {
            "start_": Step(agent="x"),
            **{name: replace(step, after=step.after or ["start_"]) for name, step in TIMED.items()},
        }
    )
    first = first_of(plan)
    assert timers_in(decide(View(plan, now_s=100.0), Begun(first, 1, 100.0))) == []
    record = OutcomeRecord(run="run", flow="any", digest=plan.digest, step="start_", outcome=Done(), start_seq=1)
    (timer,) = timers_in(decide(View(plan, now_s=107.0), Recorded(record)))
    assert (timer.who, timer.step, timer.due_s) == (plan.actor("merge"), "merge", 112.0)
    assert isinstance(timer.message, Reply)
    assert (timer.message.source, timer.message.count, timer.message.start_seq) == (DEADLINE, 0, 1)


def test_the_deadline_of_a_join_of_first_steps_is_set_when_the_run_begins_and_at_its_sources() -> None:
    plan = plan_of(TIMED)
    first = first_of(plan)
    (timer,) = timers_in(decide(View(plan, now_s=100.0), Begun(first, 1, 100.0)))
    (again,) = timers_in(decide(View(plan, now_s=100.0), Entered(first, first.state, 1)))
    assert timer == again
    assert timer.due_s == 105.0


def test_the_deadline_of_a_join_after_joins_is_not_set_while_those_wait() -> None:
    steps = {
        "a": Step(agent="x"),
        "b": Step(agent="x"),
        "one": Step(agent="x", after=["a", "b"]),
        "two": Step(agent="x", after=["b", "a"]),
        "merge": Step(agent="x", after=["one", "two"], join=JoinPolicy(deadline_s=5.0)),
    }
    plan = plan_of(steps)
    record = OutcomeRecord(run="run", flow="any", digest=plan.digest, step="a", outcome=Done(), start_seq=1)
    assert timers_in(decide(View(plan), Recorded(record))) == []
    closing = Handoff(run="run", flow="any", digest=plan.digest, step="one", cause=Joined(branches={}), start_seq=1)
    (timer,) = timers_in(decide(View(plan, now_s=7.0), Entered(closing, State(), 1)))
    assert (timer.step, timer.due_s) == ("merge", 12.0)


def test_a_join_that_a_run_starts_with_has_no_deadline() -> None:
    plan = plan_of({**SPREAD, "merge": Step(agent="x", after=["split"], join=JoinPolicy(min_done=0, deadline_s=5.0))})
    first = first_of(plan)
    assert first.step == "merge"
    assert decide(View(plan), Begun(first, 1, 0.0)) == []
    first = first_of(plan, {"split": [ITEM]})
    assert timers_in(decide(View(plan, lists={"split": [ITEM]}), Begun(first, 1, 0.0))) != []


def test_a_stored_result_takes_the_timer_of_the_run_back() -> None:
    plan = plan_of({"a": Step(agent="x")}, deadline_s=10.0)
    first = first_of(plan, deadline_s=10.0)
    (result,) = created(plan, Ended(first, first.state, Done(), 1))
    assert isinstance(result, Result)
    assert decide(View(plan), Recorded(result)) == [CancelTimer("any", "run", END)]


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
def test_a_run_that_is_stopped_has_one_result_that_says_why(status: ResultStatus) -> None:
    plan = plan_of({"a": Step(agent="x")})
    (only,) = decide(View(plan), Stopped("run", status, "a reason", 4, "a"))
    assert isinstance(only, Create)
    assert isinstance(only.message, Result)
    assert (only.message.status, only.message.reason, only.message.step) == (status, "a reason", "a")
    assert only.message.start_seq == 4
