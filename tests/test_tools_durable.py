"""Tools in a run: killed, stopped or forked in the middle of a call, none that is not idempotent is called twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.cli.show.step_page import step_page
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.flow import Mcp, UsedTool
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.wire.facts import Offered, ToolBegun, ToolCall
from baton_schemas.wire.messages import ASKING, FIRST, Asked, Handoff, Note, Result
from baton_schemas.wire.outcomes import Done, Failed

from .clients import client_on, fork_run, result_of, start_run
from .mcp_servers import noted, odd_settings
from .model_servers import ScriptedModel, calls, says
from .servers import WAIT_S, NatsServer, is_gone
from .test_nested_views import printed
from .timed import until_so

FLOW = """
name = "f"
input = { topic = "str" }
steps.desk = {}

[agents.desk]
model = "synthesis"
prompt = "About {topic}."
tools = ["./tools.py:search", "./tools.py:refund"]
tool_timeout_s = 0.5
retry_base_s = 0.01
"""
TOOLS = '''
import asyncio
from pathlib import Path
from baton_actors import tool

HERE = Path(__file__).parent

def note(what):
    with open(HERE / "calls", "a") as file:
        file.write(what + "\\n")

@tool(idempotent=True)
def search(query: str) -> list[str]:
    """Search."""
    note(f"search {query}")
    return [query]

@tool
async def refund(order: str) -> str:
    """Pay back."""
    note(f"refund {order}")
    if (HERE / "slow").exists():
        await asyncio.sleep(60)
    return f"refunded {order}"
'''
DYING = """
import os, signal, sys
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_actors.steps.tool_records import ToolRecords
from baton_bus import Settings

_, place, flow, url, namespace = sys.argv

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def begin_and_die(self, begun, begin=ToolRecords.begin):
    stored = await begin(self, begun)
    die()

async def record_and_die(self, call, record=ToolRecords.record):
    if call.name == "refund" and place == "called":
        die()
    stored = await record(self, call)
    if call.name == "refund" and place == "recorded":
        die()
    return stored

if place == "begun":
    ToolRecords.begin = begin_and_die
ToolRecords.record = record_and_die
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
worker_main(WorkerSpec(flow=flow, agent="desk", settings=settings, logs=LogSettings()))
"""
CALLS = (calls("search", "a", {"query": "x"}), calls("refund", "b", {"order": "7"}))


@pytest.fixture
def model(httpserver: HTTPServer) -> ScriptedModel:
    return ScriptedModel(httpserver, says(*CALLS), says("Done."))


@pytest.fixture
def found(tmp_path: Path) -> FoundFlow:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "f.toml").write_text(FLOW)
    return find_flow(str(tmp_path / "f.toml"))


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@contextlib.asynccontextmanager
async def working(bus: Bus, found: FoundFlow, model: ScriptedModel, grace_s: float = 0.05) -> AsyncIterator[None]:
    async with (
        open_bus(bus.settings) as own,
        Models(model.settings) as models,
        hosting(Engine(own), found, ["desk"], models=models, grace_s=grace_s),
    ):
        yield


def called(found: FoundFlow) -> list[str]:
    path = found.folder / "calls"
    return sorted(path.read_text().split("\n")[:-1]) if path.exists() else []


async def facts(bus: Bus, run: str, kind: type[Any] = object) -> list[Any]:
    notes = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
    return [note.fact for note in notes if isinstance(note.fact, kind)]


async def ended(bus: Bus, run: str) -> Result:
    return await result_of(bus, run, timeout_s=WAIT_S)


async def killed(bus: Bus, found: FoundFlow, model: ScriptedModel, place: str) -> None:
    """Have a worker that is killed at a place in the middle of a call."""
    environ = os.environ | {"ANTHROPIC_BASE_URL": model.settings.base_url, "ANTHROPIC_API_KEY": "test-key"}
    command = [sys.executable, "-c", DYING, place, found.source, bus.settings.url, bus.settings.namespace]
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    assert await process.wait() == -signal.SIGKILL


async def test_calls_are_facts_and_the_step_is_shown_with_them_and_its_proof(
    bus: Bus, found: FoundFlow, model: ScriptedModel
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, model):
        result = await ended(bus, run)
    assert isinstance(result.outcome, Done)
    assert called(found) == ["refund 7", "search x"]
    by_name = {call.name: call for call in await facts(bus, run, ToolCall)}
    assert bytes(by_name["search"].result) == b'"[\\"x\\"]"'
    assert (by_name["refund"].place, by_name["refund"].attempt, by_name["refund"].is_error) == (1, 1, False)
    assert [begun.name for begun in await facts(bus, run, ToolBegun)] == ["refund"]
    versions = {type(note.fact).__name__: note.v for note in await notes(bus, run)}
    assert versions == {"Offered": ASKING, "ModelCall": FIRST, "ToolBegun": ASKING, "ToolCall": ASKING}
    seen = await see_step(bus, await find_run(bus, run), "desk")
    assert seen.proof
    assert seen.asked is not None
    assert [each.name for each in seen.asked.tools] == ["search", "refund"]


async def notes(bus: Bus, run: str) -> list[Note]:
    return [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]


async def test_tool_whose_result_is_recorded_is_not_called_again_after_a_kill(
    bus: Bus, found: FoundFlow, model: ScriptedModel
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    await killed(bus, found, model, "recorded")
    async with working(bus, found, model):
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert called(found).count("refund 7") == 1
    assert len(model.asked) == 2
    assert model.told[1]["content"] == "refunded 7"


@pytest.mark.parametrize(("place", "ran"), [("begun", 0), ("called", 1)])
async def test_tool_that_may_have_run_fails_the_step_for_good_and_a_retry_does_not_call_it_either(
    place: str, ran: int, bus: Bus, found: FoundFlow, model: ScriptedModel
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    await killed(bus, found, model, place)
    async with working(bus, found, model):
        result = await ended(bus, run)
        assert isinstance(result.outcome, Failed)
        error = result.outcome.error
        assert (error.type, error.attempts) == ("ToolInDoubt", 1)
        assert 'refund(order="7")' in error.message
        again = await fork_run(bus, run)
        assert isinstance((await ended(bus, again)).outcome, Failed)
    assert called(found).count("refund 7") == ran
    assert len(model.asked) == 1


@pytest.mark.parametrize(("says_ran", "count"), [(True, 1), (False, 2)])
async def test_person_says_whether_it_ran_while_nothing_is_held_and_the_run_goes_on(
    says_ran: bool, count: int, bus: Bus, found: FoundFlow, model: ScriptedModel, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(FLOW + 'in_doubt = "editors"\n')
    found = find_flow(found.source)
    run = await start_run(bus, found.plan, {"topic": "tea"})
    await killed(bus, found, model, "called")

    async def questions() -> list[Handoff]:
        asked = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Handoff)]
        return [each for each in asked if isinstance(each.cause, Asked) and each.cause.kind == "person"]

    async def is_asked() -> bool:
        return bool(await questions())

    async with working(bus, found, model):
        await until_so(is_asked)
        (question,) = await questions()
        answer: dict[str, Any] = {"ran": says_ran} | ({"result": "paid back"} if says_ran else {})
        async with client_on(bus) as client:
            assert await client.run(run).answer(question.step, answer, who="kim")
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert called(found).count("refund 7") == count
    assert model.told[1]["content"] == ("paid back" if says_ran else "refunded 7")
    assert [begun.number for begun in await facts(bus, run, ToolBegun)] == [1] + [2] * (count - 1)
    assert len(model.asked) == 2


async def test_worker_that_stops_in_the_middle_of_a_call_leaves_it_in_doubt(
    bus: Bus, found: FoundFlow, model: ScriptedModel, tmp_path: Path
) -> None:
    (tmp_path / "slow").touch()
    (tmp_path / "f.toml").write_text(FLOW.replace("tool_timeout_s = 0.5", "tool_timeout_s = 2"))
    found = find_flow(found.source)
    run = await start_run(bus, found.plan, {"topic": "tea"})

    async def is_called() -> bool:
        return "refund 7" in called(found)

    async with working(bus, found, model):
        await until_so(is_called)
    (tmp_path / "slow").unlink()
    async with working(bus, found, model):
        result = await ended(bus, run)
    assert isinstance(result.outcome, Failed)
    assert result.outcome.error.type == "ToolInDoubt"
    assert called(found).count("refund 7") == 1


async def test_what_is_offered_is_recorded_once_and_goes_on_when_the_code_has_changed(
    bus: Bus, found: FoundFlow, model: ScriptedModel
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    await killed(bus, found, model, "recorded")
    (found.folder / "tools.py").write_text(TOOLS.replace('"""Search."""', '"""Search otherwise."""'))
    async with working(bus, found, model):
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert len(await facts(bus, run, Offered)) == 1
    assert {tool["description"] for body in model.asked for tool in body["tools"]} == {"Search.", "Pay back."}


async def test_worker_that_lacks_a_tool_gives_the_step_to_one_that_has_it(
    bus: Bus, found: FoundFlow, model: ScriptedModel, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "f.toml").write_text(FLOW.replace('"./tools.py:search", ', "").replace("./tools.py", "./more.py"))
    (other / "more.py").write_text(TOOLS)
    lacking = find_flow(str(other / "f.toml"))
    run = await start_run(bus, found.plan, {"topic": "tea"})

    async def waits() -> bool:
        return "./tools.py:search" in str(await facts(bus, run))

    async with working(bus, lacking, model):
        await until_so(waits)
    async with working(bus, found, model):
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert fold(await bus.log.run(run)).steps["desk"].attempts == 1


# ---- MCP servers ---------------------------------------------------------------------------------


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


def test_facts_of_tools_are_read_as_they_were_written() -> None:
    written = b'{"type":"tool","request_sha256":"ab","place":0,"name":"search","result":"\\"x\\""}'
    assert msgspec.json.decode(written, type=ToolCall | ToolBegun).name == "search"
