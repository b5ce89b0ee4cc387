"""What `check_flow` refuses of agents, their prompts and limits, and of the input and the tiers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step, Tier
from baton_schemas.flow.tools import tools_of

from .test_flow_check import CHAIN, HANDLER, WRITER, flow, refused

# Agents


def with_agent(agent: Agent, **changes: Any) -> Flow:
    return flow(agents={"x": agent}, **changes)


@pytest.mark.parametrize(
    ("agent", "place", "found", "hint"),
    [
        (Agent(), "agents.x", "neither `handler` nor `prompt`", ""),
        (Agent(model="worker", system="Be brief."), "agents.x", "neither `handler` nor `prompt`", ""),
        (Agent(handler="m:f", prompt="Go."), "agents.x", "both `handler` and `prompt`", "Remove one"),
        (Agent(prompt="Go."), "agents.x.model", "no model", "Known: synthesis, worker."),
        (replace(WRITER, model="workr"), "agents.x.model", "the unknown tier 'workr'", "Did you mean 'worker'?"),
        (replace(WRITER, model="work-er"), "agents.x.model", "the unknown tier", "Did you mean 'worker'?"),
        (replace(WRITER, model="gpt"), "agents.x.model", "the unknown tier 'gpt'", "Known: synthesis, worker."),
        (replace(WRITER, model="claude-opus-4-6"), "agents.x.max_tokens", "no `max_tokens`", "1024"),
        (replace(WRITER, max_tokens=-1), "agents.x.max_tokens", "-1", ""),
        (replace(WRITER, reads=["topic"]), "agents.x.reads", "`reads` on an LLM agent", ""),
    ],
)
def test_an_agent_that_cannot_work_is_refused(agent: Agent, place: str, found: str, hint: str) -> None:
    error = refused(with_agent(agent))
    assert error.place == place
    assert error.found.startswith(found)
    assert hint in error.hint


def test_a_model_id_needs_no_tier() -> None:
    plan = check_flow(with_agent(replace(WRITER, model="claude-opus-4-6", max_tokens=9)))
    assert plan.tier(plan.agent("a")) == Tier(model="claude-opus-4-6", max_tokens=9)


@pytest.mark.parametrize(
    "handler", ["module:name", "package.module:name", "./file.py:name", "../a/file.py:name", "/abs/file.py:name"]
)
def test_a_handler_is_a_name_in_a_module_or_a_file(handler: str) -> None:
    assert check_flow(with_agent(Agent(handler=handler))).agent("a").handler == handler


@pytest.mark.parametrize("handler", ["name", "module:", ":name", "module.name", "a b:name", "./file:name", "m:f:g"])
def test_a_handler_of_another_form_is_refused(handler: str) -> None:
    error = refused(with_agent(Agent(handler=handler)))
    assert error.place == "agents.x.handler"
    assert error.expected == "'module:name' or './file.py:name'"


def test_a_file_without_its_dot_is_refused_with_the_dot() -> None:
    assert refused(with_agent(Agent(handler="file.py:name"))).hint.endswith("write './file.py:name'.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"concurrency": 0}, "a number of at least 1"),
        ({"max_in_flight": 0}, "a number of at least 1"),
        ({"max_attempts": 0}, "a number of at least 1"),
        ({"timeout_s": 0.0}, "more than 0, at most 604800"),
        ({"timeout_s": float("inf")}, "more than 0, at most 604800"),
        ({"timeout_s": float("nan")}, "more than 0, at most 604800"),
        ({"timeout_s": 604801.0}, "more than 0, at most 604800"),
        ({"retry_base_s": 0.0}, "a number more than 0"),
        ({"retry_base_s": float("nan")}, "a number more than 0"),
        ({"retry_max_s": 0.5}, "a number of at least 1"),
        ({"overload_max_s": 0.0}, "more than 0, at most 604800"),
        ({"park_after_s": 0.0}, "more than 0, at most 604800"),
        ({"park_after_s": float("nan")}, "more than 0, at most 604800"),
        ({"overload_max_s": float("inf")}, "more than 0, at most 604800"),
    ],
)
def test_limits_out_of_bounds_are_refused(changes: dict[str, float], expected: str) -> None:
    error = refused(with_agent(replace(HANDLER, **changes)))
    assert error.place == f"agents.x.{next(iter(changes))}"
    assert expected in error.expected


def test_a_step_has_the_same_bounds_on_its_timeout() -> None:
    error = refused(flow({"a": Step(agent="x", timeout_s=-1.0)}))
    assert (error.place, error.found) == ("steps.a.timeout_s", "-1")


# Asking


CHIEF = replace(WRITER, workers=["finder"])
FINDER = Agent(model="worker", prompt="{question}", input={"question": Field()})


def asking(finder: Agent = FINDER, **changes: Any) -> Flow:
    """A flow whose step is done by `x`, which may ask `finder`."""
    return flow({"a": Step(agent="x")}, agents={"x": CHIEF, "finder": finder} | changes)


def test_an_agent_that_is_only_asked_needs_no_step() -> None:
    plan = check_flow(asking())
    assert [tool.name for tool in tools_of(plan.flow, plan.agent("a"))] == ["finder"]


@pytest.mark.parametrize(
    ("workers", "place", "found", "hint"),
    [
        (["fnder"], "agents.x.workers[0]", "'fnder'", "Did you mean 'finder'?"),
        (["finder", "nobody"], "agents.x.workers[1]", "'nobody'", "Known: finder, x."),
        (["finder", "x", "finder"], "agents.x.workers[2]", "'finder' once more", ""),
    ],
)
def test_workers_that_are_none_or_named_twice_are_refused(
    workers: list[str], place: str, found: str, hint: str
) -> None:
    error = refused(asking(x=replace(CHIEF, workers=workers)))
    assert (error.place, error.found, error.hint) == (place, found, hint)


def test_an_agent_may_ask_itself() -> None:
    itself = replace(FINDER, workers=["finder"])
    assert check_flow(asking(itself)).flow.agents["finder"].workers == ["finder"]


def test_an_agent_that_only_agents_without_a_step_ask_is_refused() -> None:
    aside = replace(FINDER, workers=["other"])
    for agents in ({"aside": aside, "other": replace(FINDER, workers=["aside"])}, {"aside": aside, "other": FINDER}):
        error = refused(asking(**agents))
        assert error.place == "agents.aside"
    assert "only 'aside' may ask" in refused(asking(other=FINDER, aside=aside)).found


def test_workers_of_workers_are_asked_too() -> None:
    assert check_flow(asking(replace(FINDER, workers=["other"]), other=FINDER)).flow.agents["other"] == FINDER


@pytest.mark.parametrize("key", ["max_rounds", "max_asks", "max_depth"])
def test_bounds_on_asking_are_at_least_one(key: str) -> None:
    error = refused(asking(x=replace(CHIEF, **{key: 0})))
    assert (error.place, error.expected) == (f"agents.x.{key}", "a number of at least 1")


@pytest.mark.parametrize(
    ("prompt", "found", "hint"),
    [
        ("{qestion}", "the placeholder {qestion} at character 0", "Did you mean 'question'?"),
        ("On {topic}", "the placeholder {topic} at character 3", "Known: question."),
        ("{errors}", "the placeholder {errors} at character 0", "Known: question."),
        ("{item}", "the placeholder {item} at character 0", "Known: question."),
        ("{question.a}", "the placeholder {question.a} at character 0", ""),
        ("{", "'{' at character 0", "Write {{ and }} for braces."),
    ],
)
def test_an_asked_agent_is_given_its_input_and_nothing_else(prompt: str, found: str, hint: str) -> None:
    for key in ("prompt", "system"):
        error = refused(asking(replace(FINDER, **{key: prompt})))
        assert (error.place, error.found) == (f"agents.finder.{key}", found)
        assert hint in error.hint


def test_an_asked_agent_without_input_is_told_how_to_declare_it() -> None:
    assert refused(asking(replace(FINDER, input={}))).hint == 'Declare it: input = { question = "str" }.'


def test_what_may_be_missing_of_an_input_is_written_as_such() -> None:
    optional = {"question": Field(type="str?")}
    assert refused(asking(replace(FINDER, input=optional))).expected.startswith("{question?}")
    assert check_flow(asking(replace(FINDER, prompt="{question?}", input=optional)))


def test_an_agent_that_does_a_step_and_is_asked_fits_both() -> None:
    both = {"a": Step(agent="x"), "question": Step(agent="finder", after=["a"])}
    good = flow({**both, "topic2": Step(agent="x", after=["question"])}, agents={"x": CHIEF, "finder": FINDER})
    assert refused(good).found == "the placeholder {question} at character 0"
    named = replace(FINDER, prompt="{topic}", input={"topic": Field()})
    assert check_flow(replace(good, agents={"x": CHIEF, "finder": named}))
    asked_only = replace(named, prompt="{conf}")
    assert refused(replace(good, agents={"x": CHIEF, "finder": asked_only})).expected.startswith(
        "a name of its `input`"
    )


@pytest.mark.parametrize(
    ("field", "place"),
    [
        (Field(type="strng"), "agents.finder.input.question.type"),
        (Field(default=Raw(b"1")), "agents.finder.input.question.default"),
        (Field(type="dict", fields={"a b": Field()}), "agents.finder.input.question.fields.a b"),
        (Field(type="dict", fields={"x" * 65: Field()}), f"agents.finder.input.question.fields.{'x' * 65}"),
    ],
)
def test_the_input_of_an_agent_is_checked_as_that_of_a_flow(field: Field, place: str) -> None:
    assert refused(asking(replace(FINDER, input={"question": field}))).place == place


def test_the_input_of_an_agent_has_names_of_its_own() -> None:
    assert refused(asking(replace(FINDER, prompt="a", input={"errors": Field()}))).place == "agents.finder.input.errors"
    assert refused(asking(replace(FINDER, prompt="a", input={"a b": Field()}))).place == "agents.finder.input.a b"


def test_an_agent_that_no_step_uses_is_refused() -> None:
    error = refused(flow(agents={"x": HANDLER, "writer": HANDLER}))
    assert error.place == "agents.writer"
    assert "Add [steps.writer]" in error.hint


@pytest.mark.parametrize(("name", "hint"), [("topc", "Did you mean 'topic'?"), ("b", "Known: conf, topic, topics.")])
def test_reads_of_what_is_not_there_yet_are_refused(name: str, hint: str) -> None:
    error = refused(with_agent(replace(HANDLER, reads=["topic", name])))
    assert error.place == "agents.x.reads[1]"
    assert error.expected == "an input, or a step that comes before 'a'"
    assert error.hint == hint


# Placeholders


@pytest.mark.parametrize(
    ("prompt", "found", "hint"),
    [
        ("On {topc}.", "the placeholder {topc} at character 3", "Did you mean 'topic'?"),
        ("{b}", "the placeholder {b} at character 0", "Known: conf, errors, topic, topics."),
        ("On {item}", "the placeholder {item} at character 3", "only in a step with `each`"),
        ('As {"a": 1}', "'{\"a\": 1}' at character 3", "Write {{ and }} for braces."),
        ("So {", "'{' at character 3", "Write {{ and }} for braces."),
    ],
)
def test_a_placeholder_for_nothing_is_refused(prompt: str, found: str, hint: str) -> None:
    for key in ("prompt", "system"):
        error = refused(with_agent(replace(WRITER, **{key: prompt})))
        assert error.place == f"agents.x.{key}"
        assert error.found == found
        assert hint in error.hint


def test_a_placeholder_must_be_known_in_every_step_of_the_agent() -> None:
    steps = {"a": Step(agent="y"), "b": Step(agent="x", after=["a"]), "c": Step(agent="x")}
    agents = {"x": replace(WRITER, prompt="{a}"), "y": HANDLER, "z": HANDLER}
    error = refused(flow({**steps, "d": Step(agent="z", after=["b", "c"])}, agents=agents))
    assert error.place == "agents.x.prompt"
    assert error.expected == "an input, or a step that comes before 'c'"


def test_placeholders_reach_inputs_earlier_steps_errors_and_the_item() -> None:
    prompt = "{topic} {conf.style} {a.0} {errors} {item} {index} {{}}"
    agents = {"x": HANDLER, "y": replace(WRITER, prompt=prompt)}
    steps = {**CHAIN, "c": Step(agent="y", after=["b"], each="topics"), "d": Step(agent="x", after=["c"])}
    assert check_flow(flow(steps, agents=agents)).reads["c"] == {"topic", "conf", "a"}


# Input and tiers


def test_an_unknown_input_type_is_refused() -> None:
    error = refused(flow(input={"topic": Field(type="string")}))
    assert error.place == "input.topic.type"
    assert error.expected.startswith("one of str, int, float, bool, dict, list, file, any or list[…]")
    assert error.hint == "Did you mean 'str'?"


@pytest.mark.parametrize(
    ("kind", "default"), [("str", "3"), ("int", "1.5"), ("list[str]", "[1]"), ("float", "null"), ("dict", "[]")]
)
def test_a_default_that_does_not_fit_its_type_is_refused(kind: str, default: str) -> None:
    error = refused(flow(input={"topic": Field(type=kind, default=Raw(default.encode()))}))
    assert (error.place, error.found) == ("input.topic.default", default)
    assert error.expected == f"a value of type {kind}"


def test_a_tier_without_a_model_or_with_a_negative_cap_is_refused() -> None:
    assert refused(flow(tiers={"worker": Tier(model="")})).place == "tiers.worker.model"
    assert refused(flow(tiers={"worker": Tier(model="m", max_tokens=-1)})).place == "tiers.worker.max_tokens"
