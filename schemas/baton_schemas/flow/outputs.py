"""What an LLM agent is to answer with, as its `output` says: the schema that its model is given. Pure.

The Messages API takes a part of JSON Schema, and puts what it takes into a grammar that the answer follows. What is
beyond it stands in the descriptions, where the model reads it, and is checked when the answer is there. This is what
the official SDK makes of a schema; a test compares the two.
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from baton_schemas.flow.flow import Agent, Field
from baton_schemas.flow.json_fit import type_of_schema
from baton_schemas.flow.json_schema import BadSchema, Schema, normal
from baton_schemas.flow.tools import object_of
from baton_schemas.flow.types import Type, type_of

OPTIONAL_MAX = 24
"""Keys that may be missing, all in all: what the API takes."""
UNIONS_MAX = 16
"""Parts that may be one of several types: what the API takes."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
"""Those of texts that the grammar knows."""


def schema_of(agent: Agent) -> Schema:
    """Return the JSON Schema, in its normal form, that an LLM agent's answer is to fit; empty for one that says none.

    Raises `BadSchema`, of an agent that is not checked.
    """
    if agent.output_schema:
        return agent.output_schema
    return normal(object_of(agent.output_fields)) if agent.output_fields else {}


def type_of_output(agent: Agent) -> Type | None:
    """Return the type of what an LLM agent or a person puts out, as `output` says it; None where it says nothing."""
    if agent.output_schema:
        return type_of_schema(agent.output_schema)
    return type_of(Field(type="dict", fields=agent.output_fields)) if agent.output_fields else None


def asked_schema(agent: Agent) -> Schema:
    """Return the schema of an LLM agent's answer as a request has it; empty for one that says none."""
    schema = schema_of(agent)
    return for_api(schema) if schema else {}


def check_limits(schema: Schema) -> None:
    """Raise `BadSchema` when a schema, as a request has it, is beyond what the API takes."""
    parts = list(_parts(schema))
    optional = sum(len(part["properties"]) - len(part.get("required", [])) for part in parts if "properties" in part)
    if optional > OPTIONAL_MAX:
        expected = f"at most {OPTIONAL_MAX}, which the API takes"
        raise BadSchema("", f"{optional} keys that may be missing", expected, "Make some of them required.")
    unions = sum("anyOf" in part for part in parts)
    if unions > UNIONS_MAX:
        expected = f"at most {UNIONS_MAX}, which the API takes"
        raise BadSchema("", f"{unions} parts of more than one type", expected, "Give some of them one type.")


def for_api(schema: Schema, *, optional: bool = False) -> Schema:
    """Return a schema in its normal form as the Messages API takes it.

    What is `optional` is left out by the model rather than null: that it may be null too is not said.
    """
    kind = schema.get("type")
    if isinstance(kind, list):
        rest = {key: value for key, value in schema.items() if key not in ("title", "description")}
        said: Schema = {key: schema[key] for key in ("description", "title") if key in schema}
        one = {**rest, "type": kind[0]}
        if optional:
            return for_api({**said, **one})
        return {"anyOf": [for_api(one), {"type": "null"}], **said}
    found: Schema = {}
    rest = {key: value for key, value in schema.items() if key not in ("title", "description", "type")}
    if "enum" in rest:
        values = rest.pop("enum")
        found["enum"] = [each for each in values if each is not None] or values if optional else values
    elif "anyOf" in rest:
        found["anyOf"] = [for_api(option) for option in rest.pop("anyOf")]
    else:
        found["type"] = kind
    found |= {key: schema[key] for key in ("description", "title") if key in schema}
    if kind == "object":
        needed = rest.pop("required", [])
        properties = rest.pop("properties")
        found["properties"] = {name: for_api(each, optional=name not in needed) for name, each in properties.items()}
        rest.pop("additionalProperties", None)
        found["additionalProperties"] = False
        if needed:
            found["required"] = list(needed)
    elif kind == "array":
        found["items"] = for_api(rest.pop("items"))
        if rest.get("minItems") in (0, 1):
            found["minItems"] = rest.pop("minItems")
    elif kind == "string" and rest.get("format") in _FORMATS:
        found["format"] = rest.pop("format")
    return _with_asides(found, rest)


def _with_asides(schema: Schema, rest: Mapping[str, Any]) -> Schema:
    """Return a schema whose description has what the grammar does not keep to: `{minimum: 2, maximum: 9}`."""
    if not rest:
        return schema
    before = f"{schema['description']}\n\n" if "description" in schema else ""
    return {**schema, "description": f"{before}{{{', '.join(f'{key}: {value}' for key, value in rest.items())}}}"}


def _parts(schema: Schema) -> Iterator[Schema]:
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    for each in [*inner, schema["items"]] if "items" in schema else inner:
        yield from _parts(each)
