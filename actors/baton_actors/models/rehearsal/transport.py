"""The rehearsal model: the Messages API inside this process, under the real SDK.

Everything runs as with a model (request, events, chunks, usage, `max_tokens`) except that nothing leaves
the process, nothing is paid, and the text is an extract from the prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
from msgspec import Struct

from baton_actors.models.rehearsal.extract import answer_from

_CHARS_PER_TOKEN = 4
"""The usual estimate for English; the counts of a rehearsal are for orientation only."""
_CHUNK_CHARS = 40


class _Text(Struct):
    text: str


class _Turn(Struct):
    content: str


class _Body(Struct):
    model: str
    max_tokens: int
    messages: list[_Turn]
    system: list[_Text] = []
    stream: bool = False


class RehearsalTransport(httpx2.AsyncBaseTransport):
    """Answers `POST /v1/messages` with a stream of events, as the API does, and anything else with 400."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request. The same request always gets the same answer."""
        data = await request.aread()
        headers = {"request-id": f"req_rehearsal_{hashlib.sha256(data).hexdigest()[:16]}"}
        try:
            body = msgspec.json.decode(data, type=_Body)
            if request.url.path != "/v1/messages" or not body.stream or body.max_tokens < 1:
                raise ValueError("expected a streamed POST /v1/messages with max_tokens of 1 or more")
        except ValueError as error:
            refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": str(error)}}
            return httpx2.Response(400, headers=headers, json=refusal)
        headers["content-type"] = "text/event-stream; charset=utf-8"
        # In a thread: a long prompt takes a good part of a second, and leases must be kept meanwhile.
        events = await asyncio.to_thread(_events, body, headers["request-id"])
        return httpx2.Response(200, headers=headers, content=_stream(events))


def _events(body: _Body, request_id: str) -> list[dict[str, Any]]:
    """Make the events of an answer: https://platform.claude.com/docs/en/build-with-claude/streaming."""
    system = "\n".join(block.text for block in body.system)
    prompt = "\n\n".join(turn.content for turn in body.messages)
    whole = answer_from(system, prompt)
    text = whole[: body.max_tokens * _CHARS_PER_TOKEN]
    message: dict[str, Any] = {
        "id": request_id.replace("req_", "msg_"),
        "type": "message",
        "role": "assistant",
        "model": body.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": _tokens(system + prompt), "output_tokens": 1},
    }
    pieces = (text[start : start + _CHUNK_CHARS] for start in range(0, len(text), _CHUNK_CHARS))
    stop = {"stop_reason": "end_turn" if text == whole else "max_tokens", "stop_sequence": None}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": _tokens(text)}},
        {"type": "message_stop"},
    ]


async def _stream(events: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for event in events:
        yield b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
        # Nothing here waits for a network, so the other tasks of the process get their turn by this.
        await asyncio.sleep(0)


def _tokens(text: str) -> int:
    return max(1, len(text) // _CHARS_PER_TOKEN)
