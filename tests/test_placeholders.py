"""Placeholders: what is missing is an error that says what is there, unless the prompt says that it may be missing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from baton_actors.agents.kinds import StepTask
from baton_actors.agents.prompt import request_of
from baton_actors.errors import MissingValue
from baton_actors.steps.retries import is_final
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step
from baton_schemas.flow.prompts import BadPlaceholder, parse, render
from baton_schemas.flow.prompts import MissingValue as Missing
from baton_schemas.run.branches import BranchEnd, BranchEnds
from baton_schemas.wire.outcomes import Error

from .agents import CONTEXT
from .commands import baton

VALUES: dict[str, Any] = {
    "item": {"from": "ann", "id": 1, "body": "hi", "note": None, "sender": {"name": "Ann"}, "tags": []},
    "text": "words",
    "texts": ["a", "b"],
    "nothing": None,
    "empty": "",
    "no": False,
    "zero": 0,
    "many": {f"key_{number:02}": 1 for number in range(40)},
}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{item.bdy}", "{item.bdy}: item has no 'bdy'; it has: body, from, id, note, sender, tags. Did you mean"),
        ("{item.x}", "Write {item.x?} where it may be missing"),
        ("{item.note}", "{item.note}: item has 'note', and it is null. Write {item.note?}"),
        ("{item.sender.nmae}", "item.sender has no 'nmae'; it has: name. Did you mean {item.sender.name}?"),
        ("{item.q.r.s}", "{item.q.r.s}: item has no 'q'; it has: body"),
        ("{item.sendr.name}", "Did you mean {item.sender.name}?"),
        ("{item.sender?.age}", "{item.sender?.age}: item.sender has no 'age'; it has: name"),
        ("{text.kind}", "{text.kind}: text is a string and has no 'kind'"),
        ("{texts.kind}", "texts is a list and has no 'kind'; its items go by number, as {texts.0}"),
        ("{texts.2}", "texts has no item 2; its 2 go from 0 to 1"),
        ("{item.tags.0}", "item.tags has no item 0; it is empty"),
        ("{nothing}", "{nothing}: nothing is null. Write {nothing?}"),
        ("{many.x}", "key_11 and 28 more"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_with_what_is_there(template: str, said: str) -> None:
    with pytest.raises(Missing) as raised:
        render(template, VALUES.get)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("[{item.x?}]", "[]"),
        ("[{item.note?}]", "[]"),
        ("[{item.q.r.s?}]", "[]"),
        ("[{item.q?.r}]", "[]"),
        ("[{item.sender?.name}]", "[Ann]"),
        ("[{nothing?}]", "[]"),
        ("[{nothing?.x.y}]", "[]"),
        ("[{empty}]", "[]"),
        ("{no} {zero} {item.tags}", "false 0 []"),
        ("{texts}", "[1] a\n\n[2] b"),
        ("{texts.1} {{x?}}", "b {x?}"),
    ],
)
def test_what_may_be_missing_leaves_nothing_and_an_empty_string_is_a_value(template: str, text: str) -> None:
    assert render(template, VALUES.get) == text


@pytest.mark.parametrize("template", ["{?}", "{a??}", "{?a}", "{a.?}", "{a?b}", "{a. b?}", "{a.b?", "{…}"])
def test_what_is_no_placeholder_is_refused(template: str) -> None:
    with pytest.raises(BadPlaceholder):
        parse(template)


def test_key_of_a_million_digits_is_looked_up_in_no_time() -> None:
    with pytest.raises(Missing):
        render("{texts." + "9" * 1_000_000 + "}", VALUES.get)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)
)


@given(st.text(st.sampled_from("{}ab.0?- "), max_size=30), st.fixed_dictionaries({"a": JSON, "b": JSON, "ab": JSON}))
def test_whatever_is_written_is_filled_in_or_told_as_an_error(template: str, values: dict[str, Any]) -> None:
    try:
        placeholders = parse(template)
    except BadPlaceholder:
        return
    try:
        assert isinstance(render(template, values.get), str)
    except Missing as error:
        assert error.placeholder in placeholders
        assert render(error.placeholder.as_optional, values.get) == ""


# ---- in a step ---------------------------------------------------------------------------------------

TEAM = Flow(
    name="team",
    agents={
        "reader": Agent(model="claude-x", max_tokens=1, prompt="{item}"),
        "other": Agent(handler="m:f"),
        "last": Agent(model="claude-x", max_tokens=1, prompt=""),
    },
    input={"mails": Field(type="list")},
    steps={
        "read": Step(agent="reader", each="mails", on_error="continue"),
        "plan": Step(agent="other", on_error="continue"),
        "last": Step(agent="last", after=["read", "plan"]),
    },
)


def prompt_of(template: str, branches: BranchEnds | None = None, **values: Any) -> str:
    agents = {**TEAM.agents, "last": msgspec.structs.replace(TEAM.agents["last"], prompt=template)}
    plan = check_flow(msgspec.structs.replace(TEAM, agents=agents))
    raw = {name: Raw(msgspec.json.encode(value)) for name, value in {"errors": [], **values}.items()}
    task = StepTask(
        plan=plan, step="last", values=raw, context=CONTEXT, branches={"read": branches} if branches else {}
    )
    return request_of(task).prompt


@pytest.mark.parametrize("plan", ["", " \n"])
def test_prompt_of_nothing_fails_before_a_model_is_asked(plan: str) -> None:
    with pytest.raises(MissingValue, match="the prompt has no text: all that it names is empty") as raised:
        prompt_of("{plan}", plan=plan)
    assert is_final(raised.value)


BROKEN = Error(step="read-1", type="Timeout", message="too late")
ENDS = [BranchEnd(0, Raw(b'"a"')), BranchEnd(1, None, BROKEN), BranchEnd(3, Raw(b'"d"'))]


def test_numbers_in_a_prompt_are_those_of_the_items_when_branches_failed() -> None:
    skipped = BranchEnds(ENDS, 4, passes=False)
    assert prompt_of("{read}", skipped, read=["a", "d"]) == "[1] a\n\n[4] d"
    passed = BranchEnds(ENDS, 4, passes=True)
    assert prompt_of("{read}", passed) == "[1] a\n\n[2] (step read-1 failed: too late)\n\n[4] d"
    assert prompt_of("{read.3} {read.2?}", skipped) == "d "
    objects = [BranchEnd(0, Raw(b'{"n":1}')), ENDS[1], BranchEnd(2, Raw(b'{"n":3}'))]
    assert prompt_of("{read}", BranchEnds(objects, 3, passes=False)) == '[1] {"n":1}\n\n[3] {"n":3}'
    assert prompt_of("{read}", BranchEnds([ENDS[1]], 1, passes=False)) == "[]"
    assert prompt_of("{read}", BranchEnds([ENDS[0], ENDS[0]], 2, passes=False), read=["a", "a"]) == "[1] a\n\n[2] a"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{read.1}", "{read.1}: read.1 failed (Timeout: too late)"),
        ("{read.2}", "read has no item 2; its 4 go from 0 to 3"),
        ("{plan.topics}", "plan failed (KeyError: 'x'), so it has no 'topics'"),
    ],
)
def test_branch_or_step_that_failed_is_missing(template: str, said: str) -> None:
    errors = [Error(step="plan", type="KeyError", message="'x'")]
    with pytest.raises(MissingValue) as raised:
        prompt_of(template, BranchEnds(ENDS, 4, passes=False), errors=errors)
    assert said in str(raised.value)
    assert is_final(raised.value)


def test_step_that_failed_shows_as_its_error_and_may_be_left_out() -> None:
    errors = [Error(step="plan", type="KeyError", message="'x'")]
    assert prompt_of("{plan}|{plan?}|{plan?.topics}|{errors}", errors=errors) == (
        "(step plan failed: 'x')|||[1] step plan failed: 'x'"
    )
    with pytest.raises(MissingValue, match="plan had not ended when the join closed"):
        prompt_of("{plan}")


# ---- before anything runs ----------------------------------------------------------------------------

TYPED = '''
name = "triage"

[input.emails]
type = "list"
fields = { id = "int", body = "str", prio = "str?", sender = { fields = { name = "str" } } }

[agents.classify]
model = "worker"
prompt = """
Classify:
PLACEHOLDER
"""

[agents.report]
model = "worker"
prompt = "{classify}"

[steps.classify]
each = "emails"

[steps.report]
after = "classify"
'''


@pytest.mark.parametrize(
    ("placeholder", "said"),
    [
        ("{item.bdy}", "line 12, agents.classify.prompt: found the placeholder {item.bdy} at character 10; expected a "
         "field that item has: body, id, prio, sender. Did you mean {item.body}?"),
        ("{item.sender.nam}", "expected a field that item.sender has: name. Did you mean {item.sender.name}?"),
        ("{item.body.text}", "expected {item.body} alone: it is of type str, which has no keys"),
        ("{item.bdy?}", "line 12"),
        ("{item.prio}", "expected {item.prio?}, as item.prio is of type str? and may be missing"),
        ("{emails.first}", "expected the number of an item, as {emails.0}: emails is a list"),
        ("{index.x}", "expected {index} alone"),
        ("{itm}", "line 12"),
    ],
)  # fmt: skip
def test_path_that_types_rule_out_is_refused_with_its_line(placeholder: str, said: str) -> None:
    with pytest.raises(FlowError) as raised:
        load_flow(TYPED.replace("PLACEHOLDER", placeholder), "triage.toml")
    assert said in str(raised.value)


@pytest.mark.parametrize("placeholder", ["{item}", "{item.body} {item.prio?} {item.sender.name}", "{emails.0.id}"])
def test_path_that_types_allow_is_taken(placeholder: str) -> None:
    assert load_flow(TYPED.replace("PLACEHOLDER", placeholder)).name == "triage"


def test_key_of_a_models_answer_is_refused_before_it_is_paid_for() -> None:
    text = TYPED.replace("PLACEHOLDER", "{item.body}").replace('"{classify}"', '"{classify.0.kind}"')
    with pytest.raises(FlowError, match="What a model answers is text: let a handler take it apart"):
        load_flow(text)
    with_pass = text.replace('after = "classify"', 'after = "classify"\njoin = { failed = "pass" }')
    assert load_flow(with_pass).steps["report"].join == JoinPolicy(failed="pass")


def test_flow_that_is_in_the_log_already_is_not_judged_anew() -> None:
    flow = Flow(
        name="old",
        input={"topic": Field()},
        agents={"a": Agent(model="claude-x", max_tokens=1, prompt="{topic.x}")},
        steps={"a": Step(agent="a")},
    )
    assert check_flow(flow, stored=True).order == ("a",)
    with pytest.raises(FlowError, match=r"expected \{topic\} alone"):
        check_flow(flow)


# ---- through the command -----------------------------------------------------------------------------


async def test_missing_placeholder_fails_its_step_at_once_unpaid(tmp_path: Path) -> None:
    flow = TYPED.replace("PLACEHOLDER", "{item.bdy}").replace('type = "list"\nfields', 'type = "list"\n# fields')
    (tmp_path / "triage.toml").write_text(flow, "utf-8")
    run = ["run", "./triage.toml", 'emails=[{"id":1,"from":"ann","body":"hi"}]']
    ended = await asyncio.to_thread(baton, *run, cwd=tmp_path)
    assert ended.returncode == 1
    said = "classify-0  MissingValue: {item.bdy}: item has no 'bdy'; it has: body, from, id. Did you mean {item.body}?"
    assert said in ended.stderr
    assert "tries" not in ended.stderr
    log = await asyncio.to_thread(baton, "log", cwd=tmp_path)
    assert "retry" not in log.stdout
    assert "tokens" not in log.stdout
