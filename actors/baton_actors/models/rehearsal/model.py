"""The rehearsal model: the events of an answer as the Messages API streams them, made inside this process.

What takes a model's answer takes these in its place (chunks, usage, `max_tokens`), except that nothing leaves the
process, nothing is paid, and the text is an extract from the prompt. The SDK is not in the way of it: importing that
takes longer than all the rest of a first run. A test holds that the SDK reads the same out of the same events.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec

from baton_actors.models.content import Block
from baton_actors.models.files import text_with_files
from baton_actors.models.reading import Reading
from baton_actors.models.rehearsal.extract import answer_from
from baton_actors.models.rehearsal.plan import blocks_of
from baton_actors.models.rehearsal.schema_values import filled
from baton_actors.models.types import ModelRequest, ModelSettings, request_digest
from baton_schemas.wire.values import valid_text

_CHARS_PER_TOKEN = 4
"""The usual estimate for English; the counts of a rehearsal are for orientation only."""
_CHUNK_CHARS = 40


async def chunks(request: ModelRequest, reading: Reading) -> AsyncGenerator[str, None]:
    """Answer one request and yield the text in chunks, none of them empty; fill `reading`.

    The same request always gets the same answer.
    """
    # In a thread: a long prompt takes a good part of a second, and leases must be kept meanwhile.
    events = await asyncio.to_thread(events_of, request)
    reading.request_id = request_id_of(request)
    for event in events:
        if text := reading.take(_as_object(event)):
            yield text
        # Nothing here waits for a network, so the other tasks of the process get their turn by this.
        await asyncio.sleep(0)


def request_id_of(request: ModelRequest) -> str:
    """Return the id of a rehearsed call, which follows from what is asked."""
    return f"req_rehearsal_{request_digest(request, ModelSettings(rehearse=True))[:16]}"


def events_of(request: ModelRequest) -> list[dict[str, Any]]:
    """Make the events of an answer: https://platform.claude.com/docs/en/build-with-claude/streaming."""
    system, prompt = valid_text(request.system), valid_text(_prompt(request))
    if request.tools:  # what the provider has is not rehearsed
        tools = [msgspec.structs.asdict(tool) for tool in request.tools]
        blocks = blocks_of(system, _messages(request, prompt), tools, request.max_tokens)
    else:
        blocks = [{"type": "text", "text": answer_from(system, prompt)}]
    calls = any(block["type"] == "tool_use" for block in blocks)
    if request.output and not calls:
        # Not cut: half an object is none.
        about = blocks[0]["text"] if request.tools else prompt
        text = json.dumps(filled(request.output, about), ensure_ascii=False)
        blocks, stop_reason = [{"type": "text", "text": text}], "end_turn"
    else:
        blocks, stop_reason = _cut(blocks, request.max_tokens * _CHARS_PER_TOKEN)
    said = "".join(msgspec.json.encode(turn.content).decode() for turn in request.turns)
    message: dict[str, Any] = {
        "id": request_id_of(request).replace("req_", "msg_"),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": _tokens(system + prompt + said), "output_tokens": 1},
    }
    put_out = "".join(block["text"] if block["type"] == "text" else _arguments(block) for block in blocks)
    stop = {"stop_reason": stop_reason, "stop_sequence": None}
    return [
        {"type": "message_start", "message": message},
        *(event for index, block in enumerate(blocks) for event in _events_of_block(index, block)),
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": _tokens(put_out)}},
        {"type": "message_stop"},
    ]


def _prompt(request: ModelRequest) -> str:
    """Return the prompt, with what files say as far as that is text."""
    return text_with_files(request.parts, request.files) if request.files else request.prompt


def _messages(request: ModelRequest, prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}, *map(msgspec.structs.asdict, request.turns)]


def _cut(blocks: list[Block], chars_max: int) -> tuple[list[Block], str]:
    """Return the blocks up to `max_tokens`, and why they stop. Calls are made short enough, and are never cut."""
    if any(block["type"] == "tool_use" for block in blocks):
        return blocks, "tool_use"
    (block,) = blocks
    text = block["text"][:chars_max]
    return [{**block, "text": text}], "end_turn" if text == block["text"] else "max_tokens"


def _arguments(block: Block) -> str:
    return msgspec.json.encode(block["input"]).decode()


def _events_of_block(index: int, block: Block) -> Iterator[dict[str, Any]]:
    is_text = block["type"] == "text"
    kind, key = ("text_delta", "text") if is_text else ("input_json_delta", "partial_json")
    whole = block["text"] if is_text else _arguments(block)
    begins_with: Block = {"text": ""} if is_text else {"input": {}}
    yield {"type": "content_block_start", "index": index, "content_block": block | begins_with}
    for start in range(0, len(whole), _CHUNK_CHARS):
        delta = {"type": kind, key: whole[start : start + _CHUNK_CHARS]}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _as_object(event: Any) -> Any:
    """Return an event as the SDK gives it: with attributes."""
    if not isinstance(event, dict):
        return event
    return SimpleNamespace(**{key: _as_object(value) for key, value in event.items()})


def _tokens(text: str) -> int:
    return max(1, len(text) // _CHARS_PER_TOKEN)
