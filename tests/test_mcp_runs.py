"""Tools of MCP servers in a run: recorded with it, in doubt when a server is lost, only of flows that a worker has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.cli.show.step_page import step_page
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.store.bus import Bus
from baton_schemas.flow.flow import Mcp, UsedTool
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.facts import ToolBegun, ToolCall
from baton_schemas.wire.outcomes import Done, Failed

from .clients import start_run
from .mcp_servers import noted, odd_settings
from .model_servers import ScriptedModel, calls, says
from .servers import is_gone
from .test_nested_views import printed
from .timed import until_so
from .tool_runs import FLOW, ended, facts, working
from .tool_runs import opened_bus as opened_bus  # a fixture


def with_server(folder: Path, mode: str = "", **more: Any) -> FoundFlow:
    """Return a flow whose agent has all tools of an odd server."""
    command = odd_settings(folder, mode).command
    mcp = f"[mcp.odd]\ncommand = {json.dumps(command)}\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in more.items())
    tools = 'tools = ["./tools.py:search", "./tools.py:refund"]'
    flow = FLOW.replace(tools, 'tools = ["mcp:odd"]').replace("tool_timeout_s = 0.5", "tool_timeout_s = 20")
    (folder / "f.toml").write_text(flow + mcp)
    return find_flow(str(folder / "f.toml"))


async def test_tools_of_a_server_are_recorded_with_the_step_and_called(
    bus: Bus, httpserver: HTTPServer, tmp_path: Path
) -> None:
    found = with_server(tmp_path)
    model = ScriptedModel(httpserver, says(calls("odd__act", "a"), calls("odd__large", "b")), says("Done."))
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, model):
        assert isinstance((await ended(bus, run)).outcome, Done)
    (pid,) = noted(tmp_path, "start")
    assert is_gone(int(pid))  # it ended with its worker
    assert [begun.name for begun in await facts(bus, run, ToolBegun)] == ["odd__act", "odd__large"]
    (act, large) = await facts(bus, run, ToolCall)
    assert bytes(act.result) == f'"act done by {pid}"'.encode()
    assert large.cut_bytes == 3_000_000
    seen = await see_step(bus, await find_run(bus, run), "desk")
    assert seen.proof
    assert [(call.name, call.result is not None) for call in seen.tools] == [("odd__act", True), ("odd__large", True)]


async def test_server_that_is_lost_in_a_call_leaves_it_in_doubt_unless_the_flow_says_that_it_may_be_repeated(
    bus: Bus, httpserver: HTTPServer, tmp_path: Path
) -> None:
    model = ScriptedModel(httpserver, says(calls("odd__die", "a")), says("Done."))
    found = with_server(tmp_path)
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, model):
        result = await ended(bus, run)
    assert isinstance(result.outcome, Failed)
    assert (result.outcome.error.type, result.outcome.error.attempts) == ("ToolInDoubt", 1)
    assert noted(tmp_path, "call") == ["die"]
    seen = await see_step(bus, await find_run(bus, run), "desk")
    assert "begun, and nothing is recorded of it: it may have run" in printed(step_page(seen, 120))
    (tmp_path / "well").unlink()
    model.asked.clear()
    found = with_server(tmp_path, idempotent=["die"])
    again = await start_run(bus, found.plan, {"topic": "milk"})
    async with working(bus, found, model):
        assert isinstance((await ended(bus, again)).outcome, Done)
    assert noted(tmp_path, "call") == ["die"] * 3


async def test_server_that_is_not_there_fails_the_step_after_its_attempts(
    bus: Bus, httpserver: HTTPServer, tmp_path: Path
) -> None:
    model = ScriptedModel(httpserver, says("Done."))
    found = with_server(tmp_path, "dies")
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, model):
        result = await ended(bus, run)
    assert isinstance(result.outcome, Failed)
    error = result.outcome.error
    assert (error.type, error.attempts, model.asked) == ("ServerUnreachable", 3, [])
    assert "the MCP server 'odd' cannot be used" in error.message


async def test_worker_starts_no_command_that_only_a_message_names(
    bus: Bus, httpserver: HTTPServer, tmp_path: Path
) -> None:
    """Whoever may publish a handoff may write any flow into it."""
    model = ScriptedModel(httpserver, says("Done."))
    found = with_server(tmp_path)
    evil = ["sh", "-c", f"touch {tmp_path}/evil"]
    other = replace(found.flow, mcp={"odd": Mcp(command=evil)})
    third = replace(found.flow, mcp={"new": Mcp(command=evil)})
    agent = replace(found.flow.agents["desk"], tools=[UsedTool(use="mcp:new")])
    third = replace(third, agents={"desk": agent})
    of_ours = await start_run(bus, Plan(other), {"topic": "tea"})
    of_none = await start_run(bus, Plan(third), {"topic": "tea"})

    async def waits() -> bool:
        return "mcp:new" in str(await facts(bus, of_none))

    async with working(bus, found, model):
        assert isinstance((await ended(bus, of_ours)).outcome, Done)
        await until_so(waits)
    assert len(noted(tmp_path, "start")) == 1
    assert not (tmp_path / "evil").exists()
