"""A text that somebody typed as an answer to a question. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from baton_schemas.errors import BadContent
from baton_schemas.wire.messages import Question
from baton_schemas.wire.values import encode_value

from .questions import BadAnswer, expects, fitted
from .typed import BOOLS


def answer_in(question: Question, text: str) -> Any:
    """Return the answer that a text is: a choice, a text, or JSON, as the question wants it. Raises `BadAnswer`."""
    return _checked(question, _value(question, text))


def _value(question: Question, text: str) -> Any:
    kind = question.type.removesuffix("?")
    if question.answers or kind == "str":
        return text
    if kind == "bool" and text.strip().lower() in BOOLS:
        return BOOLS[text.strip().lower()]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if kind or question.output:
            raise BadAnswer(f"the answer is no JSON ({error}); expected {expects(question)}") from error
        return text


def _checked(question: Question, value: Any) -> Any:
    try:
        fitted(question, msgspec.Raw(encode_value(value, "answer")))
    except (BadAnswer, BadContent) as error:
        raise BadAnswer(f"that is no answer to the question: {error}") from error
    return value
