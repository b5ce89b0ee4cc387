"""Servers that speak the Messages API over real HTTP, for the tests of model calls."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from baton_actors.models import ModelAnswer, ModelError, ModelRequest, Models, ModelSettings

from .servers import peer


@pytest.fixture(scope="module", name="llmock_server")
def start_llmock() -> Iterator[LLMockServer]:
    """One server a module; `llmock` hands it out with no faults queued."""
    with LLMockServer(responses=MockResponseSettings(response_style="echo")) as server:
        yield server


@pytest.fixture(name="llmock")
def fresh_llmock(llmock_server: LLMockServer) -> LLMockServer:
    llmock_server.state.reset()
    return llmock_server


async def complete(settings: ModelSettings, request: ModelRequest) -> ModelAnswer:
    async with Models(settings) as models:
        return await models.complete(request)


async def failure_of(settings: ModelSettings, request: ModelRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await complete(settings, request)
    return caught.value


async def answer_to(httpserver: HTTPServer, *events: dict[str, Any], **changes: str) -> ModelAnswer:
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(*events), content_type="text/event-stream", headers={"request-id": "req_42"}
    )
    return await complete(settings_for(httpserver.url_for(""), **changes), request_for())


async def failure_to(httpserver: HTTPServer, *events: dict[str, Any], **changes: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await answer_to(httpserver, *events, **changes)
    return caught.value


def settings_for(base_url: str, **changes: Any) -> ModelSettings:
    return ModelSettings(**({"api_key": "test-key", "base_url": base_url} | changes))


def request_for(prompt: str = "hello there", **changes: Any) -> ModelRequest:
    fields: dict[str, Any] = {"model": "claude-haiku-4-5", "system": "Be kind.", "max_tokens": 100, "timeout_s": 10.0}
    return ModelRequest(**(fields | {"prompt": prompt} | changes))


def sse(*events: dict[str, Any]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def start(**usage: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
    }
    model = {"model": "claude-haiku-4-5-20251001", "stop_sequence": None}
    return {"type": "message_start", "message": message | model | {"usage": {"output_tokens": 1} | usage}}


def text(*pieces: str) -> list[dict[str, Any]]:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces
    ]
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [block, *deltas, {"type": "content_block_stop", "index": 0}]


def end(stop_reason: str, output_tokens: int = 7, **delta: Any) -> list[dict[str, Any]]:
    fields = {"stop_reason": stop_reason, "stop_sequence": None} | delta
    stop = {"type": "message_delta", "delta": fields, "usage": {"output_tokens": output_tokens}}
    return [stop, {"type": "message_stop"}]


class RatedServer(HTTPServer):
    """Answers `Yes.` to `allowed` requests in each window of `window_s`, and tells the others to wait."""

    allowed = 5
    window_s = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.answered = self.refused = 0
        self.retry_after = False
        """Whether refusals come with the time when the window ends; else without one."""
        self.inside_streams = False
        """Whether refusals come as an error event of a stream that had begun; else as 429."""
        self.refuse_next = 0
        self._window: list[float] = []
        self._lock = threading.Lock()
        self.expect_request("/v1/messages").respond_with_handler(self._answer)

    @property
    def url(self) -> str:
        return self.url_for("")

    def _answer(self, request: Request) -> Response:
        with self._lock:
            now_s = time.monotonic()
            self._window = [at for at in self._window if now_s - at < self.window_s]
            if self.refuse_next > 0 or len(self._window) >= self.allowed:
                self.refuse_next -= 1
                self.refused += 1
                return self._refuse(self.window_s - (now_s - self._window[0]) if self._window else 0.0)
            self._window.append(now_s)
            self.answered += 1
        return Response(sse(start(), *text("Yes."), *end("end_turn")), content_type="text/event-stream")

    def _refuse(self, wait_s: float) -> Response:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Too fast"}}
        if self.inside_streams:
            return Response(sse(start(input_tokens=12), error), content_type="text/event-stream")
        headers = {"retry-after-ms": f"{wait_s * 1000:.0f}"} if self.retry_after else {}
        return Response(json.dumps(error), status=429, headers=headers, content_type="application/json")


@contextmanager
def start_rated() -> Iterator[RatedServer]:
    """Start a server with a rate limit, and stop it in the end."""
    server = RatedServer()
    server.start()
    try:
        yield server
    finally:
        server.clear()
        server.stop()


@asynccontextmanager
async def sends(*pieces: bytes, pause_s: float = 0.0, reset: bool = False) -> AsyncIterator[str]:
    """Serve these bytes to each request, piece by piece, and close: with `reset` as a crash would. Gives the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        await reader.readexactly(length)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if reset:
            # A linger of zero makes the close a reset (RFC 793), as when the peer's process is killed.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async with peer(answer) as address:
        yield f"http://{address}"


def head(status: str = "200 OK", **headers: str) -> bytes:
    """Return the head of an HTTP answer of events that ends with its connection."""
    fields = {"content_type": "text/event-stream", "connection": "close"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


# ---- models that call tools ----------------------------------------------------------------------


def says(*said: str | dict[str, Any], stop: str = "") -> str:
    """Return an answer of these content blocks as a stream; a text stands for a block of it."""
    blocks = [{"type": "text", "text": each} if isinstance(each, str) else each for each in said]
    calls = any(block["type"] == "tool_use" for block in blocks)
    events = [event for index, block in enumerate(blocks) for event in _events_of(index, block)]
    return sse(start(input_tokens=10), *events, *end(stop or ("tool_use" if calls else "end_turn")))


def calls(tool: str, id: str = "toolu_1", input: Any = None, *, raw: str | None = None) -> dict[str, Any]:
    """Return a block that calls a tool: with `input`, or with a text in place of its JSON."""
    return {"type": "tool_use", "id": id, "name": tool, "input": raw if raw is not None else json.dumps(input or {})}


def _events_of(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pieces: list[tuple[str, str, str]] = []
    match block["type"]:
        case "text":
            begun, pieces = block | {"text": ""}, [("text_delta", "text", block["text"])]
        case "thinking":
            begun = block | {"thinking": "", "signature": ""}
            pieces = [("thinking_delta", "thinking", block["thinking"])]
            pieces += [("signature_delta", "signature", block["signature"])]
        case "tool_use" | "server_tool_use":
            begun, whole = block | {"input": {}}, block["input"]
            half = len(whole) // 2
            pieces = [("input_json_delta", "partial_json", piece) for piece in ("", whole[:half], whole[half:])]
        case _:
            begun = block
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for kind, key, piece in pieces:
        yield {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: piece}}
    yield {"type": "content_block_stop", "index": index}


class ScriptedModel:
    """Gives the answers of its script in their order, the last one again and again; keeps what it was asked."""

    def __init__(self, server: HTTPServer, *script: str) -> None:
        self.asked: list[dict[str, Any]] = []
        self.script = list(script)
        self.settings = settings_for(server.url_for(""))
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    @property
    def told(self) -> list[Any]:
        """The content of the last message that it was sent."""
        content = self.asked[-1]["messages"][-1]["content"]
        return content if isinstance(content, list) else [content]

    def _answer(self, request: Request) -> Response:
        body: Any = request.get_json()
        self.asked.append(body)
        events = self.script[min(len(self.asked), len(self.script)) - 1]
        return Response(events, content_type="text/event-stream")
