"""Schemas of the tools of MCP servers, as the Messages API takes them: nothing combined at the top, nothing lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents.tools.mcp_schemas import sendable
from baton_actors.agents.tools.servers import McpServer
from baton_schemas.flow.flow import Mcp

TEXT, NUMBER = {"type": "string"}, {"type": "number"}

ALTERNATIVES = """
import json, sys
SCHEMA = {"type": "object", "properties": {"page": {"type": "string"}}, "required": ["page"], "anyOf": [
    {"properties": {"content": {"type": "string"}}, "required": ["content"]},
    {"properties": {"url": {"type": "string"}}, "required": ["url"]}]}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        version = (message.get("params") or {}).get("protocolVersion")
        us = {"name": "s", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": us}
        if message["method"] == "tools/list":
            result = {"tools": [{"name": "attach", "description": "Attaches.", "inputSchema": SCHEMA}]}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"anyOf": [TEXT, NUMBER]}}, "required": ["a"], "$defs": {"A": TEXT}},
    ],
)
def test_schema_with_nothing_combined_at_its_top_is_sent_as_it_is(schema: dict[str, Any]) -> None:
    assert sendable(schema) == (schema, "")


def test_schema_without_a_type_is_one_of_an_object() -> None:
    assert sendable({}) == ({"type": "object"}, "")


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_alternatives_at_the_top_become_properties_and_words(key: str) -> None:
    parts = [
        {"type": "object", "properties": {"page": TEXT, "content": TEXT}, "required": ["page", "content"]},
        {"type": "object", "properties": {"page": NUMBER, "url": TEXT}, "required": ["page", "url"]},
    ]
    schema, said = sendable({"type": "object", key: parts, "additionalProperties": False})
    assert schema == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"page": {"anyOf": [TEXT, NUMBER]}, "content": TEXT, "url": TEXT},
        "required": ["page"],
    }
    assert said == "Its arguments are those of one of these: page, content; or page, url."


def test_alternatives_that_only_say_what_is_required_are_told_in_words() -> None:
    whole = {"properties": {"id": TEXT, "url": TEXT}, "oneOf": [{"required": ["id"]}, {"required": ["url"]}]}
    schema, said = sendable(whole)
    assert schema == {"type": "object", "properties": {"id": TEXT, "url": TEXT}}
    assert said == "Its arguments are those of one of these: id; or url."


def test_all_of_and_references_are_taken_together() -> None:
    base = {"properties": {"id": TEXT}, "required": ["id"]}
    whole = {
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": NUMBER}, "required": ["n"]}],
        "$defs": {"base": base},
    }
    schema, said = sendable(whole)
    assert schema["properties"] == {"id": TEXT, "n": NUMBER}
    assert schema["required"] == ["id", "n"]
    assert not {"allOf", "$ref"} & schema.keys()
    assert said == ""


def test_schema_that_refers_to_itself_comes_to_an_end() -> None:
    schema, _ = sendable({"$ref": "#", "properties": {"a": TEXT}, "anyOf": [{"$ref": "#"}, {"$ref": "#/nowhere"}, 7]})
    assert schema == {"type": "object", "properties": {"a": TEXT}}


async def test_server_whose_tool_has_alternatives_can_be_offered(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(ALTERNATIVES)
    server = McpServer("s", Mcp(command=[sys.executable, "-S", "server.py"]), tmp_path)
    try:
        (tool,) = await server.tools()
    finally:
        await server.aclose()
    assert tool.input_schema["properties"].keys() == {"page", "content", "url"}
    assert "anyOf" not in tool.input_schema
    assert tool.description == "Attaches.\n\nIts arguments are those of one of these: content; or url."
