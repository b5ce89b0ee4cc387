"""What waits for a person: failed steps and rejected messages are found in any log, the newest first."""

from __future__ import annotations

import pytest

from baton_actors.errors import Fail
from baton_bus.client import runs as runs_module
from baton_bus.client.dead import dead_steps, rejected_messages
from baton_schemas.flow.flow import Field, Step

from .clients import cancel_run, fork_run
from .servers import NatsServer
from .team import Team, flow_of, team

FLOW = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, {"text": Field()})


async def a(text: str) -> str:
    return text


async def b(a: str) -> str:
    if a != "good":
        raise Fail(f"{a} is broken")
    return a


HANDLERS = {"a": a, "b": b}


async def run_each(t: Team, *texts: str) -> None:
    """Run each text to its end, the text as the run's id too."""
    for text in texts:
        await t.result(await t.submit(text, text=text))


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a log of some messages one that takes several looks back."""
    monkeypatch.setattr(runs_module, "_WINDOW", 2)


async def test_failed_steps_come_from_the_newest_and_no_more_than_asked_for(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        assert await dead_steps(t.bus, 9) == []
        await run_each(t, "one", "good", "two", "three")
        dead = await dead_steps(t.bus, 9)
        assert [step.run for step in dead] == ["three", "two", "one"]
        assert [step.run for step in await dead_steps(t.bus, 2)] == ["three", "two"]
        newest = dead[0]
        assert (newest.flow, newest.error.step, newest.error.message) == ("flow", "b", "three is broken")
        assert (newest.began, newest.forked_as) == (True, "")
        assert (newest.cause.step, newest.cause.message) == ("b", "three is broken")
        assert newest.at == (await t.state("three")).ended_at


async def test_cancelled_runs_are_not_dead(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS, start=False) as t:
        await cancel_run(t.client, await t.submit(text="x"))
        assert await dead_steps(t.bus, 9) == []


async def test_failed_run_names_the_latest_that_goes_on_from_it(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        await run_each(t, "one", "two")
        for new_run in ("again", "and-again"):
            await t.result(await fork_run(t.client, "one", new_run=new_run))
        dead = await dead_steps(t.bus, 9)
        assert {step.run: step.forked_as for step in dead} == {
            "and-again": "",
            "again": "",
            "two": "",
            "one": "and-again",
        }


async def test_rejected_messages_say_where_their_bytes_are_and_why(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        assert await rejected_messages(t.bus, 9) == []
        subjects = [f"{namespace}.handoff.flow--a.run-{number}.a.start" for number in range(3)]
        seqs = [await t.bus.publisher.append(subject, b"\xff") for subject in subjects]
        await t.until_settled("handoff", "a")
        await run_each(t, "good")
        rejected = await rejected_messages(t.bus, 2)
        assert [(each.seq, each.subject, each.run) for each in rejected] == [
            (seqs[2], subjects[2], "run-2"),
            (seqs[1], subjects[1], "run-1"),
        ]
        assert "invalid" in rejected[0].reason.lower()
        await t.bus.js.delete_msg(namespace, seqs[2])
        assert (await rejected_messages(t.bus, 1))[0].subject == subjects[2]  # the note has it
