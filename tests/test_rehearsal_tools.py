"""The rehearsal model with tools: a plan that ends, whatever they are and whatever comes back, read as a model's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from pytest_httpserver import HTTPServer

from baton_actors.agents.context import Context
from baton_actors.agents.kinds import StepTask
from baton_actors.agents.loading import find_flow
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.models import ModelRequest, Models, ModelSettings
from baton_actors.models.content import ANSWER_NOW
from baton_actors.models.rehearsal.arguments import AtHand, arguments_for
from baton_actors.models.rehearsal.model import events_of, request_id_of
from baton_actors.models.rehearsal.plan import blocks_of
from baton_schemas.flow.prompts import render
from baton_schemas.flow.tools import Tool
from baton_schemas.show.asked import Turn
from baton_schemas.wire.outcomes import Error

from .model_servers import request_for, settings_for, sse
from .test_orchestrator import Journal, Workers

PROMPT = 'Have an article written on "Tidal power".'


def tool(name: str, required: tuple[str, ...] = (), **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required or properties)}
    return Tool(name=name, description=f"{name}s.", input_schema=schema)


TEXT = {"type": "string"}
STAFF = (
    tool("editor", draft=TEXT),
    tool("researcher", question=TEXT),
    tool("writer", topic=TEXT, research=TEXT),
)


def asking(*turns: Turn, tools: tuple[Tool, ...] = STAFF, **changes: Any) -> ModelRequest:
    return request_for(PROMPT, tools=tools, turns=turns, **({"max_tokens": 4096} | changes))


def played(answer: Mapping[str, Any], tools: tuple[Tool, ...] = STAFF, prompt: str = PROMPT) -> list[list[Any]]:
    """Play a plan to its end; return the calls of each round, and last the answer. `answer` has results by tool."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    rounds: list[list[Any]] = []
    described = [msgspec.structs.asdict(each) for each in tools]
    for _ in range(len(tools) + 2):
        blocks = blocks_of("", messages, described, 4096)
        calls = [block for block in blocks if block["type"] == "tool_use"]
        if not calls:
            return [*rounds, [block["text"] for block in blocks]]
        rounds.append([(call["name"], call["input"]) for call in calls])
        results: list[dict[str, Any]] = []
        for call in calls:
            came = answer.get(call["name"], f"what the {call['name']} found")
            error = {"is_error": True} if isinstance(came, Exception) else {}
            content = str(came) if isinstance(came, Exception) else came
            results.append({"type": "tool_result", "tool_use_id": call["id"], "content": content, **error})
        messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    raise AssertionError("it does not end")


# ---- the plan ------------------------------------------------------------------------------------


def test_research_comes_first_and_at_the_same_time_then_the_draft_then_its_edit() -> None:
    asked, written, edited, answer = played({"writer": "A draft.", "editor": "Tidal power\n\nAn article."})
    assert [name for name, _ in asked] == ["researcher"] * 3
    assert asked[0] == ("researcher", {"question": "What is Tidal power, and why does it matter?"})
    research = "\n\n".join(["what the researcher found"] * 3)
    assert written == [("writer", {"topic": "Tidal power", "research": research})]
    assert edited == [("editor", {"draft": "A draft."})]
    assert answer == ["Tidal power\n\nAn article."]


def test_text_of_the_prompt_is_what_a_tool_is_given_that_takes_a_text() -> None:
    prompt = "<document>\nShips waited for hours. The crane broke twice.\n</document>\n\nHave it summarised."
    ((name, given),), answer = played({"shorten": "It broke."}, (tool("shorten", document=TEXT),), prompt)
    assert (name, given) == ("shorten", {"document": "Ships waited for hours. The crane broke twice."})
    assert answer == ["It broke."]


def test_worker_that_failed_is_not_asked_again_and_the_others_go_on() -> None:
    asked, edited, answer = played({"writer": OSError("no"), "researcher": "Found."}, STAFF[:2])
    assert [len(asked), len(edited)] == [3, 1]
    assert edited[0][0] == "editor"
    assert answer == ["what the editor found"]
    rounds = played({"editor": OSError("the editor is ill"), "writer": "A draft."})
    assert rounds[-1] == ["A draft."]


def test_question_is_asked_as_it_is() -> None:
    asked, answer = played({"researcher": "It scatters."}, (STAFF[1],), "Answer this: Why is the sky blue?")
    assert asked == [("researcher", {"question": "Why is the sky blue?"})]
    assert answer == ["It scatters."]


def test_nothing_is_made_of_nothing() -> None:
    asked, answer = played({"researcher": OSError("no network")})
    assert len(asked) == 3
    assert answer[0].startswith("Nothing came back (rehearsed): no network")


def test_several_results_are_answered_from_all_of_them() -> None:
    results = {"a": "The crane broke twice last year.", "b": "Ships waited for three days each time."}
    asked, answer = played(results, (tool("a", query=TEXT, k={"type": "integer"}), tool("b", topic=TEXT)))
    assert [name for name, _ in asked] == ["a", "a", "a", "b"]
    assert asked[0][1]["k"] == 3
    assert all(text in answer[0] for text in results.values())


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Topic: bridges over rivers\nHave it researched.", "bridges over rivers"),
        ("<question>\nWhy is the sky blue?\n</question>\nAnswer it.", "Why is the sky blue?"),
        ("Find out why ships wait. Be brief.", "Find out why ships wait."),
        ("Have this answered by asking two things, and answer it: Why do ships wait?", "Why do ships wait?"),
        ("", "what was asked"),
    ],
)
def test_subject_is_what_the_prompt_is_about(prompt: str, subject: str) -> None:
    ((_, given),), _ = played({}, (tool("lookup", topic=TEXT),), prompt)
    assert given == {"topic": subject}


# ---- any tools -----------------------------------------------------------------------------------

_names = st.sampled_from(["question", "notes", "draft", "count", "kind", "topics", "x", "deep", "researchNotes"])


def _fits(schema: dict[str, Any]) -> dict[str, Any]:
    """Bounds that leave room for something."""
    for low, high in (("minimum", "maximum"), ("minItems", "maxItems"), ("minLength", "maxLength")):
        if low in schema and high in schema and schema[low] > schema[high]:
            schema[low], schema[high] = schema[high], schema[low]
    return schema


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def required(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        names = st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([])
        fixed = {"type": st.just("object"), "properties": st.just(properties), "required": names}
        return st.fixed_dictionaries(fixed)

    return st.dictionaries(_names, inner, max_size=4).flatmap(required)


_leaves = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"maxLength": st.integers(0, 9)}),
    st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": st.integers(0, 300)}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": st.integers(-9, 9), "maximum": st.integers(-9, 9)},
    ).map(_fits),
    st.fixed_dictionaries({"type": st.just("number"), "exclusiveMinimum": st.integers(-9, 9)}),
    st.fixed_dictionaries({"type": st.just("integer"), "exclusiveMaximum": st.integers(-9, 9)}),
    st.fixed_dictionaries({"type": st.just("integer"), "multipleOf": st.integers(1, 7)}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "null"]}),
    st.just({}),
    st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True).map(lambda options: {"enum": options}),
    st.just({"enum": [1, None]}),
    st.just({"const": {"a": 1}}),
    st.just({"$ref": "#/$defs/thing"}),
)
_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={"minItems": st.integers(0, 5), "maxItems": st.integers(0, 5)},
        ).map(_fits),
        _objects(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"anyOf": several}),
    ),
    max_leaves=6,
)


_THING = {
    "type": "object",
    "properties": {"more": {"$ref": "#/$defs/thing"}, "n": {"type": "integer"}},
    "required": ["n"],
}
_input_schemas = _objects(_schemas).map(lambda schema: schema | {"$defs": {"thing": _THING}})
_tools = st.lists(
    st.builds(Tool, name=st.sampled_from("abcdefgh"), description=st.text(max_size=9), input_schema=_input_schemas),
    max_size=5,
    unique_by=lambda tool: tool.name,
).map(tuple)


@settings(max_examples=150, deadline=None)
@given(_input_schemas, st.lists(st.text(max_size=50), max_size=3))
def test_arguments_fit_the_schema(schema: dict[str, Any], material: list[str]) -> None:
    given = arguments_for(schema, AtHand(subject="Tidal power", material=material))
    assert [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(given)] == []


@settings(max_examples=100, deadline=None)
@given(_tools, st.dictionaries(st.sampled_from("abcdefgh"), st.one_of(st.text(max_size=20), st.just(OSError("no")))))
def test_plan_ends_within_a_round_for_each_tool_and_the_answer(tools: tuple[Tool, ...], answer: dict[str, Any]) -> None:
    rounds = played(answer, tools)
    assert len(rounds) <= len(tools) + 1
    asked = [{name for name, _ in calls} for calls in rounds[:-1]]
    assert sum(map(len, asked)) == len(set().union(*asked))
    (text,) = rounds[-1]
    assert text.strip()
    assert rounds == played(answer, tools)


@pytest.mark.parametrize(
    "broken", [{}, {"type": "object", "properties": 1, "required": "x"}, {"required": ["a", 1]}, {"$ref": "#/$defs/me"}]
)
def test_schema_that_makes_no_sense_is_called_with_something(broken: dict[str, Any]) -> None:
    asked, answer = played({}, (Tool(name="a", description="", input_schema=broken),))
    assert isinstance(asked[0][1], dict)
    assert answer == ["what the a found"]


def test_schema_that_is_within_itself_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    schema = {"type": "object", "properties": {"list": {"$ref": "#/$defs/node"}}, "required": ["list"]}
    given = arguments_for(schema | {"$defs": {"node": node}}, AtHand(subject="x"))
    assert len(json.dumps(given)) < 1_000
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}
    assert arguments_for(loop, AtHand(subject="x")) == {}
    parts = {"allOf": [{"$ref": "#/$defs/a"}, {"anyOf": [{"$ref": "#/$defs/a"}] * 9}] * 9}
    assert arguments_for(parts | {"$defs": {"a": parts}}, AtHand(subject="x")) == {}


def test_parts_of_a_schema_are_all_seen_to() -> None:
    parts = {name: {"properties": {name: {"type": "boolean"}}, "required": [name]} for name in "ab"}
    schema = {"type": "object", "allOf": [{"$ref": f"#/$defs/{name}"} for name in parts], "$defs": parts}
    assert list(arguments_for(schema, AtHand(subject="x"))) == ["b", "a"]


def test_schema_that_wants_very_much_is_given_a_part_of_it() -> None:
    items: dict[str, Any] = {"type": "integer"}
    for _ in range(10):
        items = {"type": "array", "items": items, "minItems": 100}
    given = arguments_for({"properties": {"all": items}, "required": ["all"]}, AtHand(subject="x"))
    assert 100 < len(json.dumps(given)) < 100_000


# ---- as a model's --------------------------------------------------------------------------------


async def test_sdk_reads_the_same_calls_out_of_the_events_of_a_rehearsal(httpserver: HTTPServer) -> None:
    request = asking()
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(*events_of(request)), content_type="text/event-stream", headers={"request-id": request_id_of(request)}
    )
    async with Models(settings_for(httpserver.url_for(""))) as models:
        read = await models.complete(request)
    async with Models(ModelSettings()) as models:
        answer = await models.complete(request)
    assert answer == msgspec.structs.replace(read, rehearsed=True, cost_usd=0.0)
    assert (answer.stop_reason, answer.text) == ("tool_use", "A rehearsed plan, round 1: researcher.")
    assert [block["type"] for block in answer.content] == ["text", "tool_use", "tool_use", "tool_use"]
    assert answer.usage.output_tokens > 20


async def test_call_is_never_cut_off_at_max_tokens() -> None:
    long = "word " * 100_000
    results = [{"type": "tool_result", "tool_use_id": "t", "content": long}]
    asked = Turn(role="assistant", content=[{"type": "tool_use", "id": "t", "name": "researcher", "input": {}}])
    async with Models(ModelSettings()) as models:
        answer = await models.complete(asking(asked, Turn(role="user", content=results), max_tokens=100))
    (call,) = [block for block in answer.content if block["type"] == "tool_use"]
    assert len(call["input"]["research"]) <= 200 + 2
    assert not answer.truncated


async def test_final_answer_is_cut_at_max_tokens_as_a_models_is() -> None:
    one = (STAFF[1],)
    results = [{"type": "tool_result", "tool_use_id": "t", "content": "word " * 100}]
    asked = Turn(role="assistant", content=[{"type": "tool_use", "id": "t", "name": "researcher", "input": {}}])
    async with Models(ModelSettings()) as models:
        answer = await models.complete(asking(asked, Turn(role="user", content=results), tools=one, max_tokens=10))
    assert (len(answer.text), answer.truncated) == (40, True)


async def test_rehearsal_that_is_told_to_answer_does() -> None:
    asked = Turn(role="assistant", content=[{"type": "tool_use", "id": "t", "name": "researcher", "input": {}}])
    result = {"type": "tool_result", "tool_use_id": "t", "content": "Found."}
    told = Turn(role="user", content=[result, {"type": "text", "text": ANSWER_NOW}])
    async with Models(ModelSettings()) as models:
        assert (await models.complete(asking(asked, told))).text == "Found."


async def test_newsroom_is_rehearsed_from_questions_to_the_article() -> None:
    plan = find_flow("newsroom").plan
    async with Models(ModelSettings()) as models:

        async def work(name: str, arguments: Mapping[str, Any]) -> str:
            agent = plan.flow.agents[name]
            assert arguments.keys() <= agent.input.keys()
            tier, prompt = plan.tier(agent), render(agent.prompt, arguments.get)
            return (await models.complete(request_for(prompt, max_tokens=tier.max_tokens))).text

        workers = Workers(work)
        values = {"topic": Raw(b'"Tidal power"'), "errors": Raw(msgspec.json.encode(list[Error]()))}
        context = Context(run="r", step="publish", attempt=1)
        task = StepTask(plan=plan, step="publish", values=values, context=context, asks=workers)
        performed = await OrchestratorAgent(models).perform(task, Journal())
    assert [name for name, _ in workers.asked] == ["researcher"] * 3 + ["writer", "editor"]
    article = msgspec.json.decode(performed.output, type=str)
    paragraphs = article.split("\n\n")
    assert len(paragraphs) == 3
    assert all("Tidal power" in paragraph for paragraph in paragraphs)
    assert performed.rehearsed
