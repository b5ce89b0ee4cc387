"""`baton check` and Python programs on tools: what is wrong is said before it runs, and functions need no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baton_actors import Baton, Flow, tool
from baton_actors.agents import checking
from baton_actors.agents.checking import check_source
from baton_actors.agents.importing import load_tool
from baton_actors.errors import BadTool
from baton_actors.team.errors import OnlyInProcess
from baton_schemas.errors import FlowError

from .commands import here

FLOW = """
name = "f"
input = { topic = "str" }
steps.desk = {}
[agents.desk]
model = "worker"
prompt = "About {topic}."
tools = TOOLS
"""
TOOLS = """
from baton_actors import tool

@tool
def search(query: str) -> str:
    return query

def untyped(query):
    return query

odd = 3
"""


def written(folder: Path, tools: str, more: str = "") -> str:
    (folder / "tools.py").write_text(TOOLS)
    (folder / "f.toml").write_text(FLOW.replace("TOOLS", tools) + more)
    return str(folder / "f.toml")


@pytest.mark.parametrize(
    ("tools", "code", "said"),
    [
        ('["./tools.py:serch"]', "handler_not_found", "Did you mean 'search'"),
        ('["./more.py:search"]', "handler_not_found", "there is no file"),
        ('["./tools.py:untyped"]', "bad_tool", "parameter 'query' has no type"),
        ('["./tools.py:odd"]', "bad_tool", "it is int, and no function"),
        ('["no_such_module:x"]', "handler_not_found", "agents.desk.tools: cannot load 'no_such_module:x'"),
    ],
)
def test_function_that_cannot_be_a_tool_is_found_by_check(tools: str, code: str, said: str, tmp_path: Path) -> None:
    checked = check_source(written(tmp_path, tools))
    (problem,) = checked.problems
    assert (problem.level, problem.code) == ("error", code)
    assert said in problem.message


def test_tools_are_counted_and_what_servers_lack_here_is_a_warning(tmp_path: Path) -> None:
    mcp = '[mcp.files]\ncommand = ["no-such-program"]\nenv = ["NO_SUCH_KEY"]\n'
    written(tmp_path, '["./tools.py:search", "web_search", "mcp:files"]', mcp)
    ended = here("check", "f.toml", cwd=tmp_path)
    assert ended.returncode == 0
    assert "1 step · 3 tools · claude-haiku-4-5" in ended.stdout
    assert "mcp.files.command: there is no program 'no-such-program' here" in ended.stdout
    assert "mcp.files: NO_SUCH_KEY is not in the environment here" in ended.stdout


def test_package_that_is_missing_is_an_error_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "has_package", lambda: False)
    source = written(tmp_path, '["mcp:files/read"]', '[mcp.files]\nurl = "http://127.0.0.1:9/mcp"\n')
    (problem,) = check_source(source).problems
    assert (problem.level, problem.code) == ("error", "no_mcp")
    assert problem.message == "mcp.files: the package for MCP servers is missing: pip install 'baton-bus[mcp]'"


# ---- from Python ---------------------------------------------------------------------------------


def desk(**options: Any) -> tuple[Flow, list[str]]:
    called: list[str] = []

    @tool(idempotent=True)
    def search(query: str) -> str:
        """Search."""
        called.append(query)
        return f"found {query}"

    flow = Flow("desk", input={"topic": str})
    flow.ask("answer", "Answer on {topic}", tools=search, max_calls=5, **options)
    return flow, called


async def test_function_of_the_program_is_a_tool_of_a_flow_that_it_plays() -> None:
    flow, called = desk()
    async with Baton.local(flow, data_dir=None) as team:
        answer = await team.run(topic="tea")
    assert called
    assert "found" in answer


def test_function_that_is_a_tool_is_refused_where_another_process_would_have_to_call_it() -> None:
    with pytest.raises(OnlyInProcess, match="'search' is a function of this program"):
        Baton.connect("nats://127.0.0.1:9", desk()[0])


def test_tools_of_a_flow_in_python_are_as_those_of_a_file() -> None:
    flow = Flow("f", input={"topic": str}, mcp={"files": {"command": ["files"]}})
    flow.ask("a", "On {topic}", tools=["mcp:files", {"use": "web_search", "max_uses": 1}], in_doubt="editors")
    agent = flow.check().flow.agents["a"]
    assert [each.use for each in agent.tools] == ["mcp:files", "web_search"]
    assert agent.in_doubt == "editors"


def test_two_functions_of_one_name_and_those_that_can_be_no_tool_are_refused_at_once() -> None:
    def search(query: str) -> str:
        return query

    def untyped(query):  # type: ignore[no-untyped-def]
        return query

    flow, _ = desk()
    with pytest.raises(FlowError, match="another function that is called 'search'"):
        flow.ask("more", "On {topic}", tools=search)
    with pytest.raises(BadTool, match="parameter 'query' has no type"):
        flow.ask("other", "On {topic}", tools=[untyped])


def test_function_that_cannot_be_a_tool_is_named_as_the_flow_names_it(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def search(query): ...")
    with pytest.raises(BadTool, match=r"^tool './tools.py:search': parameter 'query' has no type"):
        load_tool("desk", "./tools.py:search", tmp_path)
