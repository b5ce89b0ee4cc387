"""Workers as processes: they start again when killed, stop when told, and never outlive their parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.processes import supervisor as supervisor_module
from baton_actors.processes.errors import WorkerCannotStart, WorkersKeepDying, WorkersNotReady
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.supervisor import Supervisor
from baton_bus import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.facts import GivenBack
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Done

from .clients import result_of, start_run
from .commands import all_gone, descendants, start
from .handlers_for_tests import FILE, flow_of, is_marked, mark
from .servers import WAIT_S, NatsServer, is_gone, until

WORKER = """
import asyncio, sys
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_bus import Settings

_, flow, agent, url, namespace, grace_s = sys.argv
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
logs = LogSettings(format="json")
recycle = asyncio.Event()
spec = WorkerSpec(flow=flow, agent=agent, settings=settings, logs=logs, grace_s=float(grace_s))
worker_main(spec, recycle=recycle)
"""

PARENT = """
import asyncio, json, sys
from baton_actors.agents.loading import find_flow
from baton_actors.processes.supervisor import Supervisor
from baton_bus import Settings

async def main():
    _, flow, url, namespace = sys.argv
    async with Supervisor([find_flow(flow)], Settings(url=url, namespace=namespace), restart=True) as supervisor:
        await supervisor.ready()
        print(json.dumps(list(supervisor.pids)), flush=True)
        await asyncio.Event().wait()

assert __name__ == "__main__", "a worker has imported its parent's main module"
asyncio.run(main())
"""

QUIET = LogSettings(format="json", level="error")


@pytest.fixture
def settings(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace, lease_s=1.0)


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with open_bus(settings) as bus:
        yield bus


def written(folder: Path, *handlers: str, options: str = "") -> FoundFlow:
    (folder / "flow.toml").write_text(flow_of(*handlers, options=options), "utf-8")
    return find_flow(str(folder / "flow.toml"))


def breakable(folder: Path) -> FoundFlow:
    """Return a flow whose handler is in `mine.py` of the folder; it marks `ready` when a second worker imports it."""
    (folder / "mine.py").write_text(
        "from pathlib import Path\n"
        f"folder = Path({str(folder)!r})\n"
        "(folder / ('ready' if (folder / 'once').exists() else 'once')).touch()\n"
        "def mine(folder: str) -> None: ...\n"
    )
    text = 'name = "t"\n[input]\nfolder = "str"\n[agents.mine]\nhandler = "./mine.py:mine"\n[steps.mine]\n'
    (folder / "flow.toml").write_text(text, "utf-8")
    return find_flow(str(folder / "flow.toml"))


def children(folder: Path) -> set[int]:
    """Return what `start_children` has started."""
    return set(map(int, (folder / "children").read_text().split()))


async def submit(bus: Bus, found: FoundFlow, folder: Path) -> str:
    return await start_run(bus, found.plan, {"folder": str(folder)})


async def ended(bus: Bus, run: str) -> Result:
    return await result_of(bus, run, flow="t", timeout_s=WAIT_S)


@asynccontextmanager
async def worker(found: FoundFlow, settings: Settings, *, grace_s: float = 10.0) -> AsyncIterator[Process]:
    """Run a worker on its own, as `baton actor` does, and wait until it takes work."""
    agent = next(iter(found.flow.agents))
    arguments = (found.source, agent, settings.url, settings.namespace, str(grace_s))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *arguments, stderr=PIPE)
    try:
        await logged(process, "worker.ready")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def logged(process: Process, event: str) -> dict[str, Any]:
    """Return the next line of this event in the process's log."""
    assert process.stderr is not None
    async with asyncio.timeout(WAIT_S):
        while line := await process.stderr.readline():
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
    raise AssertionError(f"the worker ended without {event}")


async def asking(bus: Bus, actor: str) -> int:
    """How many workers ask for handoffs of an actor, as the server says."""
    return (await bus.js.consumer_info(bus.settings.namespace, f"handoff-{actor}")).num_waiting or 0


# ---- the supervisor ------------------------------------------------------------------------------


async def test_killed_worker_is_started_again_and_the_run_is_finished(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "die_once")
    async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
        await supervisor.ready()
        first = set(supervisor.pids)
        run = await submit(bus, found, tmp_path)
        result = await ended(bus, run)
        assert isinstance(result.outcome, Done)
        assert result.outcome.work.attempt == 1  # nobody knew yet that it was the step that killed it
        assert int(bytes(result.outcome.output)) in set(supervisor.pids) - first


async def test_worker_that_is_replaced_finishes_what_it_holds_however_long_that_takes(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "wait_for_go")
    async with Supervisor([found], settings, restart=True, logs=QUIET, grace_s=0.05) as supervisor:
        await supervisor.ready()
        (first,) = supervisor.pids
        run = await submit(bus, found, tmp_path)
        await until(lambda: is_marked(str(tmp_path), "begun"))
        await supervisor.reload(found, {"wait_for_go"})
        assert set(supervisor.pids) > {first}
        (second,) = set(supervisor.pids) - {first}
        (tmp_path / "begun").unlink()
        async with asyncio.timeout(WAIT_S):  # the first has heard of it, and asks for no more
            while await asking(bus, "t--wait_for_go") != 1:  # noqa: ASYNC110 (only the server knows)
                await asyncio.sleep(0.01)
        other = await submit(bus, found, tmp_path)
        await until(lambda: is_marked(str(tmp_path), "begun"))
        mark(str(tmp_path), "go")
        for each, pid in ((run, first), (other, second)):
            result = await ended(bus, each)
            assert isinstance(result.outcome, Done)
            assert (result.outcome.work.attempt, result.outcome.work.worker.rpartition(":")[2]) == (1, str(pid))
        await until(lambda: set(supervisor.pids) == {second})
    assert supervisor.pids == {}


async def test_worker_stays_when_no_other_can_take_its_place(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "raises")
    async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
        await supervisor.ready()
        before = supervisor.pids
        broken = written(tmp_path, "no_such")
        with pytest.raises(WorkerCannotStart, match="has no 'no_such'"):
            await supervisor.reload(broken, {"no_such"})
        await until(lambda: supervisor.pids == before)
        await supervisor.reload(written(tmp_path, "raises", "die_once"), {"die_once"})
        assert sorted(supervisor.pids.values()) == ["t--die_once", "t--raises"]
        await supervisor.reload(written(tmp_path, "die_once"), {"die_once"})
        await until(lambda: list(supervisor.pids.values()) == ["t--die_once"])
    assert supervisor.pids == {}


async def test_each_actor_has_as_many_processes_as_asked_for_and_all_end_with_the_context(
    settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "die_once", "raises")
    async with Supervisor([found], settings, copies=2, restart=True, logs=QUIET) as supervisor:
        await supervisor.ready()
        pids = supervisor.pids
        assert sorted(pids.values()) == ["t--die_once"] * 2 + ["t--raises"] * 2
        assert supervisor.pids.keys().isdisjoint({os.getpid()})
    assert all(is_gone(pid) for pid in pids)
    assert supervisor.pids == {}


async def test_workers_leave_ctrl_c_and_hang_up_to_their_supervisor(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "wait_for_go")
    async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
        await supervisor.ready()
        run = await submit(bus, found, tmp_path)
        await until(lambda: is_marked(tmp_path, "begun"))
        for pid in supervisor.pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGHUP)
        mark(tmp_path, "go")
        result = await ended(bus, run)
        assert isinstance(result.outcome, Done)
        assert result.outcome.work.attempt == 1


async def test_worker_that_keeps_dying_ends_the_wait_for_it(
    bus: Bus, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTARTS_MAX", 1)
    monkeypatch.setattr(supervisor_module, "_WAIT_FIRST_S", 0.01)
    found = written(tmp_path, "die", options="max_attempts = 100")
    run = await submit(bus, found, tmp_path)
    with pytest.raises(WorkersKeepDying, match="'t--die' died 2 times, the last time with exit code 7") as raised:
        async with Supervisor([found], settings, restart=False, logs=QUIET):
            await ended(bus, run)
    assert raised.value.exit_code == 7


async def test_handler_that_cannot_be_imported_is_said_by_the_supervisor(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "raises", "no_such")
    reason = r"worker of 't--no_such' cannot start: agents\.no_such\.handler: .* it has no 'no_such'"
    with pytest.raises(WorkerCannotStart, match=reason):
        async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
            await supervisor.ready()
    assert supervisor.pids == {}


async def test_workers_that_are_not_ready_in_time_are_named(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "raises")
    with pytest.raises(WorkersNotReady, match="not ready after 0 s: t--raises"):
        async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
            await supervisor.ready(timeout_s=0)
    assert supervisor.pids == {}


async def test_error_of_the_body_comes_out_as_it_is(settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "raises")
    with pytest.raises(KeyError, match="mine"):
        async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
            await supervisor.ready()
            raise KeyError("mine")
    assert supervisor.pids == {}


async def test_killed_parent_leaves_no_worker_not_even_one_that_hangs(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "hold_the_loop", "raises")
    arguments = (found.source, settings.url, settings.namespace)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, *arguments, stdout=PIPE, stderr=DEVNULL)
    assert parent.stdout is not None
    pids = json.loads(await parent.stdout.readline())
    assert len(pids) == 2
    await submit(bus, found, tmp_path)
    await until(lambda: is_marked(tmp_path, "begun"))
    parent.kill()
    await parent.wait()
    await until(lambda: all(is_gone(pid) for pid in pids))
    assert parent.returncode == -signal.SIGKILL


async def test_worker_that_asks_to_be_recycled_is_started_again_at_once_and_not_counted(
    bus: Bus, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTARTS_MAX", 0)
    monkeypatch.setattr(supervisor_module, "_WAIT_FIRST_S", 3600.0)
    found = written(tmp_path, "recycle_once")
    async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
        await supervisor.ready()
        first = set(supervisor.pids)
        result = await result_of(bus, await submit(bus, found, tmp_path))
        assert isinstance(result.outcome, Done)
        assert int(bytes(result.outcome.output)) in set(supervisor.pids) - first


async def test_worker_that_cannot_start_again_ends_the_wait_for_it_with_its_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTARTS_MAX", 2)
    monkeypatch.setattr(supervisor_module, "_WAIT_FIRST_S", 0.01)
    found = breakable(tmp_path)
    with pytest.raises(WorkersKeepDying, match=r"died 3 times, .* exit code 2\. It cannot start any more: .*meanwhile"):
        async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
            await supervisor.ready()
            (tmp_path / "mine.py").write_text("raise OSError('broken meanwhile')")
            os.kill(next(iter(supervisor.pids)), signal.SIGKILL)
            await asyncio.Event().wait()


async def test_worker_that_cannot_start_again_is_tried_for_ever_and_says_each_reason_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor_module, "RESTARTS_MAX", 1)
    monkeypatch.setattr(supervisor_module, "_WAIT_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "_WAIT_MAX_S", 0.02)
    found, starts = breakable(tmp_path), tmp_path / "starts"
    breaks = "from pathlib import Path; Path({path!r}).open('a').write('.'); raise OSError('broken {how}')"

    async def started(times: int) -> None:
        starts.write_text("")
        await until(lambda: len(starts.read_text()) >= times)

    async with Supervisor([found], settings, restart=True, logs=QUIET) as supervisor:
        await supervisor.ready()
        good = (tmp_path / "mine.py").read_text()
        (tmp_path / "mine.py").write_text(breaks.format(path=str(starts), how="so"))
        os.kill(next(iter(supervisor.pids)), signal.SIGKILL)
        await started(4)
        (tmp_path / "mine.py").write_text(breaks.format(path=str(starts), how="otherwise"))
        await started(4)
        (tmp_path / "mine.py").write_text(good)
        await until(lambda: is_marked(tmp_path, "ready"))
    said = capfd.readouterr()
    assert (said.out + said.err).count("broken so") == 1
    assert (said.out + said.err).count("broken otherwise") == 1


# ---- what handlers have started ------------------------------------------------------------------


async def test_subprocesses_of_handlers_end_with_the_command(tmp_path: Path) -> None:
    async def end_with(number: int, code: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        found = written(folder, "start_children")
        command = start("run", found.source, f"folder={folder}", cwd=folder)
        await until(lambda: is_marked(folder, "children"))
        below = descendants(command.pid)
        assert children(folder) <= below
        command.send_signal(number)
        assert await asyncio.to_thread(command.wait, WAIT_S) == code
        await until(lambda: all_gone(below))

    signals = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    await asyncio.gather(*(end_with(number, code) for number, code in signals.items()))


async def test_subprocesses_of_a_handler_end_with_its_worker(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    found = written(tmp_path, "start_children")
    async with Supervisor([found], settings, restart=True, logs=QUIET, grace_s=0.1) as supervisor:
        await supervisor.ready()
        await submit(bus, found, tmp_path)
        await until(lambda: is_marked(tmp_path, "children"))
        started = children(tmp_path)
        os.kill(next(iter(supervisor.pids)), signal.SIGKILL)
        await until(lambda: all_gone(started))
        assert not any(os.getpgid(pid) == os.getpgid(0) for pid in supervisor.pids)


@pytest.mark.skipif(sys.platform != "linux", reason="a worker on its own finds its descendants in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_subprocesses_of_a_handler_end_with_a_worker_on_its_own(
    bus: Bus, settings: Settings, tmp_path: Path, number: int
) -> None:
    found = written(tmp_path, "start_children")
    async with worker(found, settings, grace_s=0.1) as process:
        assert os.getpgid(process.pid) == os.getpgid(0), "Ctrl-C in the terminal would not reach it"
        await submit(bus, found, tmp_path)
        await until(lambda: is_marked(tmp_path, "children"))
        process.send_signal(number)
        assert await process.wait() == 0
    assert all_gone(children(tmp_path))


# ---- one worker ----------------------------------------------------------------------------------


async def test_worker_finishes_what_it_holds_when_it_is_told_to_stop(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "wait_for_go")
    async with worker(found, settings) as process:
        run = await submit(bus, found, tmp_path)
        await until(lambda: is_marked(tmp_path, "begun"))
        process.terminate()
        await logged(process, "worker.stops")
        mark(tmp_path, "go")
        assert await process.wait() == 0
    result = await ended(bus, run)
    assert isinstance(result.outcome, Done)
    assert result.outcome.work.attempt == 1


@pytest.mark.parametrize("handler", ["wait_for_go", "hold_a_thread"])
async def test_worker_gives_back_what_it_cannot_finish_in_its_grace(
    bus: Bus, settings: Settings, tmp_path: Path, handler: str
) -> None:
    found = written(tmp_path, handler)
    async with worker(found, settings, grace_s=0.1) as process:
        run = await submit(bus, found, tmp_path)
        await until(lambda: is_marked(tmp_path, "begun"))
        process.terminate()
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0
    facts = [entry.message.fact for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
    assert [(type(fact), getattr(fact, "reason", "")) for fact in facts] == [(GivenBack, "worker stops")]


async def test_worker_that_is_to_be_recycled_gives_back_what_it_holds_and_says_so_with_its_exit_code(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "ask_to_recycle")
    async with worker(found, settings, grace_s=0.1) as process:
        run = await submit(bus, found, tmp_path)
        await logged(process, "worker.recycles")
        assert await process.wait() == 75
    facts = [entry.message.fact for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
    assert [(type(fact), getattr(fact, "reason", "")) for fact in facts] == [(GivenBack, "worker stops")]


async def test_log_of_a_worker_is_json_and_says_which_run_step_and_actor(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    found = written(tmp_path, "raises", options="max_attempts = 1")
    async with worker(found, settings) as process:
        run = await submit(bus, found, tmp_path)
        entry = await logged(process, "step.failed")
    assert (entry["run"], entry["step"], entry["actor"]) == (run, "raises", "t--raises")
    assert entry["level"] == "warning"
    assert entry["timestamp"].endswith("Z")
    assert entry["error"].startswith("as it was told to at tests/handlers_for_tests.py:")


@pytest.mark.parametrize(
    ("agent", "url", "line"),
    [
        ("no_such", None, f"baton: agents.no_such.handler: cannot load '{FILE}:no_such': it has no 'no_such'."),
        ("nobody", None, "baton: flow 't' has no agent or actor 'nobody'."),
        ("raises", "nats://127.0.0.1:1", "baton: no NATS server at nats://127.0.0.1:1: the connection was refused."),
    ],
)
async def test_worker_that_cannot_start_says_why_in_one_line(
    settings: Settings, tmp_path: Path, agent: str, url: str | None, line: str
) -> None:
    found = written(tmp_path, "raises", "no_such")
    arguments = (found.source, agent, url or settings.url, settings.namespace, "1")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *arguments, stderr=PIPE)
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().startswith(line)
    assert stderr.count(b"\n") == 1


async def test_body_that_missed_its_cancellation_learns_that_a_worker_failed(
    settings: Settings, tmp_path: Path
) -> None:
    """As it happens where Python's `wait_for`, in a library, ends at the very moment of the cancellation."""
    found = written(tmp_path, "no_such")
    with pytest.raises(WorkerCannotStart):
        async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
            with pytest.raises(asyncio.CancelledError):
                await supervisor.ready()
            supervisor.leave_if_failed()
            await asyncio.Event().wait()
