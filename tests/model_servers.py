"""Servers that speak the Messages API over real HTTP, for the tests of model calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer

from baton_actors.models import ModelRequest, ModelSettings


@pytest.fixture(scope="module", name="llmock_server")
def start_llmock() -> Iterator[LLMockServer]:
    """One server a module; `llmock` hands it out with no faults queued."""
    with LLMockServer(responses=MockResponseSettings(response_style="echo")) as server:
        yield server


@pytest.fixture(name="llmock")
def fresh_llmock(llmock_server: LLMockServer) -> LLMockServer:
    llmock_server.state.reset()
    return llmock_server


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
