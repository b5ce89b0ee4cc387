"""The events of a streamed answer: split as their bytes come, put together, and written again. Pure.

https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from baton_schemas.wire.values import valid_text

Event = dict[str, Any]

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_END_BYTES_MAX = 4
_LINES = re.compile(rb"\r\n|\n|\r")
_PARTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Deltas that say the same when they are joined, and what of them is joined."""


class Splitter:
    """Takes the bytes of a stream as they come, and gives them back by whole events."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the events that are whole by now, each with the empty line that ends it."""
        searched = max(len(self._buffer) - _END_BYTES_MAX + 1, 0)
        self._buffer += chunk
        whole: list[bytes] = []
        start = 0
        for end in _END.finditer(self._buffer, searched):
            whole.append(bytes(self._buffer[start : end.end()]))
            start = end.end()
        del self._buffer[:start]
        return whole

    @property
    def rest(self) -> bytes:
        """What has come since the last whole event."""
        return bytes(self._buffer)


def read_event(raw: bytes) -> Event | None:
    """Return the data of one event; None for one without a name or data, which readers pass over.

    Raises `ValueError` when its data is no JSON object of its name's type.
    """
    named, data = False, []
    for line in _LINES.split(raw):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            named = bool(value)
        elif field == b"data":
            data.append(value)
    if not named or not data:
        return None
    try:
        event = json.loads(b"\n".join(data).decode())
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ValueError("no event")
    return event


def write_events(events: Iterable[Event]) -> bytes:
    """Return events as the bytes of a stream."""
    return b"".join(
        b"event: " + str(event["type"]).encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
        for event in events
    )


def joined(events: Iterable[Event]) -> list[Event]:
    """Return events that say the same in as few as possible: a record need not keep how a text was cut in pieces.

    Halves of a character that came in two pieces become one by it.
    """
    found: list[Event] = []
    pieces: list[str] = []
    for event in events:
        if event["type"] == "ping":
            continue
        part = _part(event)
        if part and found and pieces and _part(found[-1]) == part and found[-1]["index"] == event["index"]:
            pieces.append(event["delta"][part])
            continue
        _put_together(found, pieces)
        pieces = [event["delta"][part]] if part else []
        found.append(event)
    _put_together(found, pieces)
    return [valid(event) for event in found]


def _put_together(events: list[Event], pieces: list[str]) -> None:
    """Have the last event say all these pieces of what it says."""
    if len(pieces) > 1:
        event = events[-1]
        events[-1] = {**event, "delta": {**event["delta"], _part(event): "".join(pieces)}}


def message_of(events: Sequence[Event]) -> dict[str, Any]:
    """Return the message that whole events stream, as one that was not streamed is answered."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in joined(events):
        match event["type"]:
            case "message_start":
                message = copy.deepcopy(event["message"])
            case "content_block_start":
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                part = _PARTS[event["delta"]["type"]]
                if part == "partial_json":
                    inputs[event["index"]] = event["delta"][part]
                else:
                    message["content"][event["index"]][part] += event["delta"][part]
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text) if text else {}
    return message


def as_object(event: Any) -> Any:
    """Return an event as the SDK gives it: with attributes."""
    if isinstance(event, dict):
        return SimpleNamespace(**{key: as_object(value) for key, value in event.items()})
    return event


def valid(value: Any) -> Any:
    """Return data whose texts are valid Unicode, as halves of characters in them are not."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, list):
        return [valid(part) for part in value]
    if isinstance(value, dict):
        return {valid_text(key): valid(part) for key, part in value.items()}
    return value


def _part(event: Event) -> str:
    """Return what of an event can be joined with that of the next; empty when nothing can."""
    delta: Any = event.get("delta")
    if event["type"] != "content_block_delta" or event.keys() != {"type", "index", "delta"}:
        return ""
    part = _PARTS.get(str(delta.get("type")), "") if isinstance(delta, dict) else ""
    return part if part and delta.keys() == {"type", part} and isinstance(delta[part], str) else ""
