"""JSON Schemas that agents name as their `output`: read with the flow, whose digest then names what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from baton_schemas.errors import FlowError
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.json_schema import BadSchema, normal
from baton_schemas.flow.types import json_type

ReadSchema = Callable[[str], Any]
"""Reads the JSON Schema that an agent's `output` names. Raises `FlowError`, whose place is replaced."""
SCHEMA_BYTES_MAX = 64 * 1024
"""Of a file: a flow is in the first message of each run, and what an API takes is a tenth of it."""


def read_none(name: str) -> Any:
    """Read no schema: for texts that are in no folder."""
    _check_name(name)
    raise FlowError("output", repr(name), "fields, where no files can be looked for")


def read_schema(name: str, folder: Path) -> Any:
    """Return the JSON in a file that `output` names, relative to the folder. Raises `FlowError`."""
    _check_name(name)
    path = folder / name
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FlowError("output", f"{name!r}, and no such file", f"a file with a JSON Schema at {path}") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise FlowError("output", f"{name!r}, which can't be read ({why})", "a file with a JSON Schema") from error
    if len(data) > SCHEMA_BYTES_MAX:
        raise FlowError("output", f"{name!r} of {len(data)} bytes", f"at most {SCHEMA_BYTES_MAX}")
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise FlowError("output", f"{name!r}, which is no JSON ({error})", "a JSON Schema") from error


def _check_name(name: str) -> None:
    if not name.endswith(".json"):
        hint = f"For a single field, write output = {{ answer = {name!r} }}." if name.isidentifier() else ""
        raise FlowError("output", repr(name), "a table of fields, or a file such as './triage.schema.json'", hint=hint)


def with_schemas(flow: Flow, read: ReadSchema) -> Flow:
    """Return a flow with the schemas that its agents name, in their normal form. Raises `FlowError`."""
    agents = dict(flow.agents)
    for name, agent in flow.agents.items():
        if not isinstance(agent.output, str):
            continue
        place = f"agents.{name}.output"
        try:
            schema = read(agent.output)
        except FlowError as error:
            raise FlowError(place, error.found, error.expected, hint=error.hint) from error
        if not isinstance(schema, dict):
            found = f"{agent.output!r}, in which is {json_type(schema)}"
            raise FlowError(place, found, 'a JSON Schema of an object, as {"type": "object", "properties": …}')
        try:
            agents[name] = replace(agent, output_schema=normal(schema))
        except BadSchema as error:
            found = f"{error.found} at {error.place or 'the top'} of {agent.output!r}"
            raise FlowError(place, found, error.expected, hint=error.hint) from error
    return replace(flow, agents=agents) if agents != flow.agents else flow
