"""What flow files say of tools and MCP servers: what is refused, with its place, and what follows from the rest."""

from __future__ import annotations

from typing import Any

import pytest

from baton_schemas.errors import FlowError
from baton_schemas.flow.file import build_flow, load_flow
from baton_schemas.flow.flow import Mcp, decode_flow, encode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.used_tools import (
    PROVIDED,
    functions_of,
    name_of,
    needs_offer,
    provided_of,
    servers_of,
    variables_of,
)

AGENT: dict[str, Any] = {"model": "worker", "prompt": "Go."}
TEXT = """
name = "f"
steps.a = {}

[agents.a]
model = "worker"
prompt = "Go."
tools = ["m:x", "web_serch"]
"""
FILES: dict[str, Any] = {"command": ["files"]}


def flow(tools: list[Any], mcp: dict[str, Any] | None = None, **agent: Any) -> Plan:
    data: dict[str, Any] = {"name": "f", "agents": {"a": AGENT | {"tools": tools} | agent}, "steps": {"a": {}}}
    if "workers" in agent:
        data["agents"]["search"] = AGENT
    return Plan(build_flow(data | ({"mcp": mcp} if mcp else {})))


def refused(tools: list[Any], mcp: dict[str, Any] | None = None, **agent: Any) -> FlowError:
    with pytest.raises(FlowError) as caught:
        flow(tools, mcp, **agent)
    return caught.value


def test_tools_of_all_kinds_are_known_by_what_they_are_named() -> None:
    tools = [
        "./t.py:search",
        "shop.tools:order",
        "mcp:files/read file",
        "mcp:web",
        {"use": "web_search", "max_uses": 2},
    ]
    plan = flow(tools, {"files": FILES, "web": {"url": "https://example.com/mcp"}})
    agent = plan.agent("a")
    assert functions_of(agent) == {"search": "./t.py:search", "order": "shop.tools:order"}
    assert servers_of(agent) == {"files": {"read file"}, "web": frozenset()}
    assert [(tool.type, tool.max_uses) for tool in provided_of(agent)] == [(PROVIDED["web_search"], 2)]
    assert needs_offer(agent)
    assert name_of("files", "read file") == "files__read_file"
    assert decode_flow(encode_flow(plan.flow)) == plan.flow


def test_flow_without_tools_is_as_it_was_before_there_were_any() -> None:
    data = {"name": "f", "agents": {"a": AGENT}, "steps": {"a": {}}}
    assert b"tool" not in encode_flow(build_flow(data))
    assert not needs_offer(flow(["web_search"]).agent("a"))


@pytest.mark.parametrize(
    ("tools", "mcp", "place", "found", "hint"),
    [
        (["web_serch"], {}, "agents.a.tools[0]", "'web_serch'", "Did you mean 'web_search'?"),
        (["tools.py:search"], {}, "agents.a.tools[0]", "'tools.py:search'", "write './tools.py:search'"),
        (["./t.py"], {}, "agents.a.tools[0]", "'./t.py'", ""),
        (["mcp:file"], {"files": FILES}, "agents.a.tools[0]", "the MCP server 'file'", "Did you mean 'files'?"),
        (["mcp:files"], {}, "agents.a.tools[0]", "the MCP server 'files'", "Add [mcp.files] with `command` or `url`."),
        (["./t.py:größe"], {}, "agents.a.tools[0]", "a tool named 'größe'", ""),
        (["m:x", "m:x"], {}, "agents.a.tools[1]", "'m:x' once more", ""),
        (["m:x", "n:x"], {}, "agents.a.tools[1]", "'n:x', of the same name as 'm:x'", ""),
        (["mcp:files", "mcp:files/read"], {"files": FILES}, "agents.a.tools[1]", "'mcp:files/read' besides all", ""),
        (["m:web_search", "web_search"], {}, "agents.a.tools[1]", "'web_search', of the same name", ""),
        ([{"use": "m:x", "max_uses": 2}], {}, "agents.a.tools[0].max_uses", "`max_uses` with 'm:x'", ""),
        ([{"use": "code_execution", "max_uses": 1}], {}, "agents.a.tools[0].max_uses", "`max_uses` with", ""),
        ([{"use": "web_search", "max_uses": -1}], {}, "agents.a.tools[0].max_uses", "-1", ""),
        ([{"use": "web_search", "max_uses": 0}], {}, "agents.a.tools[0].max_uses", "0", "Leave the tool out for none"),
        (["./t.py:Shop.find"], {}, "agents.a.tools[0]", "'./t.py:Shop.find'", "'Shop.find' is within something"),
        (
            [{"use": "web_search", "allowed_domains": ["a.de"], "blocked_domains": ["b.de"]}],
            {},
            "agents.a.tools[0].blocked_domains",
            "both",
            "",
        ),
        (
            [{"use": "web_fetch", "allowed_domains": ["https://a.de"]}],
            {},
            "agents.a.tools[0].allowed_domains",
            "'https://a.de'",
            "",
        ),
        ([], {"files": {}}, "mcp.files", "neither `command` nor `url`", ""),
        ([], {"files": FILES | {"url": "http://x"}}, "mcp.files", "both `command` and `url`", ""),
        ([], {"fi les": FILES}, "mcp.fi les", "'fi les'", ""),
        ([], {"files": FILES | {"headers": {"a": "${B}"}}}, "mcp.files.headers", "`headers` with `command`", ""),
        ([], {"files": {"url": "http://x", "env": ["A"]}}, "mcp.files.env", "`env` with `url`", ""),
        ([], {"files": FILES | {"env": ["A=1"]}}, "mcp.files.env", "'A=1'", "taken from the worker's environment"),
        ([], {"files": {"url": "files"}}, "mcp.files.url", "'files'", ""),
        ([], {"files": {"url": "https://u:p@x/mcp"}}, "mcp.files.url", "a user or a password", "Use `headers`"),
        (
            [],
            {"files": {"url": "https://x", "headers": {"Authorization": "Bearer abc"}}},
            "mcp.files.headers.Authorization",
            "a value without a variable",
            "stays in the environment",
        ),
    ],
)
def test_tools_that_can_be_none_are_refused_with_their_place(
    tools: list[Any], mcp: dict[str, Any], place: str, found: str, hint: str
) -> None:
    error = refused(tools, mcp)
    assert error.place == place
    assert error.found.startswith(found)
    assert hint in error.hint


def test_secret_that_is_written_into_a_header_is_not_in_the_error() -> None:
    error = refused([], {"files": {"url": "https://x", "headers": {"Authorization": "Bearer s3cret"}}})
    assert "s3cret" not in str(error)


def test_tool_that_is_named_like_a_worker_is_refused() -> None:
    error = refused(["./t.py:search"], workers=["search"])
    assert (error.place, error.found) == ("agents.a.tools[0]", "a tool named like the worker 'search'")


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_calls": 0}, "max_calls"),
        ({"tool_timeout_s": 0}, "tool_timeout_s"),
        ({"tool_output_bytes": 0}, "tool_output_bytes"),
        ({"tool_output_bytes": 100_001}, "tool_output_bytes"),
        ({"in_doubt": "the editors"}, "in_doubt"),
    ],
)
def test_limits_that_are_out_of_bounds_are_refused(limits: dict[str, Any], key: str) -> None:
    assert refused(["m:x"], **limits).place == f"agents.a.{key}"


def test_tools_of_an_agent_that_asks_no_model_are_refused() -> None:
    data = {"name": "f", "agents": {"a": {"handler": "m:f", "tools": ["m:x"]}}, "steps": {"a": {}}}
    with pytest.raises(FlowError) as caught:
        build_flow(data)
    assert (caught.value.place, caught.value.found) == ("agents.a.tools", "`tools` on an agent that is no LLM agent")


def test_mistake_is_told_with_its_line() -> None:
    with pytest.raises(FlowError, match="line 8"):
        load_flow(TEXT, "f.toml")


def test_function_of_a_program_is_in_no_file() -> None:
    with pytest.raises(FlowError, match="only in flows that it builds in Python"):
        load_flow(TEXT.replace("web_serch", "in-process:x"), "f.toml")


def test_variables_of_a_server_are_those_that_it_names() -> None:
    web = Mcp(url="https://${HOST}/mcp", headers={"a": "Bearer ${KEY}", "b": "${KEY}"})
    assert variables_of(web) == ["HOST", "KEY"]
    assert variables_of(Mcp(command=["x"], env=["A", "B"])) == ["A", "B"]
