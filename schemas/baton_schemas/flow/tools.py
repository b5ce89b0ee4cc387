"""What a model may call, as tools of the Messages API: a name, what it is good for, a JSON Schema.

The agents that it may ask follow from the flow. What functions and MCP servers are is fixed when a step is first done,
and recorded with it (`Offered`), so that whoever reads the log makes the same request.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.flow.flow import Agent, Field, Flow
from baton_schemas.flow.nested import description_of, input_of
from baton_schemas.flow.types import Type, type_of

KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
"""What the API takes as the name of a property. Names of agents fit what it takes as that of a tool."""

_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object"} | {
    "file": "string",  # a model gives a text, which becomes one
}


class Tool(Struct, frozen=True, kw_only=True):
    """One agent, or one function, as a model is told of it."""

    name: str
    description: str
    input_schema: dict[str, Any]
    """Of an object: the agent's `input`."""


class OfferedTool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function or a tool of an MCP server as a model was told of it."""

    name: str
    description: str = ""
    input_schema: dict[str, Any]
    use: str
    """`use` of the agent: `./tools.py:search`, or `mcp:NAME/tool`, also of one that was listed with all of them."""
    keys: dict[str, str] = {}
    """Its own names of arguments that a model is told by others, by these: the API takes no `$top`."""

    @property
    def tool(self) -> Tool:
        """It as a request has it."""
        return Tool(name=self.name, description=self.description, input_schema=self.input_schema)


offered_tools = msgspec.json.Decoder(list[OfferedTool]).decode
"""Reads what is recorded of a step's tools. Raises `msgspec.DecodeError`."""


def tools_of(flow: Flow, agent: Agent) -> tuple[Tool, ...]:
    """Return the workers of an agent as tools, in their order; none for one that asks nobody. The flow is checked."""
    return tuple(_tool(flow, name) for name in agent.workers)


def _tool(flow: Flow, name: str) -> Tool:
    schema = object_of(input_of(flow, name)) | {"additionalProperties": False}
    return Tool(name=name, description=description_of(flow, name) or f"Asks the agent {name}.", input_schema=schema)


def object_of(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the JSON Schema of an object with these fields."""
    properties = {name: _described(field) for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.required]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _described(field: Field) -> dict[str, Any]:
    schema = _with_fields(_schema(type_of(msgspec.structs.replace(field, fields={}))), field.fields)
    if bytes(field.default):
        schema["default"] = msgspec.json.decode(field.default)
    return {**schema, "description": field.description} if field.description else schema


def _schema(kind: Type) -> dict[str, Any]:
    """Return the schema of a type without fields; what may be missing is not required, and may be null as well."""
    if kind.kind == "any":
        return {}
    name = _JSON_TYPES.get(kind.kind, "array")
    schema: dict[str, Any] = {"type": [name, "null"] if kind.optional else name}
    if kind.values:
        schema["enum"] = [*kind.values, None] if kind.optional else list(kind.values)
    items = _schema(kind.items) if kind.items is not None else {}
    return {**schema, "items": items} if items else schema


def _with_fields(schema: dict[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the schema with the fields of its records: its own, or those of the items of its lists."""
    if not fields:
        return schema
    if "array" in schema.get("type", ()):
        return {**schema, "items": _with_fields(schema.get("items") or {"type": "object"}, fields)}
    own = object_of(fields)
    return {**schema, **own, "type": schema.get("type", own["type"])}
