"""Questions to people: what may be asked, and whether what they say is an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

import msgspec
from msgspec import Raw

from baton_schemas.flow.flow import Field
from baton_schemas.flow.types import ANY, BadType, Type, Unfit, fit, shown, type_of, wanted
from baton_schemas.run.refs import is_word
from baton_schemas.wire.messages import NO_DEFAULT, Question
from baton_schemas.wire.names import TOKEN

ANSWERS_MAX = 100
"""Answers to choose from: more than anybody reads."""
ANSWER_MAX = 200
"""Characters of each: it is shown in a line."""
_NAMED_MAX = 12


class BadQuestion(ValueError):
    """What nobody can be asked. `key` says what of it is wrong: `answers`, `default`."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        """`found` and `expected` as in errors of flows."""
        self.key, self.found, self.expected = key, found, expected
        super().__init__(f"{key}: found {found}; expected {expected}")


class BadAnswer(ValueError):
    """What is no answer to a question, as a sentence that says what was found and what is expected."""


def is_word_name(name: object) -> TypeGuard[str]:
    """Say whether a role or an event may be called so."""
    return isinstance(name, str) and TOKEN.match(name) is not None and is_word(name)


def check_word_name(what: str, name: object) -> str:
    """Return the name of a role or an event. Raises `BadQuestion` for one that could not stand in a subject."""
    if is_word_name(name):
        return name
    raise BadQuestion(
        what,
        f"{name!r}"[:100],
        "1 to 64 characters from A-Z, a-z, 0-9, '_' and '-', without a double hyphen and none at an end",
    )


def check_question(question: Question, default: Raw = NO_DEFAULT) -> None:
    """Raise `BadQuestion` for a question that cannot be answered, or a default that is no answer to it."""
    if not question.text.strip():
        raise BadQuestion("prompt", "no text", "what the person is asked")
    if question.answers and (question.output or question.type):
        raise BadQuestion("answers", "both `answers` and a type", "one of them: a choice, or something to fill in")
    check_answers(question.answers)
    kind_of_answer(question)
    if bytes(default):
        try:
            fitted(question, default)
        except BadAnswer as error:
            raise BadQuestion(
                "default", bytes(default).decode(errors="replace")[:100], f"an answer: {error}"
            ) from error


def check_answers(answers: list[str]) -> None:
    """Raise `BadQuestion` unless these are answers that one can choose from; none at all is no choice."""
    seen: set[str] = set()
    for answer in answers:
        if not isinstance(answer, str) or not answer.strip():
            raise BadQuestion("answers", repr(answer), "texts that are not empty")
        if len(answer) > ANSWER_MAX:
            raise BadQuestion("answers", f"one of {len(answer)} characters", f"at most {ANSWER_MAX} each")
        if answer in seen:
            raise BadQuestion("answers", f"{answer!r} twice", "each answer once")
        seen.add(answer)
    if len(answers) > ANSWERS_MAX:
        raise BadQuestion("answers", f"{len(answers)} of them", f"at most {ANSWERS_MAX}")


def kind_of_answer(question: Question) -> Type:
    """Return the type of what is an answer, choices left out. Raises `BadQuestion`."""
    try:
        if question.output:
            return type_of(Field(type="dict", fields=fields_of(question)))
        return type_of(Field(type=question.type)) if question.type else ANY
    except BadType as error:
        raise BadQuestion("output", error.found, error.expected) from error


def fields_of(question: Question) -> dict[str, Field]:
    """Return the fields of a record that is to be filled in; what is no field (a stranger's) takes any value."""
    fields: dict[str, Field] = {}
    for name, raw in question.output.items():
        try:
            fields[name] = msgspec.json.decode(raw, type=Field)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields[name] = Field(type="any?")
    return fields


def output_of(fields: Mapping[str, Field]) -> dict[str, Raw]:
    """Return fields as a question carries them."""
    return {name: Raw(msgspec.json.encode(field)) for name, field in fields.items()}


def fitted(question: Question, answer: Raw) -> Raw:
    """Return an answer that fits the question: itself, or a copy with the defaults of its fields filled in.

    It has to be JSON. Raises `BadAnswer`.
    """
    value = msgspec.json.decode(answer)
    if question.answers:
        if value not in question.answers or not isinstance(value, str):
            raise BadAnswer(f"found {shown(value)}; expected {listed_answers(question.answers)}")
        return answer
    try:
        kind = kind_of_answer(question)
    except BadQuestion:  # a stranger's: then anything goes
        kind = ANY
    if value is None and kind == ANY:
        raise BadAnswer('there is no answer in it; expected {"answer": …}')
    try:
        found = fit(value, kind, "answer")
    except Unfit as error:
        where = "" if error.place == "answer" else f"{error.place}: "
        raise BadAnswer(f"{where}{error.reason}") from error
    return answer if found is value else Raw(msgspec.json.encode(found))


def listed_answers(answers: list[str]) -> str:
    """Return what may be answered, as an error and a question say it: `"yes" or "no"`."""
    some = [f'"{answer}"' for answer in answers[:_NAMED_MAX]]
    if len(answers) > _NAMED_MAX:
        return f"one of {', '.join(some)} and {len(answers) - _NAMED_MAX} more"
    return " or ".join(filter(None, [", ".join(some[:-1]), some[-1]]))


def expects(question: Question) -> str:
    """Return what is expected as an answer, in a few words: for whoever is to answer."""
    if question.answers:
        return listed_answers(question.answers)
    if question.output:
        return ", ".join(f"{name} ({_in_words(field)})" for name, field in fields_of(question).items())
    return question.type or "any text, or JSON"


def _in_words(field: Field) -> str:
    try:
        return _of_type(type_of(field))
    except BadType:  # a stranger's
        return field.type


def _of_type(kind: Type) -> str:
    """Return a type as people are told it, with what is in its records: `list of {n: int, why: str?}`."""
    mark = "?" if kind.optional else ""
    if kind.items is not None and kind.items.fields is not None:
        return f"list{mark} of {_of_type(kind.items)}"
    if kind.fields is None or kind.values:
        return wanted(kind)
    return "{" + ", ".join(f"{name}: {_of_type(inner)}" for name, inner in kind.fields.items()) + "}" + mark
