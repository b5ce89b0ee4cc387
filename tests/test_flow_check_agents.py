"""What `check_flow` refuses of agents, their prompts and limits, and of the input and the tiers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step, Tier

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
    assert error.expected.startswith("one of str, int, float, bool, dict, list, any or list[…]")
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
