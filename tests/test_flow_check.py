"""What `check_flow` refuses: where, what it expected, and what it suggests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import DEFAULT_TIERS, Agent, Field, Flow, JoinPolicy, Step
from tests.strategies import flows

HANDLER = Agent(handler="module:name")
WRITER = Agent(model="worker", prompt="Write.")
CHAIN = {"a": Step(agent="x"), "b": Step(agent="x", after=["a"])}


def flow(steps: dict[str, Step] | None = None, **changes: Any) -> Flow:
    """A valid flow unless the changes make it otherwise: agent `x`, inputs `topic`, `topics` and `conf`."""
    inputs = {"topic": Field(), "topics": Field(type="list[str]"), "conf": Field(type="dict")}
    good = Flow(
        name="report",
        input=inputs,
        tiers=DEFAULT_TIERS,
        agents={"x": HANDLER},
        steps=CHAIN if steps is None else steps,
    )
    return replace(good, **changes)


def refused(bad: Flow) -> FlowError:
    with pytest.raises(FlowError) as caught:
        check_flow(bad)
    return caught.value


@settings(max_examples=100, deadline=None)
@given(flows())
def test_a_valid_flow_gets_its_plan(any_flow: Flow) -> None:
    plan = check_flow(any_flow)
    assert [step for step in plan.steps if step not in plan.implied] == list(any_flow.steps)
    assert set(plan.order) == set(plan.steps)
    assert not plan.successors[plan.final]


def test_a_version_that_this_release_does_not_know_is_refused() -> None:
    assert refused(flow(v=9)).place == "v"


# Names


@pytest.mark.parametrize("name", ["", "a b", "a.b", "é", "x" * 65])
def test_names_that_cannot_stand_in_a_subject_are_refused(name: str) -> None:
    step, other = Step(agent="x"), Step(agent=name)
    for place, bad in [
        ("name", flow(name=name)),
        (f"steps.{name}", flow({name: step})),
        (f"agents.{name}", flow({"a": other}, agents={name: HANDLER})),
        (f"input.{name}", flow(input={name: Field()})),
    ]:
        error = refused(bad)
        assert error.place == place
        assert error.found == repr(name)
        assert error.expected == "1 to 64 characters from A-Z, a-z, 0-9, '_' and '-'"


def test_an_actor_that_cannot_stand_in_a_subject_is_refused() -> None:
    error = refused(flow(agents={"x": replace(HANDLER, actor="a.b")}))
    assert (error.place, error.found) == ("agents.x.actor", "'a.b'")


def test_an_actor_name_that_is_too_long_is_refused_unless_it_is_set() -> None:
    long = "r" * 63
    error = refused(flow(name=long))
    assert error.place == "agents.x"
    assert "of 66 characters" in error.found
    assert "set `actor`" in error.hint
    assert check_flow(flow(name=long, agents={"x": replace(HANDLER, actor="short")})).actor("a") == "short"


def test_two_agents_with_one_actor_are_refused() -> None:
    agents = {"x": HANDLER, "y": replace(HANDLER, actor="report--x")}
    error = refused(flow({"a": Step(agent="x"), "b": Step(agent="y", after=["a"])}, agents=agents))
    assert error.place == "agents.y.actor"
    assert error.expected == "another actor for each agent of a flow"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("draft-2", "Try 'draft_2'."),
        ("draft-02", "Try 'draft_02'."),
        ("draft--r1", "Try 'draft__r1'."),
        ("draft-", "Try 'draft_'."),
    ],
)
def test_a_step_called_like_a_branch_is_refused(name: str, hint: str) -> None:
    error = refused(flow({name: Step(agent="x")}))
    assert error.place == f"steps.{name}"
    assert "hyphen and digits" in error.expected
    assert error.hint == hint


@pytest.mark.parametrize("name", ["a--b", "-a", "a-"])
def test_a_flow_or_an_agent_whose_actor_could_be_that_of_another_is_refused(name: str) -> None:
    for place, bad in [
        ("name", flow(name=name)),
        (f"agents.{name}", flow({"a": Step(agent=name)}, agents={name: HANDLER})),
    ]:
        error = refused(bad)
        assert error.place == place
        assert "double hyphen" in error.expected


@pytest.mark.parametrize("name", ["start", "join", "deadline", "end", "rejected", "input", "errors", "item", "index"])
def test_reserved_names_are_refused(name: str) -> None:
    step, field = refused(flow({name: Step(agent="x")})), refused(flow(input={name: Field()}))
    assert (step.place, field.place) == (f"steps.{name}", f"input.{name}")
    assert "reserved" in step.found
    assert "another name than deadline, end" in field.expected


def test_a_step_called_like_an_input_is_refused() -> None:
    error = refused(flow({"topic": Step(agent="x")}))
    assert error.place == "input.topic"
    assert error.expected == "another name for one of the two"


# Steps and their order


def test_a_flow_without_steps_is_refused() -> None:
    error = refused(flow({}))
    assert (error.place, error.found) == ("steps", "no step")


def test_an_unknown_agent_is_refused() -> None:
    error = refused(flow({"a": Step(agent="writter")}, agents={"writer": HANDLER}))
    assert error.place == "steps.a.agent"
    assert error.expected == "the name of an agent of this flow"
    assert error.hint == "Did you mean 'writer'?"


def test_an_unknown_step_in_after_is_refused() -> None:
    error = refused(flow({"research": Step(agent="x"), "b": Step(agent="x", after=["reserch"])}))
    assert error.place == "steps.b.after[0]"
    assert error.expected == "the name of a step of this flow"
    assert error.hint == "Did you mean 'research'?"


def test_a_step_that_waits_twice_for_another_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x"), "b": Step(agent="x", after=["a", "a"])}))
    assert (error.place, error.expected) == ("steps.b.after[1]", "each step once")


def test_a_step_after_itself_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x", after=["a"])}))
    assert error.place == "steps.a.after[0]"
    assert error.found == "'a', the step itself"


def test_a_cycle_is_refused_and_told_in_order() -> None:
    steps = {
        "z": Step(agent="x"),
        "a": Step(agent="x", after=["z", "c"]),
        "b": Step(agent="x", after=["a"]),
        "c": Step(agent="x", after=["b"]),
    }
    error = refused(flow(steps))
    assert error.place == "steps.a.after"
    assert error.found == "the cycle a → b → c → a"
    assert error.expected == "steps that only wait for earlier ones"


def test_a_step_that_fans_out_over_itself_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x", each="a"), "b": Step(agent="x", after=["a"])}))
    assert (error.place, error.found) == ("steps.a.each", "the cycle a → a")


@pytest.mark.parametrize(("names", "word"), [("ab", "both"), ("abc", "all of them")])
def test_several_final_steps_are_refused_and_named(names: str, word: str) -> None:
    error = refused(flow({name: Step(agent="x") for name in names}))
    assert error.place == "steps"
    assert " and ".join(f"'{name}'" for name in names) in error.found
    assert error.expected == "exactly one final step"
    assert error.hint == f"Join them with one step that is `after` {word}."


# Fan-outs


def test_each_on_the_final_step_implies_one_that_puts_out_its_list() -> None:
    plan = check_flow(flow({"a": Step(agent="x", each="topics", join=JoinPolicy(failed="pass"), on_error="continue")}))
    assert (plan.final, plan.sources["a--list"], plan.implied) == ("a--list", ("a",), {"a--list": "a"})
    assert plan.actor("a--list") == plan.actor("a")
    assert not plan.agent("a--list").asks_models
    assert plan.on_failed_branch("a--list", "a") == "pass"
    assert check_flow(plan.flow).digest == plan.digest


@pytest.mark.parametrize("each", ["topics", "conf.items", "conf.deep.items"])
def test_each_may_name_a_list_of_the_input(each: str) -> None:
    plan = check_flow(flow({"a": Step(agent="x", each=each), "b": Step(agent="x", after=["a"])}))
    assert plan.joins == {"b"}


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ("topic", "an input of a list type, to run once per item"),
        ("conf", "an input of a list type, to run once per item"),
        ("topics.x", "an input of type dict, to take a key of"),
    ],
)
def test_each_over_an_input_of_another_type_is_refused(each: str, expected: str) -> None:
    error = refused(flow({"a": Step(agent="x", each=each), "b": Step(agent="x", after=["a"])}))
    assert (error.place, error.expected) == ("steps.a.each", expected)


def test_each_over_an_unknown_name_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x", each="topcs"), "b": Step(agent="x", after=["a"])}))
    assert error.place == "steps.a.each"
    assert error.expected == "a list of the input, or a step that comes before 'a'"
    assert error.hint == "Did you mean 'topics'?"


def test_each_over_a_step_that_does_not_come_before_is_refused() -> None:
    steps = {
        "a": Step(agent="x"),
        "b": Step(agent="x"),
        "c": Step(agent="x", after=["a"], each="b"),
        "d": Step(agent="x", after=["b", "c"]),
    }
    error = refused(flow(steps))
    assert (error.place, error.found) == ("steps.c.each", "'b'")
    assert "comes before 'c'" in error.expected


def test_each_over_a_step_far_before_is_fine() -> None:
    steps = {**CHAIN, "c": Step(agent="x", after=["b"], each="a"), "d": Step(agent="x", after=["c"])}
    assert check_flow(flow(steps)).sources["c"] == ("b",)


@pytest.mark.parametrize(
    ("joining", "sources"),
    [
        (Step(agent="x", after=["a", "b"], each="topics", join=JoinPolicy(wait=1)), ("a", "b")),
        (Step(agent="x", after=["fan"], each="topics", join=JoinPolicy(wait=1)), ("fan",)),
        (Step(agent="x", each="fan", join=JoinPolicy(wait=1)), ("fan",)),
    ],
)
def test_each_on_a_step_that_joins_implies_one_that_joins_for_it(joining: Step, sources: tuple[str, ...]) -> None:
    steps = {**CHAIN, "fan": Step(agent="x", each="topics"), "c": joining}
    plan = check_flow(flow({**steps, "end_": Step(agent="x", after=["a", "b", "fan", "c"])}))
    assert (plan.sources["c"], plan.sources["c--join"], plan.before("c")) == (("c--join",), sources, sources)
    assert plan.joins == {"c--join", "end_"}
    assert plan.join_policy("c--join").wait == 1
    assert plan.actor("c--join") == plan.actor("c")


def test_each_on_a_step_that_joins_and_is_last_implies_both_and_its_join_is_the_first() -> None:
    steps = {"fan": Step(agent="x", each="topics"), "c": Step(agent="x", each="fan", join=JoinPolicy(wait=1))}
    plan = check_flow(flow(steps))
    assert plan.order == ("fan", "c--join", "c", "c--list")
    assert (plan.join_policy("c--join").wait, plan.join_policy("c--list").wait) == (1, "all")


@pytest.mark.parametrize(("name", "most"), [("x" * 59, 58), ("x" * 64, 58)])
def test_name_that_leaves_no_room_for_what_merges_its_branches_is_refused(name: str, most: int) -> None:
    error = refused(flow({name: Step(agent="x", each="topics")}))
    assert (error.place, error.found) == (f"steps.{name}", f"a name of {len(name)} characters")
    assert error.expected == f"{most} at most, as what merges its branches is called '{name}--list'"
    assert check_flow(flow({"x" * 58: Step(agent="x", each="topics")})).final == "x" * 58 + "--list"


def test_concurrency_without_each_or_below_one_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x", concurrency=3)}))
    assert (error.place, error.found) == ("steps.a.concurrency", "`concurrency` on a step without `each`")
    assert "`concurrency` of the agent" in error.hint
    for found in (0, -1, 1_000_001, 10**30):
        error = refused(flow({"a": Step(agent="x", each="topics", concurrency=found)}))
        assert (error.place, error.found) == ("steps.a.concurrency", str(found))
        assert error.expected == "a whole number from 1 to 1000000"


# Joins


def joined(join: JoinPolicy, *, each: str = "") -> Flow:
    """A flow whose step `c` joins `a` and `b` (with `each`: the branches of `a`, and `b`)."""
    steps = {"a": Step(agent="x", each=each), "b": Step(agent="x")}
    return flow({**steps, "c": Step(agent="x", after=["a", "b"], join=join)})


def test_a_join_policy_on_a_step_that_joins_nothing_is_refused() -> None:
    error = refused(flow({"a": Step(agent="x"), "b": Step(agent="x", after=["a"], join=JoinPolicy())}))
    assert error.place == "steps.b.join"
    assert "only after several steps, or after a step with `each`" in error.expected


@pytest.mark.parametrize(
    ("join", "place", "expected"),
    [
        (JoinPolicy(wait=0), "steps.c.join.wait", "a number from 1 to 2"),
        (JoinPolicy(wait=3), "steps.c.join.wait", "no more than 2 branches can end well"),
        (JoinPolicy(min_done=-1), "steps.c.join.min_done", "a number from 0 to 2"),
        (JoinPolicy(min_done=3), "steps.c.join.min_done", "a number from 0 to 2"),
        (JoinPolicy(wait=1, min_done=2), "steps.c.join.min_done", "at most 1"),
    ],
)
def test_a_join_of_more_branches_than_there_are_is_refused(join: JoinPolicy, place: str, expected: str) -> None:
    error = refused(joined(join))
    assert error.place == place
    assert expected in error.expected


def test_a_join_of_a_fan_out_may_wait_for_any_number_but_none() -> None:
    assert check_flow(joined(JoinPolicy(wait=50, min_done=20), each="topics")).join_policy("c").wait == 50
    error = refused(joined(JoinPolicy(wait=0), each="topics"))
    assert (error.place, error.expected) == ("steps.c.join.wait", "a whole number of at least 1")


def test_flow_with_more_steps_than_anybody_could_look_through_is_refused_at_once() -> None:
    chain = {f"s{number}_": Step(agent="a", after=[f"s{number - 1}_"] if number else []) for number in range(25_000)}
    with pytest.raises(FlowError, match="25000 of them; expected at most 500"):
        check_flow(Flow(name="flow", agents={"a": Agent(handler="x:y")}, steps=chain))
