"""Tools in a run: killed, stopped or forked in the middle of a call, none that is not idempotent is called twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest_httpserver import HTTPServer

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.store.bus import Bus
from baton_schemas.run.fold import fold
from baton_schemas.wire.facts import Offered, ToolBegun, ToolCall
from baton_schemas.wire.messages import ASKING, FIRST
from baton_schemas.wire.outcomes import Done, Failed

from .clients import client_on, fork_run, start_run
from .model_servers import ScriptedModel, calls, says
from .servers import until
from .timed import until_so
from .tool_runs import FLOW, TOOLS, called, ended, facts, killed, notes, questions, working
from .tool_runs import opened_bus as opened_bus  # a fixture

CALLS = (calls("search", "a", {"query": "x"}), calls("refund", "b", {"order": "7"}))


@pytest.fixture
def model(httpserver: HTTPServer) -> ScriptedModel:
    return ScriptedModel(httpserver, says(*CALLS), says("Done."))


@pytest.fixture
def found(tmp_path: Path) -> FoundFlow:
    (tmp_path / "tools.py").write_text(TOOLS)
    (tmp_path / "f.toml").write_text(FLOW)
    return find_flow(str(tmp_path / "f.toml"))


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

    async def is_asked() -> bool:
        return bool(await questions(bus, run))

    async with working(bus, found, model):
        await until_so(is_asked)
        (question,) = await questions(bus, run)
        answer: dict[str, Any] = {"ran": says_ran} | ({"result": "paid back"} if says_ran else {})
        async with client_on(bus) as client:
            assert await client.run(run).answer(question.step, answer, who="kim")
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert called(found).count("refund 7") == count
    assert model.told[1]["content"] == ("paid back" if says_ran else "refunded 7")
    assert [begun.number for begun in await facts(bus, run, ToolBegun)] == [1] + [2] * (count - 1)
    assert len(model.asked) == 2


async def test_retry_with_somebody_to_ask_asks_about_what_was_in_doubt(
    bus: Bus, found: FoundFlow, model: ScriptedModel, tmp_path: Path
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    await killed(bus, found, model, "called")
    async with working(bus, found, model):
        assert isinstance((await ended(bus, run)).outcome, Failed)
    (tmp_path / "f.toml").write_text(FLOW + 'in_doubt = "editors"\n')
    found = find_flow(found.source)
    async with working(bus, found, model), client_on(bus) as client:
        again = await client.fork(run, plan=found.plan)

        async def is_asked() -> bool:
            return any(question.run == again.id for question in await questions(bus, again.id))

        await until_so(is_asked)
        (question,) = await questions(bus, again.id)
        assert await again.answer(question.step, {"ran": True, "result": "paid back"}, who="kim")
        assert isinstance((await ended(bus, again.id)).outcome, Done)
    assert called(found).count("refund 7") == 1
    assert (len(model.asked), model.told[1]["content"]) == (2, "paid back")


async def test_two_calls_in_doubt_are_asked_about_one_by_one_and_each_gets_its_own_answer(
    bus: Bus, found: FoundFlow, httpserver: HTTPServer, tmp_path: Path
) -> None:
    both = says(calls("refund", "a", {"order": "1"}), calls("refund", "b", {"order": "2"}))
    model = ScriptedModel(httpserver, both, says("Done."))
    (tmp_path / "f.toml").write_text(FLOW + 'in_doubt = "editors"\npark_after_s = 0.1\n')
    (tmp_path / "slow").touch()
    found = find_flow(found.source)
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, model):
        await until(lambda: len(called(found)) == 2)
    (tmp_path / "slow").unlink()

    async def are_asked() -> bool:
        return len(await questions(bus, run)) == 2

    async with working(bus, found, model), client_on(bus) as client:
        await until_so(are_asked)
        for question in await questions(bus, run):
            order = "1" if 'refund(order="1")' in str(question.cause) else "2"
            assert await client.run(run).answer(question.step, {"ran": True, "result": f"paid {order}"}, who="kim")
        assert isinstance((await ended(bus, run)).outcome, Done)
    assert called(found) == ["refund 1", "refund 2"]
    assert [told["content"] for told in model.told] == ["paid 1", "paid 2"]


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


def test_facts_of_tools_are_read_as_they_were_written() -> None:
    written = b'{"type":"tool","request_sha256":"ab","place":0,"name":"search","result":"\\"x\\""}'
    assert msgspec.json.decode(written, type=ToolCall | ToolBegun).name == "search"
