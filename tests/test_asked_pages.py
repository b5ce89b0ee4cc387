"""Pages, graphs and forks of runs whose steps asked: made by real runs, as their users see them."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from baton_actors import Context
from baton_actors.agents.asks import AskFailed
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.cli.show.progress import Progress
from baton_actors.cli.show.step_page import step_page
from baton_actors.errors import Fail, Retry
from baton_bus.client.left import left_alone
from baton_bus.client.runs import find_run, read_last, read_run
from baton_bus.client.seen import see_step
from baton_bus.doctor.waits import read_waits
from baton_schemas.errors import UnknownStep
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.run.changes import why_changed
from baton_schemas.run.fold import fold
from baton_schemas.run.fork import reused
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.refs import key_of_child
from baton_schemas.show.step import StepSeen
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Waits, key_of
from baton_schemas.wire.messages import Handoff, Note

from .commands import FLOWS, WAIT_S, baton, here, start
from .servers import NatsServer, until
from .team import Team, flow_of, team, value_of
from .timed import TEXT, process, timed

ASKS = str(FLOWS / "asks.toml")
RUN = "asked"


def text_of(shown: object, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False, highlight=False).print(shown)
    return file.getvalue()


# ---- a run with models that are rehearsed -----------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which a run asked 30 researchers, and checkers nested 8 deep of whom two failed."""
    home = tmp_path_factory.mktemp("home")
    ended = baton("run", ASKS, "topic=tea", "questions=30", "fails=2", "deep=8", "--run", RUN, cwd=home)
    assert ended.returncode == 0, ended.stderr
    (home / "progress").write_text(ended.stderr)
    command = start("up", ASKS, "--json", cwd=home, stderr=subprocess.DEVNULL)  # its server answers what is asked next
    assert command.stdout is not None
    try:
        assert command.stdout.readline()
        yield home
    finally:
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0


def test_progress_counts_what_is_asked_and_ends_with_who_asked(home: Path) -> None:
    lines = [" ".join(line.split()) for line in (home / "progress").read_text().splitlines()]
    counts = [line for line in lines if line.startswith("✓ researcher 30/30 done in ")]
    assert len(counts) == 1
    assert len([line for line in lines if "researcher" in line]) <= 8
    assert [line.split(" done")[0] for line in lines if line.startswith("✓ checker")] == [
        f"✓ checker #{number}" for number in (10, 9, 8, 7, 6, 5, 4, 3)
    ]
    order = [lines.index(next(line for line in lines if line.startswith(f"✓ {name}"))) for name in ("lead", "writer")]
    assert lines.index(counts[0]) < order[0] < order[1]


def test_run_has_rows_for_what_was_asked(home: Path) -> None:
    shown = here("show", RUN, cwd=home).stdout
    lines = shown.splitlines()
    assert max(map(len, lines[: lines.index("")])) <= 80
    assert " ✓ researcher ×30 " in shown  # noqa: RUF001
    assert "         ✓ researcher #31  " in shown
    assert "✗ checker #2  Fail: no check of tea at asks.py:34 in checker" in shown
    assert f"  baton show {RUN} 'checker#1'" in lines
    assert "2 of 2 steps · 42 asked" in shown
    facts = json.loads(here("show", RUN, "--json", cwd=home).stdout)
    row = next(row for row in facts["steps"] if row["step"] == "checker#10")
    assert (row["depth"], row["asker"], row["asked"][:7]) == (8, "checker#9", "deep=1,")
    assert [row["step"] for row in facts["steps"] if not row.get("depth")] == ["lead", "writer"]


def test_page_of_a_child_has_its_prompt_as_it_was_sent(home: Path) -> None:
    shown = here("show", RUN, "researcher#3", cwd=home).stdout
    assert shown.splitlines()[0] == f"✓ researcher #3  asks {RUN}"
    assert "asked by lead, agent researcher, claude-haiku-4-5, at most 100 tokens" in shown
    assert "prompt  as it was sent: its hash is the recorded one" in shown
    assert "Answer question 3 about tea in one sentence." in shown
    facts = json.loads(here("show", RUN, "researcher #3", "--json", cwd=home).stdout)
    assert (facts["proved"], facts["label"], facts["asked_by"], facts["kind"]) == (
        True,
        "researcher #3",
        "lead",
        "agent",
    )
    assert facts["values"] == {"question": "question 3", "topic": "tea"}
    by_token = json.loads(here("show", RUN, facts["step"], "--json", cwd=home).stdout)
    assert by_token == facts
    deep = json.loads(here("show", RUN, "researcher#31", "--json", cwd=home).stdout)
    assert (deep["proved"], deep["asked_by"]) == (True, "checker #10")


def test_page_of_an_asker_has_what_it_asked_and_recorded(home: Path) -> None:
    shown = here("show", RUN, "lead", cwd=home).stdout
    assert "asked  34: 32 done, 2 failed" in shown
    assert "✗ checker #1 " in shown
    assert "and 4 more" in shown
    assert f"baton show {RUN} 'checker#1'" in shown
    assert "recorded\n  began  " in shown
    facts = json.loads(here("show", RUN, "lead", "--json", cwd=home).stdout)
    assert len(facts["children"]) == 34
    assert [each["name"] for each in facts["recorded"]] == ["began"]
    failed = json.loads(here("show", RUN, "checker#2", "--json", cwd=home).stdout)
    assert (failed["status"], failed["error"]["type"], failed["children"]) == ("failed", "Fail", [])
    sleep = here("show", RUN, "sleep#1", cwd=home).stdout
    assert "asked by lead, the clock" in sleep


def test_name_that_many_have_says_how_to_name_one(home: Path) -> None:
    told = here("show", RUN, "checker", cwd=home)
    assert told.returncode == 2
    assert "'checker' was asked 10 times: checker#1 to checker#10." in told.stderr


def test_replay_and_log_have_children_in_words(home: Path) -> None:
    file = home / "run.jsonl"
    file.write_text(here("export", RUN, cwd=home).stdout)
    printed = here("replay", str(file), cwd=home).stdout
    assert "asked with question=question 1, topic=tea" in printed
    assert "lead done (asked 42/42)  writer done" in printed
    assert "researcher put out  " in printed
    half = json.loads(here("replay", str(file), "--until", "20", "--json", cwd=home).stdout)
    assert [row["step"] for row in half["state"]["steps"]] == ["lead", "researcher", "writer"]
    assert half["brought"][0]["what"] == "reads question"


def test_fork_after_a_child_says_which_step_to_name(home: Path) -> None:
    told = here("fork", RUN, "--after", "checker#4", cwd=home)
    assert told.returncode == 2
    assert "'checker#4', which lead asked for" in told.stderr
    assert f"`baton fork {RUN} --after lead`" in told.stderr
    assert "has not failed" not in told.stderr
    retried = here("retry", RUN, cwd=home).stderr
    assert "is done, there is nothing to retry" in retried


def test_graph_and_check_have_who_may_be_asked(tmp_path: Path) -> None:
    drawn = here("graph", ASKS, cwd=tmp_path).stdout
    assert "│  lead │┄ asks researcher\n" in drawn
    assert "│       │   ┄ asks itself\n" in drawn
    mermaid = here("graph", ASKS, "--mermaid", cwd=tmp_path).stdout
    assert "  s0 -.->|asks| a1\n" in mermaid
    assert "  a2 -.->|asks| a2\n" in mermaid
    facts = json.loads(here("graph", ASKS, "--json", cwd=tmp_path).stdout)
    assert facts["steps"][0]["workers"] == ["researcher", "checker"]
    assert [each["agent"] for each in facts["asked"]] == ["researcher", "checker"]
    assert "may ask researcher, checker" in here("check", ASKS, cwd=tmp_path, COLUMNS="200").stdout


def test_drawing_of_many_that_may_be_asked_ends(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(25)]
    agents = {"lead": Agent(handler="m:f", workers=names)}
    agents |= {name: Agent(handler="m:f", workers=names[place + 1 :]) for place, name in enumerate(names)}
    plan = check_flow(Flow(name="flow", agents=agents, steps={"lead": Step(agent="lead")}))
    assert len(draw(plan, 200)) == 14
    assert len(draw(plan, 10)) == 13
    assert mermaid_of(plan).count("-.->") == sum(range(26))


# ---- runs of teams -----------------------------------------------------------------------------------

TOPIC = {"topic": Field()}


def asking(**boss: Any) -> Flow:
    agents: dict[str, Any] = {"boss": {"workers": ["helper"], **boss}, "helper": {"input": TOPIC}}
    return flow_of({"lead": Step(agent="boss")}, TEXT, agents)


async def seen(t: Team, run: str, step: str) -> StepSeen:
    return await see_step(t.bus, await find_run(t.bus, run), step)


async def helper(topic: str) -> str:
    return topic


async def test_parked_step_and_its_child_say_what_they_wait_for(server: NatsServer, namespace: str) -> None:
    let = asyncio.Event()

    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async def slow(topic: str) -> str:
        await let.wait()
        return topic

    flow = asking(park_after_s=0.1)
    async with timed(server, namespace, flow, {"boss": boss, "helper": slow}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        assert (await seen(t, run, "lead")).says == "waits for helper #1; nobody holds it until then"
        assert (await seen(t, run, "helper")).says.startswith("was handed to flow--helper ")
        let.set()
        await t.result(run)
        assert (await seen(t, run, "lead")).children[0].status == "done"


async def test_doctor_takes_no_parked_step_for_one_that_waits_for_a_worker(server: NatsServer, namespace: str) -> None:
    let = asyncio.Event()

    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async def slow(topic: str) -> str:
        await let.wait()
        return topic

    async with timed(server, namespace, asking(park_after_s=0.1), {"boss": boss, "helper": slow}) as t:
        waited = Note(run="r1", step="lead", fact=Waits(what="handler", reason="a worker that has 'team:boss'"))
        await t.bus.create(t.bus.subjects.note("flow--boss", "r1", "lead", key_of(waited.fact)), encode(waited))
        run = await t.submit("r1", text="a")
        assert [wait.what for wait in await read_waits(t.bus)] in ([], ["a worker that has 'team:boss'"])
        await t.until_settled("handoff", "boss")
        assert (await t.state(run)).steps["lead"].waits == "an answer of helper"
        assert await read_waits(t.bus) == ()
        let.set()
        await t.result(run)


async def test_what_no_worker_does_is_read_with_the_run(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        await context.sleep(0.05)
        return str(await context.ask("helper", topic=text))

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        head = await find_run(t.bus, run)
        assert fold(await read_last(t.bus, head)).steps == fold(await read_run(t.bus, head)).steps
        page = text_of(step_page(await seen(t, run, "lead")))
        assert re.search(r"sleep #1   done in \d+ ms +\d+ ms ", page)


async def test_what_is_not_asked_now_is_said(server: NatsServer, namespace: str) -> None:
    topics = iter(["old", "new"])

    async def boss(text: str, context: Context) -> str:
        topic = next(topics)
        found = str(await context.ask("helper", topic=topic))
        if topic == "old":
            raise Retry("again")
        return found

    async with team(server.url, namespace, asking(max_attempts=2), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "new"
        assert "asked before, and not now: 1" in text_of(step_page(await seen(t, run, "lead")))


async def test_nobody_is_said_to_play_an_agent_that_is_only_asked(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async with timed(server, namespace, asking(), {"boss": boss, "helper": helper}, start=False) as t:
        async with process(t, "boss"):
            run = await t.submit(text="a")
            async with aclosing(t.bus.log.follow([t.bus.subjects.run(run, kind="handoff")])) as handoffs:
                async for entry in handoffs:
                    if isinstance(entry.message, Handoff) and key_of_child(entry.message.step):
                        break
            left = await left_alone(t.bus, t.plan, await t.state(run))
            assert [each.actor for each in left] == ["flow--helper"]
        async with process(t):
            assert value_of((await t.result(run)).outcome) == "a"


async def test_children_are_no_steps_of_the_flow_to_what_goes_on_from_a_run(server: NatsServer, namespace: str) -> None:
    async def lead(text: str, topic: str, context: Context) -> str:
        return topic if topic else str(await context.ask("lead", topic=text))

    agents: dict[str, Any] = {"lead": {"workers": ["lead"], "input": TOPIC, "reads": ["text"]}}
    steps = {"lead": Step(agent="lead"), "last": Step(agent="last", after=["lead"])}
    flow = flow_of(steps, TEXT, agents)

    async def first(context: Context, text: str = "", topic: str = "") -> str:
        return await lead(text, topic, context)

    async def last(lead: str) -> str:
        return lead + "!"

    async with team(server.url, namespace, flow, {"lead": first, "last": last}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "a!"
        entries = await t.log(run)
        logged = [Logged(entry.seq, "", entry.message) for entry in entries if entry.message is not None]
        assert reused(t.plan, logged) == {"lead"}
        past = past_of(logged)
        assert past is not None
        assert past.outcomes.keys() == {"lead", "last"}
        forked = await t.client.fork(run)
        assert value_of((await t.result(forked.id)).outcome) == "a!"
        assert [name for name in (await t.state(forked.id)).steps if key_of_child(name)] == []


async def test_reused_child_is_seen_where_it_was_done(server: NatsServer, namespace: str) -> None:
    is_good = False

    async def boss(text: str, context: Context) -> list[str]:
        asks = ["bad", "other"] if not is_good else ["other", "bad"]
        return list(await context.gather(*[context.ask("helper", topic=topic) for topic in asks]))

    async def picky(topic: str) -> str:
        if topic == "bad" and not is_good:
            raise Fail(topic)
        return topic

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": picky}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        await t.until_settled("handoff", "helper")
        is_good = True
        forked = (await t.client.fork(run)).id
        assert value_of((await t.result(forked)).outcome) == ["other", "bad"]
        children = (await seen(t, forked, "lead")).children
        assert [(child.label, child.status, child.reused) for child in children] == [
            ("helper #1", "done", True),
            ("helper #2", "done", False),
        ]
        assert "done, reused" in text_of(step_page(await seen(t, forked, "lead")))
        other = await seen(t, forked, "helper#1")
        assert (other.label, other.says) == ("helper #1", f"done in run {run}, and reused here")
        assert text_of(step_page(other)).splitlines()[0].startswith("✓ helper #1  flow ")
        assert bytes(other.values["topic"]) == b'"other"'  # type: ignore[arg-type] # no blob: it is small


async def test_another_prompt_of_who_is_asked_makes_its_asker_another(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        entries = [each for each in await t.log(run) if each.message is not None]
        past = past_of(Logged(each.seq, "", each.message) for each in entries if each.message is not None)
        assert past is not None

        def why(**helper_is: Any) -> str:
            assert past is not None
            agents = t.plan.flow.agents | {"helper": replace(t.plan.flow.agents["helper"], **helper_is)}
            return why_changed(past, check_flow(replace(t.plan.flow, agents=agents)), past.first.state, "lead")

        assert why() == ""
        assert why(timeout_s=5.0, max_attempts=9) == ""
        assert why(handler="team:other") == "another handler of helper, which it may ask"


async def test_progress_of_a_thousand_children_is_a_few_lines(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> int:
        asks = [context.ask("helper", topic=f"{text}{number}") for number in range(1_000)]
        found = await context.gather(*asks, failed="return")
        return sum(isinstance(each, AskFailed) for each in found)

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        file = io.StringIO()
        out = Console(file=file, width=80, force_terminal=False)
        progress = Progress(t.bus, t.plan, run, out, shows=True)
        async with progress.showing():
            assert value_of((await t.result(run)).outcome) == 0
            await progress.settled(10)
        lines = file.getvalue().splitlines()
        assert len(lines) <= 20
        assert lines[-2].startswith("✓ helper  1000/1000  done in ")
        assert lines[-1].startswith("✓ lead  done in ")
        screen = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
        live = Progress(t.bus, t.plan, run, screen, shows=True)
        async with live.showing():
            await until(lambda: live.state.result is not None)
        assert len(text_of(live._page()).splitlines()) <= 23


async def test_child_that_is_not_there_is_no_step(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        with pytest.raises(UnknownStep, match=r"'helper' was asked once: helper#1\."):
            await seen(t, run, "helper#2")
        assert (await seen(t, run, "helper")).label == "helper #1"
