"""What differs between two versions of a flow, and why a step is done again: a table of changes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import DEFAULT_TIERS, Agent, Field, Flow, JoinPolicy, Step, Tier
from baton_schemas.run.changes import Change, changed_agents
from baton_schemas.run.fork import copied_into, forked_start, origin_of, told_by
from baton_schemas.run.keeping import FAILED, keeping
from baton_schemas.run.past import Logged, Past, past_of
from baton_schemas.run.refs import name_of
from baton_schemas.wire.messages import Handoff, OutcomeRecord, Reply
from baton_schemas.wire.outcomes import Done, Error, Failed, State, Usage, Work

from .simulator import Simulator

FLOW = Flow(
    name="triage",
    input={"topics": Field(type="list[str]"), "conf": Field(type="dict"), "topic": Field()},
    tiers=DEFAULT_TIERS,
    agents={
        "plan": Agent(model="worker", prompt="{topic}"),
        "read": Agent(model="worker", prompt="{item} of {plan}", system="Be brief."),
        "count": Agent(handler="./count.py:count", reads=["read"]),
        "write": Agent(model="synthesis", prompt="{count}"),
    },
    steps={
        "plan": Step(agent="plan"),
        "read": Step(agent="read", each="topics", after=["plan"], on_error="continue"),
        "count": Step(agent="count", after=["read"]),
        "write": Step(agent="write", after=["count"]),
    },
)


def agent(name: str, **changes: Any) -> Callable[[Flow], Flow]:
    return lambda flow: replace(flow, agents={**flow.agents, name: replace(flow.agents[name], **changes)})


def step(name: str, **changes: Any) -> Callable[[Flow], Flow]:
    return lambda flow: replace(flow, steps={**flow.steps, name: replace(flow.steps[name], **changes)})


def renamed(flow: Flow) -> Flow:
    agents = {("reader" if name == "read" else name): value for name, value in flow.agents.items()}
    return step("read", agent="reader")(replace(flow, agents=agents))


class Fails(Simulator):
    """Each handler puts out a list; branch 1 of `read` fails when it is to."""

    def __init__(self, flow: Flow, *failing: str) -> None:
        super().__init__(flow, Random(7))
        self.failing = failing
        self.input = replace(self.input, input={**self.input.input, "topics": Raw(b'["x","y","z"]')})

    def _handle(self, handoff: Handoff, state: State) -> Any:
        if handoff.step in self.failing:
            return Failed(error=Error(step=handoff.step, type="Oops", message="no"))
        return Done(output=Raw(b'["a"]'))


def past(*failing: str) -> tuple[list[Logged], Past]:
    simulator = Fails(FLOW, *failing)
    simulator.run()
    log = [Logged(*stored) for stored in simulator.log]
    found = past_of(log)
    assert found is not None
    return log, found


DONE = past()
WITH_A_FAILURE = past("read-1")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (agent("read", prompt="Read {item}."), {"read": "another prompt", "count": "after read"}),
        (agent("read", model="claude-opus-4-1", max_tokens=1024), {"read": "another model", "count": "after read"}),
        (agent("read", max_tokens=7), {"read": "another max_tokens", "count": "after read"}),
        (agent("read", system=""), {"read": "another system", "count": "after read"}),
        (agent("count", handler="./count.py:other"), {"count": "another handler"}),
        (agent("count", reads=["read", "plan"]), {"count": "it reads other values"}),
        (agent("read", model="claude-haiku-4-5", max_tokens=1024), {}),
        (agent("read", max_attempts=9, timeout_s=1.0, concurrency=2, actor="elsewhere", overload_max_s=1.0), {}),
        (step("read", each="conf.items"), {"read": "another each", "count": "after read"}),
        (step("write", after=["count", "plan"]), {"write": "another after"}),
        (step("count", join=JoinPolicy(min_done=1)), {"count": "another join"}),
        (step("count", join=JoinPolicy(failed="pass")), {}),
        (step("count", on_error="continue", timeout_s=3.0), {}),
        (renamed, {}),
        (lambda flow: replace(flow, description="another", deadline_s=9.0), {}),
        (lambda flow: replace(flow, tiers={**flow.tiers, "unused": Tier(model="m")}), {}),
        (
            lambda flow: replace(flow, tiers={**flow.tiers, "worker": Tier(model="m", max_tokens=1024)}),
            {"plan": "another model", "read": "another model", "count": "after read"},
        ),
    ],
)
def test_step_is_done_again_for_what_decides_its_outcome_and_for_nothing_else(
    change: Callable[[Flow], Flow], again: dict[str, str]
) -> None:
    _, done = DONE
    plan = check_flow(change(FLOW))
    kept = keeping(done, plan, done.first.state)
    # The last step of a run is never kept: there would be nothing left to do.
    assert kept.again == again | ({"write": "after count"} if "count" in again else {})
    assert {name_of(token) for token in kept.steps} == {"plan", "read", "count"} - again.keys()


def test_value_of_an_input_that_is_another_is_a_change_for_those_who_read_it() -> None:
    _, done = DONE
    given = replace(done.first.state, input={**done.first.state.input, "topic": Raw(b'"another"')})
    again = keeping(done, done.plan, given).again
    assert again == {"plan": "another input topic", "read": "after plan", "count": "after read", "write": "after count"}
    given = replace(done.first.state, input={**done.first.state.input, "topics": Raw(b'["x"]')})
    assert keeping(done, done.plan, given).again["read"] == "another input topics"


def test_failed_branch_stands_unless_it_is_to_be_done_again_or_would_end_the_run() -> None:
    _, failed = WITH_A_FAILURE
    kept = keeping(failed, failed.plan, failed.first.state)
    assert kept.again == {}
    assert kept.steps == {"plan", "read-0", "read-1", "read-2", "count"}
    for plan, more in (
        (failed.plan, {"failed": True}),
        (check_flow(step("read", on_error="fail")(FLOW)), {}),
        (check_flow(step("count", join=JoinPolicy(failed="fail"))(FLOW)), {}),
    ):
        kept = keeping(failed, plan, failed.first.state, **more)
        assert kept.steps == {"plan", "read-0", "read-2"}
        assert kept.again["read"] == FAILED
    passed = check_flow(step("count", join=JoinPolicy(failed="pass"))(FLOW))
    kept = keeping(failed, passed, failed.first.state)
    assert kept.again["count"] == "a failed branch means something else to its join"
    assert "read-1" in kept.steps


def test_another_limit_of_tokens_touches_only_answers_that_were_cut_off_or_would_be() -> None:
    _, done = DONE
    used = [Done(work=Work(usage=Usage(output_tokens=tokens)), truncated=tokens == 1024) for tokens in (10, 300, 1024)]
    outcomes = done.outcomes | {f"read-{index}": outcome for index, outcome in enumerate(used)}
    told = replace(done, outcomes=outcomes)
    for limit, kept in ((2048, {"read-0", "read-1"}), (200, {"read-0"}), (1024, {"read-0", "read-1", "read-2"})):
        plan = check_flow(agent("read", max_tokens=limit)(FLOW))
        found = keeping(told, plan, done.first.state)
        assert {token for token in found.steps if token.startswith("read")} == kept
        assert found.again.get("count", "") == ("after read" if len(kept) < 3 else "")


def test_output_of_the_last_step_is_kept_when_another_comes_after_it() -> None:
    log, done = DONE
    later = replace(
        FLOW,
        agents={**FLOW.agents, "check": Agent(model="worker", prompt="{write}")},
        steps={**FLOW.steps, "check": Step(agent="check", after=["write"])},
    )
    plan = check_flow(later)
    first = forked_start(done.first, "new")
    origin = origin_of(first)
    assert origin is not None
    copied = copied_into(plan, log, replace(first, digest=plan.digest), origin, 1)
    assert "write" in told_by(copied)
    (handoff,) = [each for _, each in copied if isinstance(each, Handoff) and each.step == "check"]
    assert handoff.copied
    assert all(isinstance(each, Handoff | Reply | OutcomeRecord) and each.run == "new" for _, each in copied)


def test_agents_that_changed_are_named_with_what_changed() -> None:
    later = agent("read", prompt="Otherwise {item}", model="claude-opus-4-1", max_tokens=9, timeout_s=9.0)(FLOW)
    later = replace(later, agents={**later.agents, "new": Agent(handler="./a.py:b")})
    later = replace(later, steps={**later.steps, "write": Step(agent="new", after=["count"])})
    later = replace(later, agents={name: each for name, each in later.agents.items() if name != "write"})
    before, after = check_flow(FLOW), check_flow(later)
    assert changed_agents(before, after) == {
        "read": [
            Change("model", "claude-haiku-4-5", "claude-opus-4-1"),
            Change("prompt", "{item} of {plan}", "Otherwise {item}"),
            Change("max_tokens", 1024, 9),
            Change("timeout_s", 300.0, 9.0),
        ],
        "new": [],
    }


def test_log_without_its_beginning_says_nothing_of_what_is_kept() -> None:
    log, done = DONE
    assert past_of(log[1:]) is None
    assert past_of([]) is None
    assert past_of(log, 1) is not None
    assert done.tokens("read") == ["read-0", "read-1", "read-2"]
