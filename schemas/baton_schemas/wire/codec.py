"""Bytes to messages and back: JSON by msgspec, with the version of the head checked and old ones upcast."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from baton_schemas.errors import BadMessage, NewerMessage

from .messages import FIRST, VERSION, Head, Message, Say, Task
from .upcasts import UPCASTS

M = TypeVar("M", bound=Message)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_decode_any = _decoder.decode
_task_decoder = msgspec.json.Decoder(Task)
_say_decoder = msgspec.json.Decoder(Say)
_head_decoder = msgspec.json.Decoder(Head)

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises on bytes from anywhere: the last two on invalid UTF-8 and on very deep nesting."""


def encode(message: Message) -> bytes:
    """Return the message as JSON."""
    return _encoder.encode(message)


def decode(data: bytes, subject: str = "") -> Message:
    """Return the message in `data`; unknown fields are ignored, wrong types refused.

    Raises `NewerMessage` for a version newer than ours, and `BadMessage` for what is no message of any version.
    """
    try:
        message = _decode_any(data)
        if FIRST <= message.v <= VERSION:
            return message
    except _UNREADABLE as error:
        return _decode_other_version(_decoder, data, subject, error)
    return _decode_other_version(_decoder, data, subject, None)


def decode_task(data: bytes, subject: str = "") -> Task:
    """Return the task in `data`; `kind` and `v` may be left out, as a foreign client would.

    Raises as `decode`.
    """
    try:
        return _decode(_task_decoder, data, subject)
    except BadMessage as error:
        raise BadMessage(f'no task: {error.reason}; expected {{"input": {{…}}}}', subject) from error


def decode_say(data: bytes, subject: str = "") -> Say:
    """Return the word in `data`; `kind` and `v` may be left out, as a foreign client would.

    Raises as `decode`.
    """
    try:
        return _decode(_say_decoder, data, subject)
    except BadMessage as error:
        raise BadMessage(f'no word: {error.reason}; expected {{"answer": …, "who": "…"}}', subject) from error


def _decode(decoder: msgspec.json.Decoder[M], data: bytes, subject: str) -> M:
    try:
        message = decoder.decode(data)
    except _UNREADABLE as error:
        return _decode_other_version(decoder, data, subject, error)
    if not FIRST <= message.v <= VERSION:
        return _decode_other_version(decoder, data, subject, None)
    return message


def _decode_other_version(decoder: msgspec.json.Decoder[M], data: bytes, subject: str, error: Exception | None) -> M:
    try:
        version = _head_decoder.decode(data).v
    except _UNREADABLE:
        version = VERSION
    if version > VERSION:
        raise NewerMessage(version, VERSION, subject) from error
    if version >= FIRST or version not in UPCASTS:
        raise BadMessage(str(error or f"schema version {version} is unknown"), subject) from error
    body = msgspec.json.decode(data)
    for old in range(version, FIRST):
        body = UPCASTS[old](body)
    try:
        return decoder.decode(msgspec.json.encode(body))
    except _UNREADABLE as invalid:
        raise BadMessage(str(invalid), subject) from invalid
