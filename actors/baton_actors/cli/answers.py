"""Arguments to an answer: text, JSON, or the fields of a record, as the question wants it."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Sequence
from typing import Any

from baton_actors.cli.exits import BadArgument
from baton_actors.cli.inputs import read_pairs, read_text
from baton_schemas.flow.answers import answer_in
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.flow.questions import BadAnswer, fields_of
from baton_schemas.wire.messages import Question


def read_answer(question: Question, words: Sequence[str]) -> Any:
    """Return the answer that these words give: `yes`, `looks good`, `score=3 why=new`, `{"score": 3}`, `@file`.

    Raises `BadArgument`, `BadInputFile`, `InputError`.
    """
    if question.output and not (len(words) == 1 and words[0].lstrip()[:1] in ("{", "@")):
        record = Flow(name="answer", input=fields_of(question), agents={}, steps={})
        given = read_pairs(record, words)
        check_input(record, encode_input(given))
        return given
    return _answer(question, read_text("answer", " ".join(words)))


def typed_answer(question: Question, text: str) -> Any:
    """Return the answer that somebody has typed: as `read_answer`, but there is nothing to read besides."""
    if question.output and text.lstrip()[:1] != "{":
        return read_answer(question, shlex.split(text) if text.count('"') % 2 == text.count("'") % 2 == 0 else [text])
    return _answer(question, text)


def _answer(question: Question, text: str) -> Any:
    try:
        return answer_in(question, text)
    except BadAnswer as error:
        raise BadArgument(str(error)) from error


def login_name() -> str:
    """Return who sits here, as far as the system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
