"""Schemas of the tools of MCP servers, as the Messages API takes them: nothing combined at the top, nothing lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from baton_actors.agents.context import Context
from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.mcp_schemas import sendable
from baton_actors.agents.tools.servers import McpServer
from baton_actors.agents.tools.toolbox import Toolbox
from baton_schemas.flow.flow import Agent, Mcp, UsedTool
from baton_schemas.flow.tools import offered_tools

TEXT, NUMBER = {"type": "string"}, {"type": "number"}

ALTERNATIVES = """
import json, sys
SCHEMA = {"type": "object", "properties": {"$page": {"type": "string"}}, "required": ["$page"], "anyOf": [
    {"properties": {"content": {"type": "string"}}, "required": ["content"]},
    {"properties": {"url": {"type": "string"}}, "required": ["url"]}]}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        version = (message.get("params") or {}).get("protocolVersion")
        us = {"name": "s", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": us}
        if message["method"] == "tools/list":
            result = {"tools": [{"name": "attach", "description": "Attaches.\\n" + "x" * 20000, "inputSchema": SCHEMA}]}
        if message["method"] == "tools/call":
            result = {"content": [{"type": "text", "text": json.dumps(message["params"]["arguments"])}]}
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
    assert sendable(schema) == (schema, "", {})


def test_schema_without_a_type_is_one_of_an_object() -> None:
    assert sendable({}) == ({"type": "object"}, "", {})


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
def test_alternatives_at_the_top_become_properties_and_words(key: str) -> None:
    parts = [
        {"type": "object", "properties": {"page": TEXT, "content": TEXT}, "required": ["page", "content"]},
        {"type": "object", "properties": {"page": NUMBER, "url": TEXT}, "required": ["page", "url"]},
    ]
    schema, said, _ = sendable({"type": "object", key: parts, "additionalProperties": False})
    assert schema == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"page": {"anyOf": [TEXT, NUMBER]}, "content": TEXT, "url": TEXT},
        "required": ["page"],
    }
    assert said == "Its arguments are those of one of these: page, content; or page, url."


def test_alternatives_that_only_say_what_is_required_are_told_in_words() -> None:
    whole = {"properties": {"id": TEXT, "url": TEXT}, "oneOf": [{"required": ["id"]}, {"required": ["url"]}]}
    schema, said, _ = sendable(whole)
    assert schema == {"type": "object", "properties": {"id": TEXT, "url": TEXT}}
    assert said == "Its arguments are those of one of these: id; or url."


def test_all_of_and_references_are_taken_together() -> None:
    base = {"properties": {"id": TEXT}, "required": ["id"]}
    whole = {
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"n": NUMBER}, "required": ["n"]}],
        "$defs": {"base": base},
    }
    schema, said, _ = sendable(whole)
    assert schema["properties"] == {"id": TEXT, "n": NUMBER}
    assert schema["required"] == ["id", "n"]
    assert not {"allOf", "$ref"} & schema.keys()
    assert said == ""


def test_schema_that_refers_to_itself_comes_to_an_end() -> None:
    schema, _, _ = sendable(
        {"$ref": "#", "properties": {"a": TEXT}, "anyOf": [{"$ref": "#"}, {"$ref": "#/nowhere"}, 7]}
    )
    assert schema == {"type": "object", "properties": {"a": TEXT}}


def test_names_that_the_api_refuses_are_told_by_others_that_none_has() -> None:
    long = "n" * 65
    names = ["$top", "_top", "filter[]", "größe", "", long, "b.c-d"]
    schema, said, keys = sendable({"properties": dict.fromkeys(names, TEXT), "required": ["$top", "b.c-d"]})
    assert list(schema["properties"]) == ["_top_2", "_top", "filter__", "gr__e", "_", "n" * 64, "b.c-d"]
    assert schema["required"] == ["_top_2", "b.c-d"]
    assert keys == {"_top_2": "$top", "filter__": "filter[]", "gr__e": "größe", "_": "", "n" * 64: long}
    assert said == ""


async def test_tool_with_alternatives_and_odd_names_is_offered_and_called_by_its_own(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(ALTERNATIVES)
    server = McpServer("s", Mcp(command=[sys.executable, "-S", "server.py"]), tmp_path)
    agent = Agent(model="worker", prompt="Go.", tools=[UsedTool(use="mcp:s")])
    toolbox = Toolbox(agent, {}, {"s": server}, Threads())
    try:
        (tool,) = offered_tools(msgspec.json.encode(await toolbox.offer()))
        target = toolbox.targets([tool])["s__attach"]
        given = await target.start({"_page": "1", "url": "u"}, Context(run="r", step="s", attempt=1), 10)()
    finally:
        await server.aclose()
    assert tool.input_schema["properties"].keys() == {"_page", "content", "url"}
    assert "anyOf" not in tool.input_schema
    assert tool.description.startswith("Attaches.\nxxx")
    assert tool.description.endswith("\n\nIts arguments are those of one of these: content; or url.")
    assert len(tool.description) < 10_100
    assert given.text == '{"$page": "1", "url": "u"}'
