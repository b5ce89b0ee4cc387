"""Which answers are answers, which text is theirs, and what a call took that gave none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from baton_actors.models import ModelError, Models
from baton_actors.models.texts import Joiner
from baton_schemas.wire.outcomes import Usage
from baton_schemas.wire.values import valid_text

from .model_servers import (
    answer_to,
    complete,
    end,
    failure_of,
    failure_to,
    head,
    request_for,
    sends,
    settings_for,
    sse,
    start,
    text,
)

THOUGHT: list[dict[str, Any]] = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm " * 40}},
    {"type": "content_block_stop", "index": 0},
]
TOOL: list[dict[str, Any]] = [
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
    {"type": "content_block_stop", "index": 1},
]
NEW: list[dict[str, Any]] = [
    {"type": "content_block_start", "index": 2, "content_block": {"type": "hologram", "text": "not text"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "hologram_delta", "text": "neither"}},
    {"type": "content_block_stop", "index": 2},
    {"type": "weather", "sunny": True},
]


@pytest.mark.parametrize(
    ("stop_reason", "blocks", "type", "retryable", "advice"),
    [
        ("end_turn", [], "empty_answer", True, "'none'"),
        ("end_turn", text(""), "empty_answer", True, "'none'"),
        ("end_turn", text(" \n"), "empty_answer", True, "'none'"),
        ("end_turn", THOUGHT, "empty_answer", True, "only thinking"),
        ("stop_sequence", [], "empty_answer", True, "'none'"),
        ("some_new_reason", [], "empty_answer", True, "some_new_reason"),
        ("max_tokens", THOUGHT, "empty_answer", False, "only thinking; raise max_tokens"),
        ("max_tokens", [], "empty_answer", False, "raise max_tokens"),
        ("model_context_window_exceeded", [], "empty_answer", False, "less text"),
        ("tool_use", [*text("Let me"), *TOOL], "unasked_tool", False, "ANTHROPIC_BASE_URL"),
        ("pause_turn", text("Let me"), "unasked_tool", False, "ANTHROPIC_BASE_URL"),
        ("refusal", text("I"), "refusal", False, "change the prompt"),
        ("refusal", [], "refusal", False, "change the prompt"),
    ],
)
async def test_no_usable_answer_is_a_typed_error_that_says_what_to_do(
    httpserver: HTTPServer, stop_reason: str, blocks: list[dict[str, Any]], type: str, retryable: bool, advice: str
) -> None:
    error = await failure_to(httpserver, start(input_tokens=100), *blocks, *end(stop_reason, 20))
    assert (error.type, error.retryable) == (type, retryable)
    assert advice in error.message
    assert error.usage == Usage(input_tokens=100, output_tokens=20)
    assert error.cost_usd == pytest.approx((100 * 1 + 20 * 5) / 1e6)
    assert (error.model, error.request_id, error.estimated) == ("claude-haiku-4-5-20251001", "req_42", False)


@pytest.mark.parametrize(
    ("stop_reason", "truncated"),
    [
        ("end_turn", False),
        ("stop_sequence", False),
        ("some_new_reason", False),
        ("max_tokens", True),
        ("model_context_window_exceeded", True),
    ],
)
async def test_answer_with_text_is_an_answer_whatever_else_comes(
    httpserver: HTTPServer, stop_reason: str, truncated: bool
) -> None:
    answer = await answer_to(httpserver, start(), *THOUGHT, *text("Yes."), *TOOL, *NEW, *end(stop_reason))
    assert (answer.text, answer.stop_reason, answer.truncated) == ("Yes.", stop_reason, truncated)


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a", "\ude00b"], "a\ufffdb"),
        (["a\ud83d"], "a\ufffd"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
async def test_halves_of_an_emoji_are_joined_and_lone_ones_replaced(
    httpserver: HTTPServer, pieces: list[str], whole: str
) -> None:
    chunks: list[str] = []
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(start(), *text(*pieces), *end("end_turn")), content_type="text/event-stream"
    )
    async with Models(settings_for(httpserver.url_for(""))) as models:
        answer = await models.complete(request_for(), chunks.append)
    assert answer.text == whole
    assert "".join(chunks) == whole
    assert all(chunk.encode() for chunk in chunks)


def test_text_without_surrogates_stays_as_it_is() -> None:
    joiner = Joiner()
    assert [joiner.add("naïve 😀"), joiner.end()] == ["naïve 😀", ""]
    assert valid_text("\ude00\ud83d") == "\ufffd\ufffd"


async def test_lone_surrogate_in_a_prompt_does_not_stop_the_call(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(start(), *text("Yes."), *end("end_turn")), content_type="text/event-stream"
    )
    await complete(settings_for(httpserver.url_for("")), request_for("a\ud83d", system="\ude00b"))
    sent = httpserver.log[0][0].json
    assert (sent["messages"][0]["content"], sent["system"][0]["text"]) == ("a\ufffd", "\ufffdb")


async def test_stream_that_ends_before_its_last_event_is_broken_and_was_paid(httpserver: HTTPServer) -> None:
    error = await failure_to(httpserver, start(), *text("Yes."), *end("end_turn", 20)[:-1])
    assert (error.type, error.retryable) == ("broken_answer", True)
    assert error.usage == Usage(output_tokens=20)
    assert not error.estimated


async def test_cut_stream_took_its_prompt_and_about_what_came_of_its_text(httpserver: HTTPServer) -> None:
    error = await failure_to(httpserver, start(input_tokens=50, cache_read_input_tokens=7), *THOUGHT, *text("x" * 400))
    assert error.usage == Usage(input_tokens=50, cache_read_tokens=7, output_tokens=(120 + 400) // 4)
    assert error.estimated
    assert error.cost_usd == pytest.approx((50 * 1 + 7 * 0.1 + 130 * 5) / 1e6)


async def test_error_inside_a_stream_took_what_came_before_it(httpserver: HTTPServer) -> None:
    sorry = {"type": "error", "error": {"type": "api_error", "message": "Sorry"}}
    error = await failure_to(httpserver, start(input_tokens=50), *text("x" * 40), sorry)
    assert error.usage == Usage(input_tokens=50, output_tokens=10)
    assert (error.request_id, error.overloaded) == ("req_42", False)


async def test_timed_out_call_took_what_came_of_it() -> None:
    events = sse(start(input_tokens=50), *text("x" * 40)).encode()
    async with sends(head() + events, pause_s=5.0) as url:
        error = await failure_of(settings_for(url), request_for(timeout_s=0.5))
    assert error.type == "timeout"
    assert error.usage == Usage(input_tokens=50, output_tokens=10)


async def test_call_that_failed_before_its_answer_began_took_nothing(httpserver: HTTPServer) -> None:
    error = await failure_to(httpserver)
    assert (error.usage, error.cost_usd) == (None, None)


async def test_cancelled_call_says_what_it_took() -> None:
    cuts: list[ModelError] = []
    came = asyncio.Event()
    events = sse(start(input_tokens=50), *text("x" * 40)).encode()
    async with sends(head(request_id="req_7") + events, pause_s=5.0) as url, Models(settings_for(url)) as models:
        call = asyncio.create_task(models.complete(request_for(), lambda chunk: came.set(), cuts.append))
        await asyncio.wait_for(came.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [(cut.type, cut.request_id) for cut in cuts] == [("cancelled", "req_7")]
    assert cuts[0].usage == Usage(input_tokens=50, output_tokens=10)
    assert cuts[0].cost_usd == pytest.approx((50 * 1 + 10 * 5) / 1e6)


async def test_call_of_an_unknown_model_that_failed_has_usage_and_no_cost(httpserver: HTTPServer) -> None:
    begin = start(input_tokens=50)
    begin["message"]["model"] = "llama3"
    error = await failure_to(httpserver, begin, *end("end_turn"))
    assert error.usage is not None
    assert (error.model, error.cost_usd) == ("llama3", None)


@pytest.mark.parametrize(
    "garbage",
    [
        {"type": "message_start", "message": None},
        {"type": "content_block_start", "index": 0, "content_block": None},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}},
        {"type": "content_block_delta", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": "many"}},
    ],
)
async def test_event_that_lacks_what_its_type_promises_is_a_broken_answer(
    httpserver: HTTPServer, garbage: dict[str, Any]
) -> None:
    error = await failure_to(httpserver, start(), garbage, *text("Yes."), *end("end_turn"))
    assert (error.type, error.retryable) == ("broken_answer", True)


async def test_counts_out_of_bounds_are_bounded(httpserver: HTTPServer) -> None:
    answer = await answer_to(httpserver, start(input_tokens=-5), *text("Yes."), *end("end_turn", 10**30))
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (0, 2**53 - 1)
    assert json.dumps(answer.cost_usd)
