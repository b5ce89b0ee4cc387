"""The sync twin: teams for scripts and notebooks, from any thread, beside any loop, and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from baton_actors import Baton, Flow, RunFailed, SyncTeam
from baton_actors.team.errors import TeamClosed

from .commands import WAIT_S, all_gone, descendants, environ
from .servers import until


def echoing() -> Flow:
    flow = Flow("echoing", input={"word": str, "more": {"type": "str", "default": ""}})

    @flow.step
    def echo(word: str, more: str) -> str:
        if word == "bad":
            raise ValueError("no")
        return word + more

    return flow


@pytest.fixture(scope="module")
def team() -> Iterator[SyncTeam]:
    with Baton.local(echoing(), data_dir=None) as team:
        yield team


def test_run_returns_its_output(team: SyncTeam) -> None:
    text: str = team.run(word="a", returns=str)
    assert text == "a"


async def test_team_works_beside_a_loop_that_runs(team: SyncTeam) -> None:
    """As in a notebook."""
    assert team.run("echoing", word="a", more="b") == "ab"
    with Baton.local(echoing(), data_dir=None).open() as other:
        assert other.run(word="c") == "c"


def test_run_that_was_started_has_what_the_async_one_has(team: SyncTeam) -> None:
    run = team.start(word="a", run_id="started")
    assert run.result(WAIT_S, returns=str) == "a"
    assert run.ended().status == "done"
    assert run.state().status == "done"
    assert [entry.subject.split(".")[1] for entry in run.events()] == ["handoff", "result"]
    assert run.fork().result(WAIT_S) == "a"
    assert team.get("started").cancel().status == "done"
    assert "started" in [head.run for head in team.runs(100, flow="echoing", status="done")]


def test_threads_share_a_team(team: SyncTeam) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda index: team.run(word=str(index)), range(64)))
    assert results == [str(index) for index in range(64)]


def test_failure_is_raised_where_the_run_was_asked_for(team: SyncTeam) -> None:
    flow = Flow("fails")
    flow.step(lambda: 1 / 0, name="divide", max_attempts=1)
    with Baton.local(flow, data_dir=None) as own, pytest.raises(RunFailed, match="division by zero"):
        own.run()


def test_call_that_would_wait_for_itself_is_refused() -> None:
    teams: list[SyncTeam] = []
    flow = Flow("asks-itself")

    @flow.step(max_attempts=1)
    async def ask() -> str:
        return str(teams[0].run())

    with Baton.local(flow, data_dir=None) as team:
        teams.append(team)
        with pytest.raises(RunFailed, match="this would wait for itself"):
            team.run()


def test_closed_team_says_so_and_leaves_no_thread() -> None:
    threads = set(threading.enumerate())
    team = Baton.local(echoing(), data_dir=None).open()
    team.close()
    team.close()
    assert set(threading.enumerate()) <= threads
    with pytest.raises(TeamClosed, match="this team is closed"):
        team.run(word="a")


def test_ctrl_c_ends_a_script_and_all_that_it_has_started(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(
        """
import threading
from baton_actors import Baton, Flow

flow = Flow("waits")

@flow.step
def wait() -> None:
    print("waiting", flush=True)
    threading.Event().wait(20)

with Baton.local(flow) as team:
    team.run(run_id="kept")
"""
    )
    process = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        started = descendants(process.pid)
        assert started
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert told.rstrip().endswith("KeyboardInterrupt")
    asyncio.run(until(lambda: all_gone(started)))
