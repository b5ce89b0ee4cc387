"""Whether the `output` of an LLM agent is what a model can be asked for."""

from __future__ import annotations

import re

from baton_schemas.errors import FlowError
from baton_schemas.flow.check_defaults import check_defaults
from baton_schemas.flow.flow import Agent, Field
from baton_schemas.flow.json_schema import BadSchema
from baton_schemas.flow.limits import check_parts
from baton_schemas.flow.outputs import asked_schema, check_limits
from baton_schemas.flow.types import BadType, has_files, type_of

_PART = re.compile(r"/(properties/([^/]*)|items)")


def check_output(place: str, agent: Agent) -> None:
    """Raise `FlowError` for the first mistake in what an LLM agent is to answer with."""
    check_parts(f"{place}.output", len(agent.output_fields))
    for name, field in agent.output_fields.items():
        if has_files(field):
            raise FlowError(f"{place}.output.{name}.type", "a file", "a type without files: a model writes text")
        try:
            type_of(field)
        except BadType as error:
            raise FlowError(f"{place}.output.{name}.{error.key}", error.found, error.expected) from error
    check_defaults(f"{place}.output", agent.output_fields)
    try:
        check_limits(asked_schema(agent))
    except BadSchema as error:
        if isinstance(agent.output, str):
            raise FlowError(
                f"{place}.output", f"{error.found} in {agent.output!r}", error.expected, hint=error.hint
            ) from error
        raise _of_fields(place, agent, error) from error


def _of_fields(place: str, agent: Agent, error: BadSchema) -> FlowError:
    """Return what is wrong with fields, in the words of someone who writes fields."""
    keys = [match[2] for match in _PART.finditer(error.place) if match[2] is not None]
    where = ".fields.".join([f"{place}.output.{keys[0]}", *keys[1:]]) if keys else f"{place}.output"
    field = Field(fields=agent.output_fields)
    for key in keys:
        field = field.fields[key]
    if not keys:
        return FlowError(where, error.found, error.expected, hint=error.hint)
    what = f"the type {field.type!r}, of which nothing more is known"
    expected = "what is in it: the items of a list, as 'list[str]', the `fields` of a dict, no `any`"
    return FlowError(where, what, expected, hint="A model is held to what is said.")
