"""Questions that handlers ask people: what may be answered follows from the type that they want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Raw, inspect

from baton_actors.agents.asks import AskRefused
from baton_schemas.errors import BadContent
from baton_schemas.flow.flow import Field
from baton_schemas.flow.questions import (
    BadQuestion,
    check_answers,
    check_question,
    check_word_name,
    output_of,
)
from baton_schemas.wire.messages import NO_DEFAULT, Question
from baton_schemas.wire.values import encode_value

_SCALARS: dict[type[inspect.Type], str] = {
    inspect.StrType: "str",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.BoolType: "bool",
    inspect.DictType: "dict",
}


def question_for(role: str, text: str, answers: Sequence[str] | None, returns: Any) -> Question:
    """Return the question of a handler to a role; `returns` is the type of the answer that it wants.

    A record (a Struct, dataclass or TypedDict) is asked for field by field, a `Literal` or enum of texts is a choice.
    Raises `AskRefused`.
    """
    try:
        check_word_name("ask_person, role", role)
        encode_value(text, "the question")
        if answers is not None and (isinstance(answers, str) or not answers):
            raise BadQuestion("answers", repr(answers), "a list of what may be answered, or nothing for any answer")
        check_answers(list(answers or []))
        question = Question(text=text, answers=list(answers)) if answers else _of_type(text, returns)
        check_question(question)
    except BadQuestion as error:
        raise AskRefused(f"{role!r} cannot be asked this: {error}"[:1_000]) from error
    except BadContent as error:
        raise AskRefused(f"{role!r} cannot be asked this: {error}") from error
    return question


def default_of(question: Question | None, default: Any, deadline_s: float | None) -> Raw:
    """Return the answer for when nobody answers in time, as JSON; `NO_DEFAULT` for `UNSET`. Raises `AskRefused`."""
    if default is UNSET:
        return NO_DEFAULT
    if deadline_s is None:
        raise AskRefused("`default` is the answer once the time is up: it needs a `deadline_s`")
    try:
        encoded = Raw(encode_value(default, "default"))
        if question is not None:
            check_question(question, encoded)
    except (BadContent, BadQuestion) as error:
        raise AskRefused(str(error)) from error
    return encoded


def _of_type(text: str, returns: Any) -> Question:
    if returns is Any:
        return Question(text=text)
    try:
        kind = inspect.type_info(returns)
    except (TypeError, NameError):  # decoding the answer says what is wrong with it
        return Question(text=text)
    match kind:
        case inspect.LiteralType(values=values) if all(isinstance(value, str) for value in values):
            return Question(text=text, answers=[str(value) for value in values])
        case inspect.EnumType(cls=cls) if all(isinstance(each.value, str) for each in cls):
            return Question(text=text, answers=[each.value for each in cls])
        case inspect.StructType(fields=fields) | inspect.DataclassType(fields=fields):
            is_object = not getattr(kind, "array_like", False) and getattr(kind, "tag", None) is None
            output = {each.encode_name: _field(each) for each in fields if each.required or _has_plain(each)}
            return Question(text=text, output=output_of(output)) if is_object and output else Question(text=text)
        case inspect.TypedDictType(fields=fields):
            return Question(text=text, output=output_of({each.encode_name: _field(each) for each in fields}))
        case _:
            named = _name(kind)
            return Question(text=text, type="" if named.startswith("any") else named)


def _field(field: inspect.Field) -> Field:
    if field.required:
        return Field(type=_name(field.type))
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:  # of a TypedDict: it may be left out
        return Field(type="any?")
    return Field(type=_name(field.type), default=Raw(encode_value(field.default, field.name)))


def _has_plain(field: inspect.Field) -> bool:
    """Say whether a field's default is one that can be shown; any other is filled in where the answer is decoded."""
    return field.default is None or isinstance(field.default, str | int | float | bool)


def _name(kind: inspect.Type) -> str:
    """Return a type as flow files have it; `any` for what they have not."""
    match kind:
        case inspect.UnionType(types=types):
            others = [each for each in types if not isinstance(each, inspect.NoneType)]
            name = _name(others[0]) if len(others) == 1 else "any"
            return f"{name.removesuffix('?')}?" if len(others) < len(types) else name
        case inspect.ListType(item_type=item):
            return f"list[{_name(item)}]"
        case _:
            return _SCALARS.get(type(kind), "any")


def event_name(name: object) -> str:
    """Return the name of an event. Raises `AskRefused`."""
    try:
        return check_word_name("wait_for, event", name)
    except BadQuestion as error:
        raise AskRefused(str(error)) from error


def as_value(question: Question) -> dict[str, Any]:
    """Return what makes a question the one that it is."""
    return {key: value for key, value in msgspec.structs.asdict(question).items() if value}
