"""Model calls over real HTTP: answers, and every way in which one can fail to arrive."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from email.utils import formatdate

import msgspec
import pytest
from llmock.scenarios import Fail, StreamFault
from llmock.testing import LLMockServer
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors.models import ModelError, Models, ModelSettings, cost_usd, request_digest
from baton_actors.models.body import body_of
from baton_actors.models.errors import is_overloaded, is_retryable, retry_after_s
from baton_actors.models.heard import Heard
from baton_schemas.flow.tools import Tool
from baton_schemas.show.asked import Turn
from baton_schemas.wire.outcomes import Usage

from .model_servers import answer_to, end, failure_of, failure_to, request_for, settings_for, sse, start, text
from .model_servers import fresh_llmock as fresh_llmock  # fixtures
from .model_servers import start_llmock as start_llmock


async def test_answer_has_the_text_usage_and_cost_of_the_call(llmock: LLMockServer) -> None:
    chunks: list[str] = []
    async with Models(settings_for(llmock.base_url("anthropic"))) as models:
        answer = await models.complete(request_for("how are you"), chunks.append)
    assert "how are you" in answer.text
    assert len(chunks) > 1
    assert "".join(chunks) == answer.text
    assert (answer.model, answer.stop_reason, answer.truncated) == ("claude-haiku-4-5", "end_turn", False)
    assert answer.usage.output_tokens > 1
    tokens_usd = answer.usage.input_tokens * 1 + answer.usage.output_tokens * 5
    assert answer.cost_usd == pytest.approx(tokens_usd / 1e6)
    assert not answer.rehearsed


async def test_calls_at_the_same_time_get_their_own_answers(llmock: LLMockServer) -> None:
    async with Models(settings_for(llmock.base_url("anthropic"))) as models:
        requests = [request_for(f"question {number}") for number in range(20)]
        answers = await asyncio.gather(*(models.complete(request) for request in requests))
    assert all(f"question {number}" in answer.text for number, answer in enumerate(answers))


@pytest.mark.parametrize(
    ("status", "type", "retryable", "advice"),
    [
        (400, "invalid_request_error", False, "max_tokens"),
        (401, "authentication_error", False, "check ANTHROPIC_API_KEY"),
        (403, "permission_error", False, "ANTHROPIC_API_KEY may use the model 'claude-haiku-4-5'"),
        (404, "not_found_error", False, "check the model name 'claude-haiku-4-5'"),
        (413, "request_too_large", False, "less text"),
        (422, "invalid_request_error", False, "max_tokens"),
        (408, None, True, "goes on"),
        (409, None, True, "goes on"),
        (429, "rate_limit_error", True, "lower the concurrency"),
        (500, "api_error", True, "goes on"),
        (529, "overloaded_error", True, "goes on"),
    ],
)
async def test_status_decides_whether_to_retry_and_what_to_do(
    llmock: LLMockServer, status: int, type: str | None, retryable: bool, advice: str
) -> None:
    llmock.state.scenarios.add(Fail(status))
    error = await failure_of(settings_for(llmock.base_url("anthropic")), request_for())
    assert error.retryable is retryable
    assert type is None or error.type == type
    assert str(status) in error.message
    assert advice in error.message


async def test_refused_token_is_named_by_its_own_variable(llmock: LLMockServer) -> None:
    llmock.state.scenarios.add(Fail(401))
    settings = settings_for(llmock.base_url("anthropic"), api_key="", auth_token="token")
    assert "check ANTHROPIC_AUTH_TOKEN" in (await failure_of(settings, request_for())).message


async def test_failed_call_is_made_once(llmock: LLMockServer) -> None:
    llmock.state.scenarios.add(Fail(529, times=None))
    await failure_of(settings_for(llmock.base_url("anthropic")), request_for())
    assert len(llmock.state.journal.records()) == 1


@pytest.mark.parametrize(
    ("status", "asked_s", "wait_s"),
    [(429, 7.0, 7.0), (429, 21_600.0, 21_600.0), (429, 1e9, 86_400.0), (500, 90.0, 60.0)],
)
async def test_retry_after_is_kept_up_to_a_cap(
    llmock: LLMockServer, status: int, asked_s: float, wait_s: float
) -> None:
    llmock.state.scenarios.add(Fail(status, retry_after=asked_s))
    error = await failure_of(settings_for(llmock.base_url("anthropic")), request_for())
    assert error.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "3", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": formatdate(1_000_020, usegmt=True)}, 20.0),
        ({"retry-after": formatdate(900_000, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after_s(headers, cap_s=60.0, now_s=1_000_000.0) == wait_s


def test_word_of_the_server_on_retries_goes_before_the_status() -> None:
    assert not is_retryable(429, "rate_limit_error", {"x-should-retry": "false"})
    assert is_retryable(400, "invalid_request_error", {"x-should-retry": "true"})


@pytest.mark.parametrize(
    ("status", "type", "headers", "overloaded"),
    [
        (429, "rate_limit_error", {}, True),
        (429, "http_429", {}, True),
        (529, "overloaded_error", {}, True),
        (200, "overloaded_error", {}, True),
        (500, "overloaded_error", {}, True),
        (503, "http_503", {"retry-after": "5"}, True),
        (503, "http_503", {}, False),
        (500, "api_error", {"retry-after": "5"}, False),
        (400, "invalid_request_error", {}, False),
        (429, "billing_error", {}, False),
        (429, "rate_limit_error", {"x-should-retry": "false"}, False),
    ],
)
def test_overloaded_is_who_asks_to_wait(status: int, type: str, headers: dict[str, str], overloaded: bool) -> None:
    assert is_overloaded(status, type, headers) is overloaded


@pytest.mark.parametrize(("status", "overloaded"), [(429, True), (529, True), (500, False), (401, False)])
async def test_call_that_was_told_to_wait_says_so(llmock: LLMockServer, status: int, overloaded: bool) -> None:
    llmock.state.scenarios.add(Fail(status))
    error = await failure_of(settings_for(llmock.base_url("anthropic")), request_for())
    assert error.overloaded is overloaded


@pytest.mark.parametrize("after_chunks", [0, 1, 3])
@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_broken_stream_is_never_an_answer(llmock: LLMockServer, kind: str, after_chunks: int) -> None:
    llmock.state.scenarios.add(StreamFault(kind, after_chunks=after_chunks))  # type: ignore[arg-type]
    error = await failure_of(settings_for(llmock.base_url("anthropic")), request_for("a b c d e f"))
    assert error.type in ("broken_answer", "connection")
    assert error.retryable


async def test_stalled_stream_ends_at_the_timeout(llmock: LLMockServer) -> None:
    llmock.state.scenarios.add(StreamFault("stall", stall_seconds=2.0))
    error = await failure_of(settings_for(llmock.base_url("anthropic")), request_for(timeout_s=0.2))
    assert (error.type, error.retryable) == ("timeout", True)
    assert "0.2 s" in error.message


async def test_chunks_come_before_the_answer_ends_and_a_call_can_be_cancelled(llmock: LLMockServer) -> None:
    llmock.state.scenarios.add(StreamFault("stall", after_chunks=4, stall_seconds=2.0))
    came = asyncio.Event()
    async with Models(settings_for(llmock.base_url("anthropic"))) as models:
        call = asyncio.create_task(models.complete(request_for(), lambda chunk: came.set()))
        await asyncio.wait_for(came.wait(), 10)
        assert not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_what_on_chunk_raises_is_not_taken_for_a_failed_call(llmock: LLMockServer) -> None:
    def refuse(chunk: str) -> None:
        raise TimeoutError(chunk)

    async with Models(settings_for(llmock.base_url("anthropic"))) as models:
        with pytest.raises(TimeoutError, match="Hello"):
            await models.complete(request_for(), refuse)


async def test_unreachable_server_is_named(unused_tcp_port: int) -> None:
    error = await failure_of(settings_for(f"http://127.0.0.1:{unused_tcp_port}/anthropic"), request_for())
    assert (error.type, error.retryable) == ("connection", True)
    assert f"127.0.0.1:{unused_tcp_port}" in error.message
    assert "ANTHROPIC_BASE_URL" in error.message


async def test_cached_tokens_are_counted_and_priced(httpserver: HTTPServer) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
    answer = await answer_to(httpserver, start(**usage), *text("Hi"), *end("end_turn", 20))
    assert answer.usage == Usage(input_tokens=10, output_tokens=20, cache_read_tokens=1000, cache_write_tokens=200)
    assert answer.cost_usd == pytest.approx((10 * 1 + 20 * 5 + 1000 * 0.1 + 200 * 1.25) / 1e6)
    assert answer.request_id == "req_42"


async def test_hour_in_the_cache_and_uses_of_the_providers_tools_are_counted_and_priced(httpserver: HTTPServer) -> None:
    cached = {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 800}
    begin = start(input_tokens=10, cache_creation_input_tokens=1000)
    begin["message"]["usage"] |= {"cache_creation": cached, "server_tool_use": None}
    stop, last = end("end_turn", 20)
    stop["usage"]["server_tool_use"] = {"web_search_requests": 3, "web_fetch_requests": 0, "tell_fortune_requests": 1}
    answer = await answer_to(httpserver, begin, *text("Hi"), stop, last)
    assert (answer.usage.cache_write_tokens, answer.usage.cache_write_1h_tokens) == (1000, 800)
    assert answer.usage.server_tools == {"web_search": 3, "tell_fortune": 1}
    assert answer.cost_usd is None, "nobody knows the price of a fortune"
    heard = Heard()
    for event in (begin, *text("Hi"), stop, last):
        heard.event(sse(event).encode())
    assert heard.reading.usage == answer.usage, "a handler's own client is counted alike"
    known = replace(answer.usage, server_tools={"web_search": 3})
    priced_usd = (10 * 1 + 20 * 5 + 200 * 1.25 + 800 * 2) / 1e6 + 3 * 0.01
    assert cost_usd(answer.model, known) == pytest.approx(priced_usd)


async def test_answer_cut_at_max_tokens_is_flagged(httpserver: HTTPServer) -> None:
    answer = await answer_to(httpserver, start(), *text("Once up"), *end("max_tokens"))
    assert (answer.text, answer.truncated, answer.stop_reason) == ("Once up", True, "max_tokens")


async def test_thinking_is_not_part_of_the_answer(httpserver: HTTPServer) -> None:
    thought = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "so"}},
        {"type": "content_block_stop", "index": 0},
    ]
    answer = await answer_to(httpserver, start(), *thought, *text("Yes."), *end("end_turn"))
    assert answer.text == "Yes."


async def test_refusal_is_final_and_keeps_its_reason_and_request_id(httpserver: HTTPServer) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Against the policy."}
    with pytest.raises(ModelError) as caught:
        await answer_to(httpserver, start(), *text("I"), *end("refusal", stop_details=details))
    assert (caught.value.type, caught.value.retryable) == ("refusal", False)
    assert "Against the policy" in caught.value.message
    assert caught.value.request_id == "req_42"


async def test_stream_without_events_is_a_retryable_failure(httpserver: HTTPServer) -> None:
    with pytest.raises(ModelError) as caught:
        await answer_to(httpserver)
    assert (caught.value.type, caught.value.retryable) == ("broken_answer", True)
    assert caught.value.request_id == "req_42"


@pytest.mark.parametrize(("type", "retryable"), [("overloaded_error", True), ("invalid_request_error", False)])
async def test_error_inside_a_stream_counts_by_its_type(httpserver: HTTPServer, type: str, retryable: bool) -> None:
    error = await failure_to(httpserver, start(), {"type": "error", "error": {"type": type, "message": "Sorry"}})
    assert (error.type, error.retryable) == (type, retryable)


@pytest.mark.parametrize("system", [" \n", " " * 100_000])
def test_blank_system_prompt_is_not_sent(system: str) -> None:
    assert "system" not in body_of(request_for(system=system))


async def test_system_prompt_that_is_too_short_for_the_cache_is_not_marked(httpserver: HTTPServer) -> None:
    await answer_to(httpserver, start(), *text("Hi"), *end("end_turn"))
    request, _ = httpserver.log[0]
    assert request.json["system"] == [{"type": "text", "text": "Be kind."}]
    assert request.headers["Authorization"] == "Bearer test-key"


async def test_server_without_credentials_gets_a_placeholder(httpserver: HTTPServer) -> None:
    answer = await answer_to(httpserver, start(), *text("Hi"), *end("end_turn"), api_key="")
    assert not answer.rehearsed
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer none"


async def test_declined_rehearsal_without_credentials_says_what_to_set() -> None:
    error = await failure_of(ModelSettings(rehearse=False), request_for())
    assert (error.type, error.retryable) == ("no_credentials", False)
    assert "ANTHROPIC_API_KEY" in error.message


@pytest.mark.parametrize(
    ("environ", "rehearses"),
    [
        ({}, True),
        ({"ANTHROPIC_API_KEY": " \n"}, True),
        ({"ANTHROPIC_API_KEY": "key"}, False),
        ({"ANTHROPIC_AUTH_TOKEN": "token"}, False),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8000/anthropic"}, False),
        ({"ANTHROPIC_API_KEY": "key", "BATON_REHEARSE": "1"}, True),
        ({"BATON_REHEARSE": "off"}, False),
    ],
)
def test_no_credentials_means_rehearsal_unless_said_otherwise(environ: dict[str, str], rehearses: bool) -> None:
    assert ModelSettings.from_environ(environ).rehearses is rehearses


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ANTHROPIC_API_KEY", "two words"),
        ("ANTHROPIC_AUTH_TOKEN", "clé"),
        ("ANTHROPIC_BASE_URL", "localhost:8000"),
        ("ANTHROPIC_BASE_URL", "http://host:port"),
        ("BATON_REHEARSE", "maybe"),
    ],
)
def test_unusable_setting_is_refused_by_the_name_of_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ModelError, match=variable) as caught:
        ModelSettings.from_environ({variable: value})
    assert caught.value.type == "bad_setting"


def test_settings_do_not_show_their_secrets() -> None:
    settings = ModelSettings(api_key="sk-secret", auth_token="tok-secret")
    assert "secret" not in repr(settings) + str(settings.__rich_repr__())


@pytest.mark.parametrize(
    "changes", [{"model": "m"}, {"system": "s"}, {"prompt": "p"}, {"max_tokens": 7}, {"model": "claude-haiku-4-5B"}]
)
def test_digest_differs_with_what_is_asked(changes: dict[str, str]) -> None:
    settings = ModelSettings(api_key="key")
    assert request_digest(request_for(**changes), settings) != request_digest(request_for(), settings)


def test_digest_differs_between_a_rehearsal_and_a_model_and_not_with_the_way_to_it() -> None:
    real = request_digest(request_for(), ModelSettings(api_key="key"))
    assert re.fullmatch("[0-9a-f]{64}", real)
    assert request_digest(request_for(), ModelSettings()) != real
    assert request_digest(request_for(), ModelSettings(api_key="key", rehearse=True)) != real
    other_way = ModelSettings(auth_token="other", base_url="http://gateway:8000")
    assert request_digest(request_for(timeout_s=1.0), other_way) == real


def test_digest_of_a_prompt_is_that_of_the_releases_before() -> None:
    """Else the recorded answers of runs that began under one of them would be paid again."""
    request = request_for()
    real, rehearsed = request_digest(request, ModelSettings(api_key="k")), request_digest(request, ModelSettings())
    assert real == "44984af3e4489f64c045266cb7b212d2ab7cf8a4f220df480e18746b1b8d35b3"
    assert rehearsed == "07d643dab9c66f5d6fcca9adc1ef12ea52ec9ebe3183c55ef5b8ea5eaca9ded4"


def test_digest_differs_with_tools_and_with_what_was_said() -> None:
    tool = Tool(name="a", description="", input_schema={})
    turn = Turn(role="assistant", content=[{"type": "text", "text": "Hm."}])
    requests = [request_for(), *(request_for(tools=(tool,), turns=turns) for turns in [(), (turn,), (turn, turn)])]
    requests.append(request_for(tools=(msgspec.structs.replace(tool, description="b"),)))
    assert len({request_digest(request, ModelSettings()) for request in requests}) == len(requests)


def test_digest_of_a_prompt_with_a_lone_surrogate_is_that_of_what_is_sent() -> None:
    settings = ModelSettings(api_key="key")
    assert request_digest(request_for("a\ud83d"), settings) == request_digest(request_for("a\ufffd"), settings)


def test_importing_the_package_does_not_import_the_sdk() -> None:
    code = "import sys, baton_actors.models; print([m for m in sys.modules if m in ('anthropic', 'httpx2')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
