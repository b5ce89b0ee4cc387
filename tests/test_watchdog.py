"""Workers that are stuck, and how a worker died: the supervisor sees both, and a new worker goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from baton_actors.processes.deaths import KEPT_MAX, Deaths, remembering, worker_name
from baton_actors.processes.supervisor import Supervisor
from baton_bus import Settings
from baton_bus.store.bus import open_bus
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import Done

from .clients import result_of, start_run
from .commands import descendants
from .handlers_for_tests import FILE, is_marked, mark
from .servers import WAIT_S, NatsServer, is_gone, until
from .test_processes import PARENT, QUIET, written

STUCK_S = 3.0
LONG_STUCK_S = 7.0
"""Where nobody is to be killed, though this machine may be busy with other tests: twice what it needs."""


@pytest.fixture
def settings(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace, lease_s=1.0)


@pytest.fixture
def deaths() -> Iterator[Deaths]:
    with remembering() as deaths:
        yield deaths


async def passed(seconds: float) -> None:
    """Wait for what is to be measured against time."""
    since = time.monotonic()
    await until(lambda: time.monotonic() - since > seconds)


@asynccontextmanager
async def parent_of(flow: str, settings: Settings) -> AsyncIterator[tuple[Process, int]]:
    """Run a process that supervises one worker, and yield it and the worker's id."""
    program = PARENT.replace("restart=True", f"restart=True, stuck_s={LONG_STUCK_S}")
    arguments = (flow, settings.url, settings.namespace)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments, stdout=PIPE, stderr=PIPE)
    try:
        assert parent.stdout is not None
        (pid,) = json.loads(await parent.stdout.readline())
        yield parent, pid
    finally:
        if parent.returncode is None:
            parent.kill()
        await parent.communicate()
    assert parent.returncode == -signal.SIGKILL
    await until(lambda: is_gone(pid))


def pid_in(result: Result) -> int:
    assert isinstance(result.outcome, Done)
    return int(bytes(result.outcome.output))


# ---- the watchdog --------------------------------------------------------------------------------


async def test_worker_in_which_nothing_runs_is_killed_and_another_goes_on(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = written(tmp_path, "hold_the_gil_once", options="max_attempts = 100")
    async with Supervisor([found], settings, restart=False, logs=QUIET, stuck_s=STUCK_S) as supervisor:
        await supervisor.ready()
        (stuck,) = supervisor.pids
        async with open_bus(settings) as bus:
            run = await start_run(bus, found.plan, {"folder": str(tmp_path)})
            other = pid_in(await result_of(bus, run, flow="t", timeout_s=WAIT_S))
        assert other in supervisor.pids
        assert other != stuck
        how = supervisor.deaths.how_it_died(worker_name(stuck))
        assert how == "killed by its supervisor: it did nothing for 3 s"
    said = capfd.readouterr()
    assert "worker.stuck" in said.out + said.err


async def test_worker_that_is_stuck_says_where(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "hold_the_gil_once", options="max_attempts = 100")
    async with parent_of(found.source, settings) as (parent, _):
        async with open_bus(settings) as bus:
            await start_run(bus, found.plan, {"folder": str(tmp_path)})
        assert parent.stderr is not None
        async with asyncio.timeout(WAIT_S):
            said = await parent.stderr.readuntil(b" in hold_the_gil_once")
        assert FILE.name.encode() in said


async def test_killed_supervisor_leaves_no_worker_in_which_nothing_runs(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "hold_the_gil_once", options="max_attempts = 100")
    async with parent_of(found.source, settings) as (parent, pid):
        async with open_bus(settings) as bus:
            await start_run(bus, found.plan, {"folder": str(tmp_path)})
        await until(lambda: is_marked(tmp_path, "begun"))
        parent.kill()
        await until(lambda: is_gone(pid))
        assert await parent.wait() == -signal.SIGKILL


async def test_worker_that_somebody_stopped_is_replaced(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "raises")
    async with Supervisor([found], settings, restart=True, logs=QUIET, stuck_s=STUCK_S) as supervisor:
        await supervisor.ready()
        (stopped,) = supervisor.pids
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: is_gone(stopped) and supervisor.pids and stopped not in supervisor.pids)
        assert stopped not in supervisor.pids


async def test_worker_whose_loop_is_blocked_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "hold_the_loop_until_go")
    async with Supervisor([found], settings, restart=True, logs=QUIET, stuck_s=STUCK_S) as supervisor:
        await supervisor.ready()
        (blocked,) = supervisor.pids
        async with open_bus(settings) as bus:
            run = await start_run(bus, found.plan, {"folder": str(tmp_path)})
            await until(lambda: is_marked(tmp_path, "begun"))
            await passed(STUCK_S + 2)
            mark(tmp_path, "go")
            assert pid_in(await result_of(bus, run, flow="t", timeout_s=WAIT_S)) == blocked


async def test_sleep_of_the_whole_machine_kills_nobody(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "tell_pid")
    async with parent_of(found.source, settings) as (parent, pid):
        asleep = [parent.pid, *descendants(parent.pid)]
        for each in asleep:
            os.kill(each, signal.SIGSTOP)
        await passed(LONG_STUCK_S + 2)
        os.kill(parent.pid, signal.SIGCONT)  # the supervisor wakes first, and finds the worker silent
        await passed(0.5)
        for each in asleep:
            os.kill(each, signal.SIGCONT)
        async with open_bus(settings) as bus:
            run = await start_run(bus, found.plan, {"folder": str(tmp_path)})
            assert pid_in(await result_of(bus, run, flow="t", timeout_s=WAIT_S)) == pid


# ---- how workers died ----------------------------------------------------------------------------


@pytest.mark.parametrize(("handler", "how"), [("die_once", "signal 9 (SIGKILL)"), ("die", "exit code 7")])
async def test_supervisor_says_how_a_worker_died(settings: Settings, tmp_path: Path, handler: str, how: str) -> None:
    found = written(tmp_path, handler)
    async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
        await supervisor.ready()
        (first,) = supervisor.pids
        async with open_bus(settings) as bus:
            await start_run(bus, found.plan, {"folder": str(tmp_path)})
        await until(lambda: supervisor.deaths.how_it_died(worker_name(first)))
        assert supervisor.deaths.how_it_died(worker_name(first)) == how


def test_deaths_are_kept_where_only_this_user_reads_them_and_not_longer_than_needed() -> None:
    with remembering() as deaths:
        folder = Path(deaths.folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    deaths.note(17, "exit code 3")
    assert deaths.how_it_died(worker_name(17)) == ""


def test_how_a_worker_died_is_unknown_of_other_hosts_and_other_supervisors(deaths: Deaths) -> None:
    deaths.note(17, "exit code 3")
    assert deaths.how_it_died(worker_name(17)) == "exit code 3"
    others = ("elsewhere:17", worker_name(18), "17", "", f"{worker_name(17)}/../17", worker_name(17) + "x")
    assert [deaths.how_it_died(other) for other in others] == [""] * len(others)
    assert Deaths().how_it_died(worker_name(17)) == ""


def test_id_of_a_dead_worker_that_is_given_to_a_new_one_says_nothing_of_it(deaths: Deaths) -> None:
    deaths.note(17, "exit code 3")
    deaths.forget(17)
    assert deaths.how_it_died(worker_name(17)) == ""


def test_old_deaths_make_room_for_new_ones(deaths: Deaths) -> None:
    for pid in range(1, KEPT_MAX + 3):
        deaths.note(pid, "exit code 1")
        os.utime(Path(deaths.folder, str(pid)), (pid, pid))
    deaths.note(KEPT_MAX + 3, "exit code 1")
    assert deaths.how_it_died(worker_name(3)) == ""
    assert deaths.how_it_died(worker_name(4)) == "exit code 1"
