"""People in flows: what may be written of them, what is refused, and what the flow knows of their answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from baton_actors import Flow as Built
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_schemas.errors import FlowError
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Flow, decode_flow, encode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.questions import BadAnswer, BadQuestion, check_question, expects, fitted
from baton_schemas.run.changes import changed_agents
from baton_schemas.wire.messages import Question

from .test_flow_schema import is_valid

FLOW = """
name = "news"
[input]
text = "str"
[agents.approve]
person = "editors"
prompt = "Publish {text}?"
%s
[agents.write]
model = "worker"
prompt = "%s"
[steps.approve]
[steps.write]
after = "approve"
"""


def written(person: str = "", prompt: str = "{approve}") -> str:
    return FLOW % (person, prompt)


@pytest.mark.parametrize(
    ("person", "prompt"),
    [
        ("", "{approve.whatever}"),
        ('answers = ["yes", "no"]', "{approve}"),
        ('answers = ["yes", "no"]\ndeadline_s = 60\ndefault = "no"', "{approve}"),
        ('output = { verdict = "str", score = "int?" }', "{approve.verdict}"),
        ('output = { score = "int" }\ndeadline_s = 60\ndefault = { score = 3 }', "{approve.score}"),
        ("deadline_s = 60\ndefault = [1, 2]", "{approve}"),
    ],
)
def test_person_is_an_agent(person: str, prompt: str) -> None:
    text = written(person, prompt)
    flow = load_flow(text)
    assert is_valid(text)
    assert decode_flow(encode_flow(flow)) == flow
    plan = Plan(flow)
    assert plan.reads["approve"] == {"text"}
    assert not plan.agent("approve").asks_models
    assert plan.actor("approve") == "news--approve"


@pytest.mark.parametrize(
    ("person", "place", "said"),
    [
        ("answers = []", "answers", "an empty list"),
        ('answers = ["yes", "yes"]', "answers", "'yes' twice"),
        ('answers = [" "]', "answers", "texts that are not empty"),
        ('answers = ["yes"]\noutput = { a = "str" }', "answers", "both `answers` and a type"),
        ('answers = ["yes"]\ndeadline_s = 60\ndefault = "no"', "default", 'expected an answer: found the string "no"'),
        ('output = { a = "int" }\ndeadline_s = 60\ndefault = { a = "x" }', "default", "answer.a: found the string"),
        ('default = "yes"', "default", "`default` without `deadline_s`"),
        ("deadline_s = 0", "deadline_s", "seconds: more than 0"),
        ("deadline_s = 1e9", "deadline_s", "at most"),
        ('output = { a = "intt" }', "output.a.type", "intt"),
        ('model = "worker"', "model", "both `person` and `model`"),
        ('handler = "m:f"', "handler", "both `person` and `handler`"),
        ('system = "Be kind."', "system", "both `person` and `system`"),
        ('workers = ["write"]', "workers", "both `person` and `workers`"),
    ],
)
def test_person_that_cannot_be_asked_is_refused(person: str, place: str, said: str) -> None:
    with pytest.raises(FlowError) as error:
        load_flow(written(person))
    assert error.value.place.endswith(f"agents.approve.{place}")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('person = "editors"', 'person = "the editors"', "the name of a role: 1 to 64 characters"),
        ('person = "editors"', 'person = "a--b"', "without a double hyphen"),
        ('prompt = "Publish {text}?"', "", "what the person is asked"),
        ('prompt = "Publish {text}?"', 'prompt = "Publish {txt}?"', "Did you mean 'text'?"),
        ('model = "worker"', 'model = "worker"\nanswers = ["a"]', "`answers` on an agent that is no person"),
        ('model = "worker"', 'model = "worker"\ndeadline_s = 3', "`deadline_s` on an agent that is no person"),
    ],
)
def test_mistake_is_told_with_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(FlowError, match=r"line \d+") as error:
        load_flow(written().replace(old, new))
    assert said in str(error.value)


def test_placeholders_are_checked_against_what_a_person_answers() -> None:
    with pytest.raises(FlowError, match=r"it is of type str, which has no keys"):
        load_flow(written('answers = ["yes"]', "{approve.verdict}"))
    with pytest.raises(FlowError, match=r"Did you mean \{approve.verdict\}"):
        load_flow(written('output = { verdict = "str" }', "{approve.verdct}"))
    with pytest.raises(FlowError, match=r"\{approve.score\?\}"):
        load_flow(written('output = { score = "int?" }', "{approve.score}"))


def test_person_who_is_only_asked_declares_its_input() -> None:
    asked = """
name = "news"
[input]
text = "str"
[agents.boss]
handler = "m:f"
workers = ["chief"]
reads = ["text"]
[agents.chief]
person = "chiefs"
prompt = "What of {topic}?"
%s
[steps.boss]
"""
    assert load_flow(asked % 'input = { topic = "str" }').agents["chief"].input["topic"].type == "str"
    with pytest.raises(FlowError, match="Declare it"):
        load_flow(asked % "")


def test_flow_built_in_python_is_that_of_the_file() -> None:
    built = Built("news", input={"text": str})
    built.ask_person("approve", "editors", "Publish {text}?", answers=["yes", "no"], deadline_s=60, default="no")
    built.ask("write", "{approve}", after="approve")
    text = written('answers = ["yes", "no"]\ndeadline_s = 60\ndefault = "no"')
    assert encode_flow(built.check().flow) == encode_flow(load_flow(text))
    typed = Built("news", input={"text": str})
    typed.ask_person("approve", "editors", "Publish {text}?", output={"score": int, "tags": list[str]})
    assert {name: field.type for name, field in typed.check().flow.agents["approve"].output_fields.items()} == {
        "score": "int",
        "tags": "list[str]",
    }


def test_drawings_say_who_is_asked() -> None:
    plan = Plan(load_flow(written()))
    assert any("asks editors" in line for line in draw(plan, 80))
    assert '["approve<br>asks editors"]' in mermaid_of(plan)


def test_other_answers_are_another_step() -> None:
    before, after = (Plan(load_flow(written(f'answers = ["yes", "{other}"]'))) for other in ("no", "later"))
    assert [change.key for change in changed_agents(before, after)["approve"]] == ["answers"]


# ---- what is an answer ---------------------------------------------------------------------------------


def question(**given: Any) -> Question:
    return Question(text="?", **given)


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (question(answers=["yes", "no"]), '"yes"', '"yes"'),
        (question(type="int"), "3", "3"),
        (question(type="str?"), "null", "null"),
        (question(), '{"a": 1}', '{"a": 1}'),
        (question(output={"a": msgspec.Raw(b'{"type":"int","default":3}')}), "{}", '{"a":3}'),
        (question(output={"a": msgspec.Raw(b"7")}), "{}", "{}"),  # a stranger's
        (question(type="nonsense"), "1", "1"),
    ],
)
def test_answer_that_fits(asked: Question, answer: str, expected: str) -> None:
    assert bytes(fitted(asked, msgspec.Raw(answer.encode()))).decode() == expected


@pytest.mark.parametrize(
    ("asked", "answer", "reason"),
    [
        (question(answers=["1"]), "1", 'expected "1"'),
        (question(answers=list("abcdefghijklmnop")), '"z"', "and 4 more"),
        (question(), "null", "there is no answer in it"),
        (question(type="int"), "true", "found true; expected int"),
        (question(type="int"), "null", "found null; expected int"),
        (question(type="list[int]"), '[1, "2"]', "answer[1]: found the string"),
    ],
)
def test_answer_that_does_not_fit(asked: Question, answer: str, reason: str) -> None:
    with pytest.raises(BadAnswer) as error:
        fitted(asked, msgspec.Raw(answer.encode()))
    assert reason in str(error.value)


def test_what_is_expected_is_said_in_a_few_words() -> None:
    assert expects(question(answers=["a"])) == '"a"'
    assert expects(question(answers=["a", "b", "c"])) == '"a", "b" or "c"'
    assert expects(question(output={"a": msgspec.Raw(b'{"type":"int"}')})) == "a (int)"
    grades = b'{"type":"list?","fields":{"n":{"type":"int"},"by":{"type":"dict?","fields":{"name":{"type":"str"}}}}}'
    assert expects(question(output={"g": msgspec.Raw(grades)})) == "g (list? of {n: int, by: {name: str}?})"
    assert expects(question(type="list[str]")) == "list[str]"
    assert expects(question()) == "any text, or JSON"


def test_too_many_answers_are_refused() -> None:
    with pytest.raises(BadQuestion, match="101 of them"):
        check_question(question(answers=[str(number) for number in range(101)]))
    with pytest.raises(BadQuestion, match="one of 201 characters"):
        check_question(question(answers=["x" * 201]))
    assert isinstance(load_flow(written()), Flow)
