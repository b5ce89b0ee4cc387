"""Bytes to messages and back: JSON by msgspec, with the schema version checked and old ones upcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from baton_schemas.errors import BadMessage
from baton_schemas.wire.messages import VERSION, Message, Task

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_task_decoder = msgspec.json.Decoder(Task)


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises on bytes from anywhere: the last two on invalid UTF-8 and on very deep nesting."""


class _Head(msgspec.Struct):
    """The only field whose place and meaning are the same in every version."""

    v: int = VERSION


_head_decoder = msgspec.json.Decoder(_Head)

UPCASTS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each version before `VERSION`: how its JSON object becomes one of the next version."""


def encode(message: Message) -> bytes:
    """Return the message as JSON."""
    return _encoder.encode(message)


def decode(data: bytes, subject: str = "") -> Message:
    """Return the message in `data`; unknown fields are ignored, wrong types refused.

    Raises `BadMessage` for anything else, a version newer than ours included.
    """
    try:
        message = _decoder.decode(data)
    except _UNREADABLE as error:
        return _decode_other_version(data, subject, error)
    if message.v != VERSION:
        return _decode_other_version(data, subject, None)
    return message


def decode_task(data: bytes, subject: str = "") -> Task:
    """Return the task in `data`; `kind` and `v` may be left out, as a foreign client would.

    Raises `BadMessage`.
    """
    try:
        task = _task_decoder.decode(data)
    except _UNREADABLE as error:
        raise BadMessage(f'no task: {error}; expected {{"input": {{…}}}}', subject) from error
    if task.v != VERSION:
        raise BadMessage(f"schema version {task.v}; this release reads up to {VERSION}", subject)
    return task


def _decode_other_version(data: bytes, subject: str, error: Exception | None) -> Message:
    try:
        version = _head_decoder.decode(data).v
    except _UNREADABLE:
        version = VERSION
    if version > VERSION:
        raise BadMessage(
            f"schema version {version}; this release reads up to {VERSION}: upgrade baton-bus", subject
        ) from error
    if version == VERSION or version not in UPCASTS:
        raise BadMessage(str(error or f"schema version {version} is unknown"), subject) from error
    body = msgspec.json.decode(data)
    for old in range(version, VERSION):
        body = UPCASTS[old](body)
    try:
        return _decoder.decode(msgspec.json.encode(body))
    except _UNREADABLE as invalid:
        raise BadMessage(str(invalid), subject) from invalid
