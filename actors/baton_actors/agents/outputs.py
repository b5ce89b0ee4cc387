"""What a model answers with where its agent's `output` says what that is: JSON that fits, or why it is none. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from baton_actors.errors import AnswerUnfit
from baton_actors.models import ModelAnswer
from baton_schemas.errors import BadContent
from baton_schemas.flow.json_fit import fitted
from baton_schemas.flow.json_schema import Schema
from baton_schemas.flow.types import Unfit, json_type
from baton_schemas.wire.values import encode_value

_BEGINNINGS_MAX = 1_000
"""Brackets of a text at which JSON is looked for: a text with more of them is not an answer around one."""


def output_of(answer: ModelAnswer, schema: Schema, max_tokens: int, *, again: bool) -> bytes:
    """Return what a last answer puts out, as JSON: its text, or with a `schema` the object that stands in it.

    `again` says that it was asked for once more. Raises `Unfit`, which the model may be told of; `AnswerUnfit` where
    that would not help.
    """
    if not schema:
        return encode_value(answer.text, "output")
    try:
        return encode_value(fitted(schema, _object_in(answer.text), ""), "output")
    except (Unfit, BadContent) as error:
        reason = error.reason if isinstance(error, Unfit) and not error.place else str(error)
        if answer.truncated:
            cut = f"the answer was cut off at max_tokens ({max_tokens}), so it is no whole JSON; raise max_tokens"
            raise AnswerUnfit(cut, answer.text) from error
        if again:
            raise AnswerUnfit(f"{reason}, also when it was asked again", answer.text) from error
        raise Unfit("the answer", reason) from error


def asked_again(error: Unfit, schema: Schema) -> str:
    """Return what a model is told whose answer does not fit: what is wrong, and all that is wanted."""
    wanted = msgspec.json.encode(schema).decode()
    return (
        f"Your answer cannot be used: {error.reason}. Answer again, with nothing but one JSON object that fits this "
        f"JSON Schema, without any text or code fence around it:\n{wanted}"
    )


def _object_in(text: str) -> Any:
    """Return the JSON in a text: all of it, or the one object that stands in it. Raises `Unfit`."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        found = list(_standing_in(text))
        if len(found) == 1 and isinstance(found[0], dict):
            return found[0]
        what = f"found {len(found)} JSON values" if len(found) > 1 else "found no JSON"
        if len(found) == 1:
            what = f"found {json_type(found[0])}"
        raise Unfit("", f"{what}; expected one JSON object ({error})") from error


def _standing_in(text: str) -> Iterator[Any]:
    """Yield the objects, and the lists that have some, which stand in a text one after another."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    at = 0
    for _ in range(_BEGINNINGS_MAX):
        starts = [start for start in (text.find("{", at), text.find("[", at)) if start >= 0]
        if not starts:
            return
        at = min(starts)
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict) or any(isinstance(item, dict) for item in value):
            yield value
        at = end


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and the like, which are no JSON
