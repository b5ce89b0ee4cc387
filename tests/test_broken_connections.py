"""Servers, proxies and networks that fail in the middle: each becomes one typed error, and says nothing secret."""

from __future__ import annotations

import gzip
import json

import pytest
from pytest_httpserver import HTTPServer

from baton_actors.models import ModelError, ModelSettings
from baton_actors.models.texts import without_secrets

from .model_servers import complete, end, failure_of, head, request_for, sends, settings_for, sse, start, text

WHOLE = sse(start(input_tokens=9), *text("Once ", "upon"), *end("end_turn")).encode()
KEY = "my-secret-key-1234"


@pytest.mark.parametrize("cut_at", [1, len(WHOLE) // 2, len(WHOLE) - 40])
async def test_connection_that_is_reset_is_no_answer(cut_at: int) -> None:
    async with sends(head(), WHOLE[:cut_at], pause_s=0.05, reset=True) as url:
        error = await failure_of(settings_for(url), request_for())
    assert error.type in ("broken_answer", "connection")
    assert error.retryable


async def test_connection_that_is_reset_inside_an_http_chunk_is_no_answer() -> None:
    async with sends(head(transfer_encoding="chunked"), b"ffff\r\n" + WHOLE, pause_s=0.05, reset=True) as url:
        error = await failure_of(settings_for(url), request_for())
    # The whole answer had come; the usage says that it is paid.
    assert error.type in ("broken_answer", "connection")
    assert error.usage is not None
    assert error.usage.input_tokens == 9


async def test_connection_that_is_closed_before_the_head_is_no_answer() -> None:
    async with sends(b"") as url:
        error = await failure_of(settings_for(url), request_for())
    assert (error.type, error.retryable) == ("connection", True)


@pytest.mark.parametrize(
    "events",
    [
        b'event: message_start\ndata: {"type": \n\n',
        b"event: message_start\ndata: []\n\n",
        b"event: message_start\ndata: {}\n\n",
        b"event: message_start\ndata: \xff\xfe\n\n",
        b"\x00" * 1000,
        b"event: content_block_delta\ndata: " + b"[" * 5000 + b"\n\n",
    ],
)
async def test_garbage_in_a_stream_is_no_answer(events: bytes) -> None:
    async with sends(head(), events + WHOLE[:10]) as url:
        error = await failure_of(settings_for(url), request_for())
    assert (error.type, error.retryable) == ("broken_answer", True)


async def test_web_page_of_a_proxy_is_named_as_one() -> None:
    async with sends(head(content_type="text/html"), b"<html>Please log in</html>") as url:
        error = await failure_of(settings_for(url), request_for())
    assert (error.type, error.retryable) == ("broken_answer", True)
    assert "text/html in place of events" in error.message
    assert "ANTHROPIC_BASE_URL" in error.message


async def test_error_page_is_quoted_up_to_a_length() -> None:
    page = b"<html>" + b"<p>Internal error</p>" * 10_000
    async with sends(head("500 Oops", content_type="text/html"), page) as url:
        error = await failure_of(settings_for(url), request_for())
    assert error.retryable
    assert "500" in error.message
    assert len(error.message) < 1000


@pytest.mark.parametrize("body", [b"this is no gzip", gzip.compress(WHOLE)[:-20]])
async def test_broken_compression_is_no_answer(body: bytes) -> None:
    async with sends(head(content_encoding="gzip"), body) as url:
        error = await failure_of(settings_for(url), request_for())
    assert error.type in ("broken_answer", "connection")
    assert error.retryable


async def test_answer_that_drips_below_the_timeout_arrives_whole() -> None:
    pieces = [WHOLE[at : at + 25] for at in range(0, len(WHOLE), 25)]
    async with sends(head(), *pieces, pause_s=0.005) as url:
        answer = await complete(settings_for(url), request_for())
    assert answer.text == "Once upon"


async def test_answer_that_drips_on_and_on_ends_at_the_timeout() -> None:
    async with sends(head(), *[b": still here\n"] * 1000, pause_s=0.01) as url:
        error = await failure_of(settings_for(url), request_for(timeout_s=0.3))
    assert error.type == "timeout"


async def test_redirect_to_another_host_does_not_take_the_key_along(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/messages").respond_with_data(WHOLE.decode(), content_type="text/event-stream")
    place = httpserver.url_for("/v1/messages")
    async with sends(head("307 Temporary Redirect", location=place, content_length="0")) as url:
        answer = await complete(settings_for(url, api_key=KEY), request_for())
    assert answer.text == "Once upon"
    assert KEY not in str(httpserver.log[0][0].headers)


async def test_endless_redirect_is_a_typed_error(httpserver: HTTPServer) -> None:
    place = httpserver.url_for("/v1/messages")
    httpserver.expect_request("/v1/messages").respond_with_data("", status=307, headers={"location": place})
    error = await failure_of(settings_for(httpserver.url_for("")), request_for())
    assert error.type in ("broken_answer", "connection")


def secrets_in(error: ModelError) -> list[str]:
    said = f"{error!r} {error} {error.message}"
    return [secret for secret in (KEY, "pa%24word", "pa$word", "sk-ant-0123456789") if secret in said]


async def test_errors_never_show_what_the_server_echoes_of_a_secret(httpserver: HTTPServer) -> None:
    said = f"bad key {KEY} or sk-ant-0123456789 for http://me:pa%24word@host/ or pa$word"
    body = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": said}})
    httpserver.expect_request("/v1/messages").respond_with_data(body, status=401, content_type="application/json")
    url = httpserver.url_for("").replace("//", "//me:pa%24word@")
    error = await failure_of(settings_for(url, api_key=KEY), request_for())
    assert secrets_in(error) == []
    assert "bad key ***" in error.message


async def test_errors_of_the_network_never_show_the_user_of_the_url(unused_tcp_port: int) -> None:
    url = f"http://me:pa%24word@127.0.0.1:{unused_tcp_port}"
    error = await failure_of(settings_for(url, api_key=KEY), request_for())
    assert secrets_in(error) == []
    assert f"127.0.0.1:{unused_tcp_port}" in error.message


@pytest.mark.parametrize("url", ["ftp://me:pa$word@host", "http://me:pa$word@host:port"])
def test_refused_settings_never_show_the_user_of_the_url(url: str) -> None:
    with pytest.raises(ModelError, match="ANTHROPIC_BASE_URL") as caught:
        ModelSettings(base_url=url)
    assert secrets_in(caught.value) == []


def test_settings_do_not_show_the_user_of_the_url() -> None:
    settings = ModelSettings(base_url="http://me:pa$word@host/v1", api_key=KEY)
    assert "pa$word" not in repr(settings) + str(settings.__rich_repr__())
    assert "host/v1" in repr(settings)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@h/x", "http://***@h/x"),
        ("a@b and https://h/x@y", "a@b and https://h/x@y"),
        ("test", "test"),
    ],
)
def test_only_secrets_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text, ["test", ""]) == shown
