"""Teams from Python: flows played inside this process, what becomes of their runs, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baton_actors import Baton, Fail, Flow, Run, RunCancelled, RunFailed, Team
from baton_actors.agents.loading import SameName
from baton_actors.errors import BadHandler
from baton_actors.team.errors import NoFlowGiven, NotPlayed, OnlyInProcess, TeamClosed
from baton_bus import Settings, connect
from baton_bus.errors import NoServerFound, UnexpectedOutput
from baton_schemas.errors import FlowError, InputError

from .commands import WORDS, baton, descendants, environ
from .servers import WAIT_S, NatsServer, until


def adding() -> Flow:
    """A flow of functions: adds up the lengths of words."""
    flow = Flow("adding", input={"words": list[str]})

    @flow.step(each="words")
    def measure(item: str) -> int:
        return len(item)

    @flow.step(after="measure")
    async def add(measure: list[int]) -> int:
        return sum(measure)

    return flow


class Gate:
    """A flow whose one step waits until it is let go, and says how it went."""

    def __init__(self) -> None:
        self.entered, self.opens, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.flow = Flow("gate")
        self.flow.step(self.wait)

    async def wait(self) -> str:
        self.entered.set()
        try:
            await self.opens.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "through"


@pytest.fixture
async def team() -> AsyncIterator[Team]:
    """Opened by one task and closed by another, as pytest does with fixtures."""
    async with Baton.local(adding(), data_dir=None) as team:
        yield team


async def test_three_lines_run_a_flow_file() -> None:
    async with Baton.local(WORDS, data_dir=None) as team:
        result = await team.run(text="one two\nthree")
    assert result == "3 words in 2 lines\n"


async def test_output_is_decoded_into_the_type_that_is_asked_for(team: Team) -> None:
    number: int = await team.run(words=["a", "bcd"], returns=int)
    assert number == 4
    with pytest.raises(UnexpectedOutput, match=r"is no list\[str\]: Expected `array`, got `int`"):
        await team.run(words=["a"], returns=list[str])


async def test_type_that_cannot_be_decoded_is_told_before_anybody_waits(team: Team) -> None:
    run = await team.start(words=["a"])
    with pytest.raises(TypeError):
        await run.result(returns=type("Odd", (), {"__slots__": ()}) | dict[int, list[object]] | dict[str, str])
    assert await run.result(WAIT_S) == 1


async def test_hundreds_run_at_once(team: Team) -> None:
    results = await asyncio.gather(*(team.run(words=["a" * index]) for index in range(300)))
    assert results == list(range(300))


async def test_run_is_found_by_its_id_and_listed(team: Team) -> None:
    run = await team.start(words=["ab"], run_id="ours")
    assert isinstance(run, Run)
    assert await team.get("ours").result(WAIT_S) == 2
    assert [(head.run, head.flow, head.status) for head in await team.runs()] == [("ours", "adding", "done")]


async def test_input_whose_name_the_call_itself_has_is_given_as_a_table() -> None:
    flow = Flow("named", input={"run_id": str})
    flow.step(lambda run_id: run_id, name="echo")
    async with Baton.local(flow, data_dir=None) as team:
        assert await team.run(input={"run_id": "theirs"}) == "theirs"


async def test_wrong_input_and_unknown_flows_are_told_before_anything_runs(team: Team) -> None:
    with pytest.raises(InputError, match="Did you mean 'words'"):
        await team.run(wrods=["a"])
    with pytest.raises(NotPlayed, match="does not play 'article'"):
        await team.run("article", topic="Tides")
    with pytest.raises(NotPlayed, match="does not play 'other'"):
        await team.run("other")
    assert await team.runs() == []


async def test_team_of_several_flows_is_told_which() -> None:
    gate = Gate()
    async with Baton.local(adding(), gate.flow, data_dir=None) as team:
        with pytest.raises(NoFlowGiven, match=r"plays 'adding', 'gate': say which to run, as in team.run\('adding'"):
            await team.run(words=[])
        gate.opens.set()
        assert await team.run("gate") == "through"
        assert await team.run("adding", words=["a"]) == 1
    with pytest.raises(SameName, match="two flows are called 'gate'"):
        Baton.local(gate.flow, gate.flow)
    with pytest.raises(NoFlowGiven):
        Baton.local()


async def test_failure_is_raised_with_its_reason() -> None:
    flow = Flow("fails")

    @flow.step
    def refuse() -> None:
        raise Fail("no such customer")

    async with Baton.local(flow, data_dir=None) as team:
        with pytest.raises(RunFailed, match="step 'refuse': no such customer") as caught:
            await team.run()
        assert caught.value.result.status == "failed"


async def test_run_goes_on_when_nobody_waits_for_it_any_more() -> None:
    gate = Gate()
    async with Baton.local(gate.flow, data_dir=None) as team:
        waiting = asyncio.create_task(team.run(run_id="left"))
        await gate.entered.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(TimeoutError):
            await team.run(run_id="left", timeout_s=0.01)
        gate.opens.set()
        assert await team.get("left").result(WAIT_S) == "through"
        assert not gate.cancelled.is_set()


@pytest.mark.parametrize("gives_up", ["cancelled", "out of time"])
async def test_run_ends_with_its_caller_where_that_is_asked_for(gives_up: str) -> None:
    gate = Gate()
    async with Baton.local(gate.flow, data_dir=None) as team:
        timeout_s = 0.05 if gives_up == "out of time" else None
        waiting = asyncio.create_task(team.run(run_id="given-up", timeout_s=timeout_s, cancel_with_caller=True))
        await gate.entered.wait()
        if gives_up == "cancelled":
            waiting.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await waiting
        with pytest.raises(RunCancelled, match="its caller"):
            await team.get("given-up").result(WAIT_S)
        await asyncio.wait_for(gate.cancelled.wait(), WAIT_S)


async def test_what_has_not_ended_goes_on_when_the_flow_is_played_again(server: NatsServer, namespace: str) -> None:
    gate = Gate()
    async with Baton.local(gate.flow, url=server.url, namespace=namespace, grace_s=0.3) as team:
        run = await team.start()
        await gate.entered.wait()
    gate.opens.set()
    async with Baton.local(gate.flow, url=server.url, namespace=namespace) as team:
        assert await team.get(run.id).result(WAIT_S) == "through"
        await team.client.bus.js.delete_stream(namespace)


async def test_nothing_is_left_when_a_team_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    tasks, threads, before = asyncio.all_tasks(), set(threading.enumerate()), descendants(os.getpid())
    async with Baton.local(adding(), data_dir=None) as team:
        assert await team.run(words=["a"]) == 1
        started = descendants(os.getpid())
        assert started
    await asyncio.get_running_loop().shutdown_default_executor()  # asyncio's own threads, which go with the loop
    assert asyncio.all_tasks() == tasks
    await until(lambda: set(threading.enumerate()) <= threads)
    assert not started & descendants(os.getpid()) - before
    assert capfd.readouterr() == ("", "")
    with pytest.raises(TeamClosed):
        await team.run(words=["a"])


async def test_opening_that_fails_leaves_nothing_and_says_why() -> None:
    tasks = asyncio.all_tasks()
    flow = Flow("missing")
    flow.step("no_such_module:name")
    with pytest.raises(Exception, match="No module named 'no_such_module'"):
        async with Baton.local(flow, data_dir=None):
            pass
    assert asyncio.all_tasks() == tasks


async def test_server_of_a_data_directory_is_shared_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATON_URL", raising=False)
    monkeypatch.setenv("BATON_DATA", str(tmp_path))
    with pytest.raises(NoServerFound, match=f"nor does one run in {tmp_path}.*`baton up FLOW`"):
        async with connect():
            pass
    gate = Gate()
    async with Baton.local(adding()) as team:
        await team.run(words=["a"], run_id="first")
        async with Baton.local(gate.flow) as beside, Baton.connect() as other, connect() as client:
            assert [head.run for head in await beside.runs()] == ["first"]
            assert [head.run for head in await client.runs()] == ["first"]
            assert await other.run("adding", words=["ab"]) == 2  # by its name: a task, which the team there takes
        assert "first" in (await asyncio.to_thread(baton, "runs", cwd=tmp_path, BATON_DATA=str(tmp_path))).stdout


async def test_log_may_be_on_a_server_that_is_named(server: NatsServer, namespace: str) -> None:
    async with Baton.local(adding(), url=server.url, namespace=namespace) as team:
        await team.run(words=["a"], run_id="there")
        async with Baton.connect(server.url, WORDS, namespace=namespace) as other:
            assert await other.get("there").result(WAIT_S) == 1
            waits = await other.start(text="a")  # the one flow that it was given
            assert (await waits.cancel()).flow == "words"
        await team.client.bus.js.delete_stream(namespace)


async def test_functions_are_refused_where_another_process_would_have_to_play_them(
    server: NatsServer, namespace: str
) -> None:
    flow = adding()
    with pytest.raises(OnlyInProcess, match="'measure', 'add' are functions of this program"):
        Baton.connect(server.url, flow)
    async with Baton.connect(settings=Settings(url=server.url, namespace=namespace)) as team:
        with pytest.raises(OnlyInProcess, match=r"Play it here with Baton\.local\(flow\)"):
            await team.run(flow, words=[])
        await team.client.bus.js.delete_stream(namespace)


def test_names_are_imported_when_they_are_asked_for() -> None:
    script = (
        "import sys; import baton_actors as b; first = set(sys.modules); b.Baton, b.Flow, b.actor;"
        "print({'msgspec', 'nats', 'anthropic', 'rich'} & first, {'anthropic', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environ(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() set()"


def newsroom() -> Flow:
    """A flow whose one step is done by a model that may ask a model and a handler."""
    flow = Flow("newsroom", input={"topic": str})
    flow.ask("chief", 'Write on "{topic}".', workers=["researcher", "count"], max_rounds=5)
    flow.agent(
        name="researcher",
        prompt="Name three facts on: {question}",
        input={"question": {"type": str, "description": "one question"}},
        description="Answers one question.",
        max_tokens=200,
    )

    @flow.agent(input={"notes": "list[str]", "deep": "bool?"}, description="Counts words.", timeout_s=5)
    def count(notes: list[str], deep: bool | None) -> dict[str, int]:
        return {"words": sum(len(note.split()) for note in notes)}

    assert count(["a b"], None) == {"words": 2}
    return flow


async def test_flow_in_python_has_agents_that_are_only_asked(namespace: str) -> None:
    async with Baton.local(newsroom(), data_dir=None) as team:
        run = await team.start(topic="Tea")
        answer = await run.result(timeout_s=WAIT_S)
        state = await run.state()
    assert answer.startswith('{"words":')
    assert state.rehearsed
    assert {name: step.status for name, step in state.steps.items() if name == "chief"} == {"chief": "done"}


async def test_orchestrator_that_asks_itself_ends_where_it_may_go_no_deeper(namespace: str) -> None:
    flow = Flow("solving", input={"question": str})
    prompt = "Have this solved in parts, and answer it: {question}"
    flow.ask("solve", prompt, workers="solve", input={"question": str}, max_depth=3)
    async with Baton.local(flow, data_dir=None) as team:
        run = await team.start(question="Why do ships wait?")
        answer = await run.result(timeout_s=WAIT_S)
        asked = [entry for entry in [entry async for entry in run.events()] if ".handoff." in entry.subject]
    assert "at a depth of 4: max_depth of [agents.solve] is 3" in answer
    assert len(asked) == 1 + 3


def test_agents_of_a_flow_in_python_are_checked_as_those_of_a_file() -> None:
    flow = newsroom()
    with pytest.raises(FlowError, match="a second agent of this name"):
        flow.agent(name="researcher", prompt="Go.")
    with pytest.raises(FlowError, match="a second step of this name"):
        flow.agent(name="chief", prompt="Go.")
    flow.agent(lambda question: question, name="other", input={"topic": str})
    with pytest.raises(FlowError, match="which no step uses"):
        flow.check()
    flow.ask("boss", "Go on from {chief}.", after="chief", workers="other")
    with pytest.raises(BadHandler, match="parameter 'question' is no input of agent 'other'"):
        flow.check()
