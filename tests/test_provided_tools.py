"""The provider's own tools: offered as the API has them, blocks sent back as they came, and nothing called here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw
from pytest_httpserver import HTTPServer

from baton_actors.models import ModelSettings
from baton_schemas.show.conversation import Said, said_in
from baton_schemas.wire.facts import ModelCall

from .model_servers import ScriptedModel, calls, end, says, sse
from .test_orchestrator import Journal
from .test_tool_calls import Desk, perform

SEARCH = {"use": "web_search", "max_uses": 3, "allowed_domains": ["example.com"]}
USE = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": json.dumps({"query": "tea"})}
USE_SENT = USE | {"input": {"query": "tea"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "caller": {"type": "direct"},
    "content": [{"type": "web_search_result", "url": "https://example.com/tea", "encrypted_content": "EqgfCioIARgB"}],
}


def paused(*blocks: Any, container: str = "") -> str:
    """Return an answer that pauses, which ran code in a container."""
    said = says(*blocks, stop="pause_turn")
    return said.replace('"stop_sequence": null}, "usage"', f'"stop_sequence": null, {container}}}, "usage"')


async def test_they_are_offered_by_type_and_name_with_what_limits_them(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("Done."))
    tools = [SEARCH, {"use": "web_fetch", "blocked_domains": ["example.org"]}, "code_execution", "./t.py:search"]
    await perform(model.settings, Desk().tools(), Journal(), workers=[], tools=tools)
    search, *provided = model.asked[0]["tools"]
    assert search["name"] == "search"
    assert provided == [
        {"type": "web_search_20260318", "name": "web_search", "max_uses": 3, "allowed_domains": ["example.com"]},
        {"type": "web_fetch_20260318", "name": "web_fetch", "blocked_domains": ["example.org"]},
        {"type": "code_execution_20260521", "name": "code_execution"},
    ]


async def test_paused_answer_goes_back_as_it_came_and_goes_on_in_its_container(httpserver: HTTPServer) -> None:
    container = '"container": {"id": "container_1", "expires_at": "2026-11-25T12:00:00Z"}'
    model = ScriptedModel(httpserver, paused("I look.", USE, FOUND, container=container), says("It is green."))
    journal = Journal()
    performed = await perform(model.settings, {}, journal, workers=[], tools=["web_search"])
    assert performed.output == b'"It is green."'
    _, said = model.asked[1]["messages"]
    assert said == {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USE_SENT, FOUND]}
    assert (model.asked[0].get("container"), model.asked[1]["container"]) == (None, "container_1")
    again = await perform(model.settings, {}, journal, workers=[], tools=["web_search"])
    assert (again, len(model.asked)) == (performed, 2)  # also what it asked in the container was found again
    assert journal.tools.calls == {}


async def test_step_puts_out_what_is_said_after_the_last_search(httpserver: HTTPServer) -> None:
    cited: dict[str, Any] = {"type": "char_location", "cited_text": "green", "document_index": 0}
    blocks: list[dict[str, Any]] = [
        {"type": "content_block_start", "index": 3, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": " is green."}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "citations_delta", "citation": cited}},
        {"type": "content_block_stop", "index": 3},
    ]
    before = says("I look for tea.", USE, FOUND, "Tea").partition("event: message_delta")[0]
    model = ScriptedModel(httpserver, before + sse(*[block | {"index": 4} for block in blocks], *end("end_turn")))
    performed = await perform(model.settings, {}, Journal(), workers=[], tools=["web_search"])
    assert performed.output == b'"Tea is green."'


async def test_answer_that_ends_with_a_search_is_put_out_whole(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("Tea is green.", USE, FOUND))
    performed = await perform(model.settings, {}, Journal(), workers=[], tools=["web_search"])
    assert performed.output == b'"Tea is green."'


async def test_functions_and_searches_of_one_answer_go_back_in_its_order(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(USE, FOUND, calls("search", "a", {"query": "x"})), says("Done."))
    desk = Desk()
    await perform(model.settings, desk.tools(), Journal(), workers=[], tools=["./t.py:search", "web_search"])
    _, said, told = model.asked[1]["messages"]
    assert [block["type"] for block in said["content"]] == ["server_tool_use", "web_search_tool_result", "tool_use"]
    assert [block["tool_use_id"] for block in told["content"]] == ["a"]
    assert desk.searched == ["x"]


async def test_rehearsal_answers_without_them() -> None:
    performed = await perform(ModelSettings(), {}, Journal(), workers=[], tools=["web_search", "code_execution"])
    assert performed.rehearsed
    assert performed.cost_usd in (None, 0.0)


@pytest.mark.parametrize("stop", ["end_turn", "pause_turn"])
def test_their_calls_are_shown_with_the_others(stop: str) -> None:
    content = json.dumps([USE_SENT, FOUND, {"type": "text", "text": "Tea."}]).encode()
    call = ModelCall(request_sha256="ab", text=Raw(b'"Tea."'), content=Raw(content), stop_reason=stop)
    assert said_in(call) == Said(text="Tea.", calls=[("web_search", {"query": "tea"})])
