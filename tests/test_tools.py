"""Agents as tools: their JSON Schema takes what asking takes, and what it refuses is refused."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.errors import InputError
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Agent, Field
from baton_schemas.flow.inputs import check_fields, encode_input
from baton_schemas.flow.tools import tools_of

FLOW = """
name = "f"
agents.chief = { model = "worker", prompt = "Go.", workers = ["finder"] }
steps.chief = {}

[agents.finder]
model = "worker"
prompt = "{question}"
description = "Finds."

[agents.finder.input]
question = { type = "str", description = "one question" }
depth = { type = "int", default = 2 }
sources = { type = "list[dict]", default = [], fields = { url = "str", rank = "float?" } }
options = { fields = { lang = { type = "str", default = "en", description = "of the answer" }, tags = "list[str]?" } }
rest = "any?"
"""


def schema_of(fields: dict[str, Field]) -> dict[str, Any]:
    finder = Agent(model="worker", prompt="Go.", input=fields)
    flow = msgspec.structs.replace(load_flow(FLOW), agents={"finder": finder})
    (tool,) = tools_of(flow, Agent(workers=["finder"]))
    return tool.input_schema


def test_schema_says_types_defaults_and_what_each_is_for() -> None:
    flow = load_flow(FLOW)
    (tool,) = tools_of(flow, flow.agents["chief"])
    assert (tool.name, tool.description) == ("finder", "Finds.")
    assert tool.input_schema == {
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "one question"},
            "depth": {"type": "integer", "default": 2},
            "sources": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"url": {"type": "string"}, "rank": {"type": ["number", "null"]}},
                    "required": ["url"],
                },
                "default": [],
            },
            "options": {
                "type": "object",
                "properties": {
                    "lang": {"type": "string", "default": "en", "description": "of the answer"},
                    "tags": {"type": ["array", "null"], "items": {"type": "string"}},
                },
            },
            "rest": {},
        },
        "required": ["question", "options"],
        "additionalProperties": False,
    }


_kinds = st.recursive(
    st.sampled_from(["str", "int", "float", "bool", "dict", "list", "any", "str?", "dict?"]),
    lambda inner: inner.map(lambda kind: f"list[{kind}]") | inner.map(lambda kind: f"list[{kind}]?"),
    max_leaves=3,
)
_fields = st.recursive(
    st.builds(Field, type=_kinds),
    lambda inner: st.builds(
        Field,
        type=st.sampled_from(["dict", "list[dict]", "dict?", "list[list[dict]]"]),
        fields=st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    ),
    max_leaves=4,
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9).filter(lambda x: x % 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), _fields, max_size=3), st.data())
def test_schema_takes_what_an_ask_takes(fields: dict[str, Field], data: st.DataObject) -> None:
    arguments = data.draw(st.dictionaries(st.sampled_from([*fields, "other"]), _values, max_size=3))
    valid = jsonschema_rs.Draft202012Validator(schema_of(fields)).is_valid(arguments)
    try:
        check_fields("finder", "agent", fields, encode_input(arguments))
    except InputError:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize("default", [b'"en"', b"[1, null]", b'{"a": {"b": 1.5}}'])
def test_defaults_are_as_they_are_written(default: bytes) -> None:
    schema = schema_of({"x": Field(type="any", default=Raw(default))})
    assert schema["properties"]["x"]["default"] == msgspec.json.decode(default)
    assert "required" not in schema
