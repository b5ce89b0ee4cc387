"""The body of a request to the Messages API, made of what is asked; and what a call with it takes at the most. Pure.

Whoever sends it, at once or in a batch, makes it here. https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from baton_actors.models.caching import Marks, mark_of, marks_of
from baton_actors.models.files import base64_tokens, blocks_of, content_of, tokens_of
from baton_actors.models.types import Bound, ModelRequest
from baton_schemas.flow.used_tools import as_body
from baton_schemas.show.asked import Asked
from baton_schemas.wire.values import valid_text

_BYTES_PER_TOKEN = 3
"""Of JSON in English: four is the usual estimate, and this one is for a bound."""
_COUNTED = re.compile(r"(web_search|web_fetch)_\d{8}\Z")
"""Types of the provider's tools whose uses it counts."""
_OVERHEAD_TOKENS = 50
"""Of a request, beside its texts."""


def body_of(asked: Asked) -> dict[str, Any]:
    """Return the body as the API has it in JSON, without `stream`."""
    body: dict[str, Any] = {"model": valid_text(asked.model), "max_tokens": asked.max_tokens}
    marks = marks_of(asked)
    if asked.system.strip():  # the API refuses blank ones
        body["system"] = [{"type": "text", "text": valid_text(asked.system)}]
    if asked.converses:
        body["tools"] = [
            *(
                {"name": tool.name, "description": valid_text(tool.description), "input_schema": tool.input_schema}
                for tool in asked.tools
            ),
            *map(as_body, asked.provided),
        ]
    head = "system" if "system" in body else "tools"
    if marks.head and head in body:
        _mark(body[head], asked)
    if asked.container:
        body["container"] = asked.container
    if asked.output:
        body["output_config"] = {"format": {"type": "json_schema", "schema": asked.output}}
    return {**body, "messages": _messages(asked, marks)}


def bound_of(body: Mapping[str, Any], size_bytes: int | None = None) -> Bound:
    """Return what a call with this body takes at the most; of one that makes no sense, what can be told.

    `size_bytes` is that of the body in JSON, where it is known.
    """
    if size_bytes is None:
        size_bytes = len(msgspec.json.encode(body))
    max_tokens = body.get("max_tokens")
    files = [base64_tokens(source) for source in _sources(body)]
    size_bytes -= sum(size for size, _ in files)
    server_tools = _server_tools(body.get("tools"))
    return Bound(
        model=str(body.get("model") or ""),
        input_tokens=size_bytes // _BYTES_PER_TOKEN + sum(tokens for _, tokens in files) + _OVERHEAD_TOKENS,
        output_tokens=max(max_tokens, 0) if isinstance(max_tokens, int) else 0,
        server_tools={name: uses for name, uses in server_tools.items() if uses},
        unlimited=tuple(name for name, uses in server_tools.items() if not uses),
    )


def _server_tools(tools: Any) -> dict[str, int]:
    """Return how often the provider's own tools may be used, by the names under which the API counts them; 0 for as
    often as the model likes."""
    found: dict[str, int] = {}
    for tool in tools if isinstance(tools, list) else ():
        kind = str(tool.get("type") or "") if isinstance(tool, dict) else ""
        uses = tool.get("max_uses") if kind else None
        if counted := _COUNTED.match(kind):
            found[counted[1]] = uses if isinstance(uses, int) and uses > 0 else 0
    return found


def bound_of_asked(asked: Asked) -> Bound:
    """Return what a call takes at the most, before the files in it are at hand."""
    bound = bound_of(body_of(asked))
    return msgspec.structs.replace(bound, input_tokens=bound.input_tokens + sum(map(tokens_of, asked.refs)))


def body_size(asked: Asked) -> int:
    """Return how many bytes are sent for a request, about: before the files in it are at hand."""
    return len(msgspec.json.encode(body_of(asked))) + sum(ref.size_bytes * 4 // 3 for ref in asked.refs)


def _sources(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the sources of the documents and pictures in a body, those in the results of tools too."""
    messages = body.get("messages")
    pending = [message.get("content") for message in messages or () if isinstance(message, dict)]
    while pending:
        content = pending.pop()
        for block in content if isinstance(content, list) else ():
            if not isinstance(block, dict):
                continue
            if isinstance(source := block.get("source"), dict):
                yield source
            elif block.get("type") == "tool_result":
                pending.append(block.get("content"))


def _messages(asked: Asked, marks: Marks) -> list[dict[str, Any]]:
    """Return what is said: the prompt, and the turns since.

    In a conversation what is said so far is marked, and what was last time: a round may add more blocks than the API
    looks back for what it has (20).
    """
    turns: list[dict[str, Any]] = [{"role": turn.role, "content": list(turn.content)} for turn in asked.turns]
    said = [{"role": "user", "content": _prompt(asked, marks)}, *turns]
    if marks.rounds:
        ends = [turn["content"] for turn in said if turn["role"] == "user" and isinstance(turn["content"], list)]
        for content in ends[-2:]:
            _mark(content, asked)
    return said


def _prompt(asked: Asked, marks: Marks) -> str | list[dict[str, Any]]:
    files = asked.files if isinstance(asked, ModelRequest) else {}
    common = [part for part in asked.parts if part.shared] if marks.shared else []
    if common:
        blocks = blocks_of(common, files)
        _mark(blocks, asked)
        return blocks + blocks_of([part for part in asked.parts if not part.shared], files)
    content = content_of(asked.parts, files) if asked.refs else valid_text(asked.prompt)
    return [{"type": "text", "text": content}] if marks.rounds and isinstance(content, str) else content


def _mark(blocks: list[dict[str, Any]], asked: Asked) -> None:
    """Mark the last of some blocks."""
    if blocks:
        blocks[-1] = {**blocks[-1], **mark_of(asked)}
