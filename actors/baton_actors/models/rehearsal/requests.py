"""A rehearsed answer to a request that the official client makes: the same API, answered from the prompt's own text."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace

from baton_actors.models.events import message_of, write_events
from baton_actors.models.rehearsal.model import events_of
from baton_actors.models.types import ModelRequest
from baton_schemas.flow.tools import Tool
from baton_schemas.show.asked import Turn

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def rehearsed(body: bytes) -> Answer:
    """Answer a request to `POST /v1/messages`, streamed if it asks for that. The same request always gets the same."""
    try:
        asked = json.loads(body)
        events = answer_to(asked)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return refused(400, "invalid_request_error", f"a rehearsal cannot read the request ({error!r:.200})")
    if _continues(asked):
        # Nothing is kept between requests. The SDK then sends all that was said before.
        details = {"error_code": "thread_not_found"}
        return refused(404, "not_found_error", "a rehearsal keeps no threads", details=details)
    headers = {"request-id": str(events[0]["message"]["id"]).replace("msg_", "req_")}
    if asked.get("stream") is True:
        return 200, {**headers, "content-type": "text/event-stream; charset=utf-8"}, write_events(events)
    return 200, {**headers, "content-type": "application/json"}, msgspec.json.encode(message_of(events))


def answer_to(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that answer a request, as the Messages API streams them.

    Raises what comes of a request that lacks what the API asks for.
    """
    request = ModelRequest(
        model=str(asked["model"]),
        system=_text(asked.get("system", "")),
        prompt="\n\n".join(_text(message["content"]) for message in asked["messages"]),
        max_tokens=int(asked["max_tokens"]),
        timeout_s=0.0,
    )
    request, tools = replace(request, output=_schema(asked)), _tools(asked)
    if tools:
        request = replace(request, prompt=_text(asked["messages"][0]["content"]), tools=tools, turns=_turns(asked))
    return events_of(request)


def other_request(path: str) -> Answer:
    """Answer any other request: there is nobody to pass it on to."""
    message = f"this is a rehearsal, which answers /v1/messages only, and not {path}: set ANTHROPIC_API_KEY to call it"
    return refused(404, "not_found_error", message)


def refused(status: int, type: str, message: str, **more: Any) -> Answer:
    """Return an error as the API has it, which is not to be tried again."""
    error = {"type": "error", "error": {"type": type, "message": message, **more}}
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return status, headers, msgspec.json.encode(error)


def _schema(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that the answer is to fit; empty when it may be any text."""
    for found in ((asked.get("output_config") or {}).get("format"), asked.get("output_format")):
        if isinstance(found, dict) and isinstance(found.get("schema"), dict):
            return found["schema"]  # type: ignore[no-any-return]
    return {}


def _tools(asked: dict[str, Any]) -> tuple[Tool, ...]:
    """Return the tools that the client runs itself; a rehearsal leaves those of the server alone."""
    if (asked.get("tool_choice") or {}).get("type") == "none":
        return ()
    return tuple(
        Tool(
            name=str(tool["name"]),
            description=str(tool.get("description", "")),
            input_schema=dict(tool["input_schema"]),
        )
        for tool in asked.get("tools") or ()
        if isinstance(tool.get("input_schema"), dict)
    )


def _turns(asked: dict[str, Any]) -> tuple[Turn, ...]:
    """Return what was said after the first message."""
    turns = []
    for message in asked["messages"][1:]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        turns.append(Turn(role=message["role"], content=blocks))
    return tuple(turns)


def _continues(asked: dict[str, Any]) -> bool:
    thread = asked.get("thread")
    return isinstance(thread, dict) and thread.get("type") == "continue"


def _text(content: Any) -> str:
    """Return the text of a message: all of its blocks that have some, those of tool results too."""
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if block.get("type") == "text":
            parts.append(str(block["text"]))
        elif block.get("type") == "tool_result":
            parts.append(_text(block.get("content", "")))
    return "\n\n".join(parts)
