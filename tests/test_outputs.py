"""LLM agents that say what they answer with: the model over real HTTP is asked for it, and held to it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors.agents.context import Context
from baton_actors.agents.kinds import AgentKind, Performed, StepTask
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.agents.prompt import PromptAgent
from baton_actors.errors import AnswerUnfit, Fail
from baton_actors.models import ModelError, Models, ModelSettings
from baton_schemas.flow.file import build_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.show.asked import Asked

from .model_servers import ScriptedModel, calls, says, settings_for, sse, start
from .test_orchestrator import Journal, Workers

FIELDS: dict[str, Any] = {
    "kind": {"values": ["refund", "complaint"], "description": "what the mail is about"},
    "score": {"type": "int", "default": 3},
    "note": "str?",
    "topics": {"type": "list", "fields": {"title": "str"}},
}
GOOD = {"kind": "refund", "score": 4, "topics": [{"title": "tea"}]}
WRONG = {"kind": "praise", "topics": []}


def task(*, workers: bool = False, **changes: Any) -> StepTask:
    agent: dict[str, Any] = {"model": "worker", "prompt": "Sort: {mail}", "output": FIELDS} | changes
    agents = {"classify": agent | ({"workers": ["finder"]} if workers else {})}
    if workers:
        agents["finder"] = {"model": "worker", "prompt": "{question}", "input": {"question": "str"}}
    plan = Plan(build_flow({"name": "f", "input": {"mail": "str"}, "agents": agents, "steps": {"classify": {}}}))
    context = Context(run="r", step="classify", attempt=1)
    return StepTask(plan=plan, step="classify", values={"mail": Raw(b'"Hi"')}, context=context, asks=Workers())


async def performing(settings: ModelSettings, asked: StepTask, journal: Journal | None = None) -> Performed:
    async with Models(settings) as models:
        called = asked.plan.agent("classify").workers
        agent: AgentKind = OrchestratorAgent(models) if called else PromptAgent(models)
        return await agent.perform(asked, journal or Journal())


async def put_out(model: ScriptedModel, asked: StepTask | None = None) -> Any:
    return msgspec.json.decode((await performing(model.settings, asked or task())).output)


# ---- what is asked for ---------------------------------------------------------------------------


async def test_model_is_asked_for_json_that_fits_the_fields(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(json.dumps(GOOD)))
    assert await put_out(model) == GOOD
    (asked,) = model.asked
    assert asked["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "kind": {"enum": ["refund", "complaint"], "description": "what the mail is about"},
                    "score": {"type": "integer", "description": "{default: 3}"},
                    "note": {"type": "string"},
                    "topics": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"title": {"type": "string"}},
                            "additionalProperties": False,
                            "required": ["title"],
                        },
                    },
                },
                "additionalProperties": False,
                "required": ["kind", "topics"],
            },
        }
    }


async def test_agent_without_output_is_asked_for_text_as_ever(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says('{"kind": 1}'))
    assert await put_out(model, task(output={})) == '{"kind": 1}'
    assert "output_config" not in model.asked[0]


def test_what_is_asked_for_is_in_the_hash_and_old_hashes_stay() -> None:
    asked = Asked(model="m", system="s", prompt="p", max_tokens=10)
    before = hashlib.sha256(msgspec.json.encode(("m", "s", "p", 10, False))).hexdigest()
    assert asked.digest(rehearses=False) != replace(asked, output={"type": "object"}).digest(rehearses=False)
    assert asked.digest(rehearses=False) == replace(asked, output={}).digest(rehearses=False) == before


async def test_default_stands_in_and_capitals_are_those_of_the_flow(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says('{"kind": "Refund", "topics": []}'))
    assert await put_out(model) == {"kind": "refund", "score": 3, "topics": []}


# ---- what is no JSON, or other JSON --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{}\n```",
        "Here it is:\n\n```\n{}\n```\nIt is about [1] tea {as you see}.",
        "\ufeff{}",
        "Sure! {}",
    ],
)
async def test_one_object_in_a_text_is_taken_without_asking_again(httpserver: HTTPServer, text: str) -> None:
    model = ScriptedModel(httpserver, says(text.replace("{}", json.dumps(GOOD))))
    assert await put_out(model) == GOOD
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("It is a refund.", "found no JSON; expected one JSON object"),
        (json.dumps(WRONG), 'kind: found the string "praise"; expected "refund" or "complaint"'),
        ('{"kind": "refund"}', "topics: missing; expected a list; it has: kind"),
        ('{"kind": "refund", "topics": [{"title": 3}]}', "topics[0].title: found the number 3; expected a string"),
        (f"{json.dumps(GOOD)} or {json.dumps(GOOD)}", "found 2 JSON values; expected one JSON object"),
        (f"So: [{json.dumps(GOOD)}]", "found a list; expected one JSON object"),
        ("[1, 2]", "found a list; expected an object"),
        ('{"kind": NaN, "topics": []}', "found no JSON; expected one JSON object"),
        ("[" * 5_000, "found no JSON; expected one JSON object"),
    ],
)
async def test_model_is_told_once_what_is_wrong_and_its_next_answer_counts(
    httpserver: HTTPServer, text: str, told: str
) -> None:
    model = ScriptedModel(httpserver, says(text), says(json.dumps(GOOD)))
    journal = Journal()
    done = await performing(model.settings, task(), journal)
    assert msgspec.json.decode(done.output) == GOOD
    first, second = model.asked
    _, said, again = second["messages"]
    assert said == {"role": "assistant", "content": [{"type": "text", "text": text}]}
    assert told in again["content"][0]["text"]
    assert '"required":["kind","topics"]' in again["content"][0]["text"]
    assert second["output_config"] == first["output_config"]
    assert done.usage is not None and done.usage.output_tokens == 14, "both answers are paid for"
    assert len(journal.answers) == 2, "each is recorded, so that neither is paid for twice"


async def test_recorded_answers_are_not_asked_for_again(httpserver: HTTPServer) -> None:
    model, journal = ScriptedModel(httpserver, says("No."), says(json.dumps(GOOD))), Journal()
    first = await performing(model.settings, task(), journal)
    again = await performing(model.settings, task(), journal)
    assert (again.output, again.usage, len(model.asked)) == (first.output, first.usage, 2)


async def test_attempt_that_ended_before_the_repair_is_gone_on_with_there(httpserver: HTTPServer) -> None:
    model, journal = ScriptedModel(httpserver, says("No."), sse(start()), says(json.dumps(GOOD))), Journal()
    with pytest.raises(ModelError) as caught:
        await performing(model.settings, task(), journal)
    assert caught.value.retryable
    done = await performing(model.settings, task(), journal)
    assert msgspec.json.decode(done.output) == GOOD
    assert [len(asked["messages"]) for asked in model.asked] == [1, 3, 3], "the first answer is not paid for twice"


async def test_second_bad_answer_fails_the_step_with_what_came(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("No."), says("x" * 5_000 + "I will not."))
    with pytest.raises(AnswerUnfit, match=r"found no JSON.* also when it was asked again") as caught:
        await put_out(model)
    assert str(caught.value).endswith("I will not.")
    assert len(str(caught.value)) < 1_500
    assert len(model.asked) == 2
    assert isinstance(caught.value, Fail), "the same would come of another attempt"


async def test_json_that_was_cut_off_is_said_so_and_not_asked_for_again(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says('{"kind": "ref', stop="max_tokens"))
    with pytest.raises(AnswerUnfit, match=r"cut off at max_tokens \(1024\).*raise max_tokens"):
        await put_out(model)
    assert len(model.asked) == 1


async def test_refusal_is_no_answer_to_repair(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("I can't.", stop="refusal"))
    with pytest.raises(ModelError) as caught:
        await put_out(model)
    assert (caught.value.type, len(model.asked)) == ("refusal", 1)


async def test_schema_that_the_api_refuses_is_told_with_the_key(httpserver: HTTPServer) -> None:
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": "output_config: too complex"}}
    httpserver.expect_request("/v1/messages").respond_with_json(said, status=400)
    with pytest.raises(ModelError, match="too complex; correct the output, model name") as caught:
        await performing(settings_for(httpserver.url_for("")), task())
    assert not caught.value.retryable


# ---- agents that call ----------------------------------------------------------------------------


async def test_last_answer_of_an_orchestrator_is_held_to_it_too(httpserver: HTTPServer) -> None:
    call = says(calls("finder", "a", {"question": "What?"}))
    model = ScriptedModel(httpserver, call, says("It is a refund."), says(json.dumps(GOOD)))
    assert await put_out(model, task(workers=True)) == GOOD
    assert all("output_config" in asked for asked in model.asked)
    assert [message["role"] for message in model.asked[-1]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert "found no JSON" in model.told[0]["text"]


async def test_repair_of_an_orchestrator_is_once_and_beyond_its_rounds(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("No."))
    with pytest.raises(AnswerUnfit, match="also when it was asked again"):
        await put_out(model, task(workers=True, max_rounds=1))
    assert len(model.asked) == 2


# ---- rehearsals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [False, True])
async def test_rehearsed_answer_fits(workers: bool) -> None:
    done = await performing(ModelSettings(rehearse=True), task(workers=workers, max_tokens=5))
    found = msgspec.json.decode(done.output)
    assert found["kind"] in ("refund", "complaint") and found["topics"]
    assert done.rehearsed and done.cost_usd == 0.0 and not done.truncated
