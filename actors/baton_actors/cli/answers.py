"""Arguments to an answer: text, JSON, or the fields of a record, as the question wants it."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from baton_actors.cli.exits import BadArgument
from baton_actors.cli.inputs import BOOLS, read_pairs, read_text
from baton_schemas.errors import BadContent
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.flow.questions import BadAnswer, expects, fields_of, fitted
from baton_schemas.wire.messages import Question
from baton_schemas.wire.values import encode_value


def read_answer(question: Question, words: Sequence[str]) -> Any:
    """Return the answer that these words give: `yes`, `looks good`, `score=3 why=new`, `{"score": 3}`, `@file`.

    Raises `BadArgument`, `BadInputFile`, `InputError`.
    """
    if question.output and not (len(words) == 1 and words[0].lstrip()[:1] in ("{", "@")):
        record = Flow(name="answer", input=fields_of(question), agents={}, steps={})
        given = read_pairs(record, words)
        check_input(record, encode_input(given))
        return given
    return checked(question, value_of(question, read_text("answer", " ".join(words))))


def typed_answer(question: Question, text: str) -> Any:
    """Return the answer that somebody has typed: as `read_answer`, but there is nothing to read besides."""
    if question.output and text.lstrip()[:1] != "{":
        return read_answer(question, shlex.split(text) if text.count('"') % 2 == text.count("'") % 2 == 0 else [text])
    return checked(question, value_of(question, text))


def value_of(question: Question, text: str) -> Any:
    """Return what a text stands for, as an answer to this question. Raises `BadArgument`."""
    kind = question.type.removesuffix("?")
    if question.answers or kind == "str":
        return text
    if kind == "bool" and text.strip().lower() in BOOLS:
        return BOOLS[text.strip().lower()]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if kind or question.output:
            raise BadArgument(f"the answer is no JSON ({error}); expected {expects(question)}") from error
        return text


def checked(question: Question, value: Any) -> Any:
    """Return an answer that fits the question. Raises `BadArgument`."""
    try:
        fitted(question, msgspec.Raw(encode_value(value, "answer")))
    except (BadAnswer, BadContent) as error:
        raise BadArgument(f"that is no answer to the question: {error}") from error
    return value


def login_name() -> str:
    """Return who sits here, as far as the system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
