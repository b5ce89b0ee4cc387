"""Whether an agent that is a person can be asked: a role, a question, and answers that go together."""

from __future__ import annotations

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from baton_schemas.errors import FlowError
from baton_schemas.flow.check_defaults import check_defaults
from baton_schemas.flow.flow import Agent
from baton_schemas.flow.limits import check_deadline
from baton_schemas.flow.questions import BadQuestion, check_question, check_word_name, output_of
from baton_schemas.flow.types import BadType, has_files, type_of
from baton_schemas.wire.messages import Question

_OF_PEOPLE = ("answers", "deadline_s", "default")
_NOT_OF_PEOPLE = ("model", "handler", "system", "max_tokens", "reads", "workers")


def check_no_person(place: str, agent: Agent) -> None:
    """Raise `FlowError` when an agent that is no person has a key that only people have."""
    for key in _OF_PEOPLE:
        if _is_set(agent, key):
            raise FlowError(
                f"{place}.{key}",
                f"`{key}` on an agent that is no person",
                "it only with `person`, the role that is asked",
            )


def check_person(place: str, agent: Agent) -> None:
    """Raise `FlowError` for the first mistake in an agent that is a person."""
    for key in _NOT_OF_PEOPLE:
        if _is_set(agent, key):
            raise FlowError(
                f"{place}.{key}",
                f"both `person` and `{key}`",
                "one of them: a person is asked a `prompt`, and nothing else",
                hint="Remove one, or make two agents.",
            )
    try:
        check_word_name("person", agent.person)
    except BadQuestion as error:
        raise FlowError(f"{place}.person", error.found, f"the name of a role: {error.expected}") from error
    if not agent.prompt.strip():
        raise FlowError(f"{place}.prompt", "no `prompt`", "what the person is asked")
    if agent.deadline_s is not None:
        check_deadline(f"{place}.deadline_s", agent.deadline_s)
    elif bytes(agent.default):
        hint = "It is the answer once the time is up: set `deadline_s` too."
        raise FlowError(f"{place}.default", "`default` without `deadline_s`", "both, or none", hint=hint)
    if isinstance(agent.output, str):
        raise FlowError(f"{place}.output", repr(agent.output), "fields: people are asked field by field")
    for name, field in agent.output_fields.items():
        try:
            type_of(field)
        except BadType as error:
            raise FlowError(f"{place}.output.{name}.{error.key}", error.found, error.expected) from error
        if has_files(field):
            expected = "another type: people answer with text and numbers"
            raise FlowError(f"{place}.output.{name}.type", f"the type {field.type!r} of an answer", expected)
    check_defaults(f"{place}.output", agent.output_fields)
    try:
        check_question(question_of(agent, agent.prompt), agent.default)
    except BadQuestion as error:
        raise FlowError(f"{place}.{error.key}", error.found, error.expected) from error


def question_of(agent: Agent, text: str) -> Question:
    """Return what an agent that is a person is asked, with its prompt filled in."""
    return Question(text=text, answers=agent.answers, output=output_of(agent.output_fields))


def _is_set(agent: Struct, key: str) -> bool:
    """Say whether a key is written, and not as if it were not."""
    (field,) = [each for each in fields(agent) if each.name == key]
    usual = field.default if field.default is not NODEFAULT else field.default_factory()
    return bool(getattr(agent, key) != usual)
