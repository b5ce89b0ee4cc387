"""How a first answer comes soon: workers are forked from a process that imports while the command begins."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from pathlib import Path

import pytest

from baton_actors.agents.loading import find_flow
from baton_actors.processes.forks import REHEARSAL, SDK, WORKER
from baton_actors.processes.main import worker_main
from baton_actors.processes.supervisor import preload_of

from .commands import WAIT_S, WORDS, descendants, start
from .servers import until


def in_session(leader: int) -> set[int]:
    """The processes of a session: all that a command has started, whoever their parent is by now."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess="], capture_output=True, text=True, check=True).stdout
    return {int(pid) for pid, session in map(str.split, listed.splitlines()) if int(session) == leader}


def test_modules_that_are_imported_ahead_are_those_of_workers() -> None:
    """They are told by name, and one that is not there would be passed over in silence."""
    assert worker_main.__module__ == WORKER
    assert all(importlib.util.find_spec(name) for name in (SDK, REHEARSAL))


@pytest.mark.parametrize(
    ("flow", "environ", "preload"),
    [
        ("ask", {}, [REHEARSAL]),
        ("ask", {"ANTHROPIC_API_KEY": "k"}, [SDK]),
        ("ask", {"ANTHROPIC_BASE_URL": "http://localhost"}, [SDK]),
        ("ask", {"ANTHROPIC_API_KEY": "k", "BATON_REHEARSE": "1"}, [REHEARSAL]),
        ("ask", {"BATON_REHEARSE": "nonsense"}, [REHEARSAL]),
        (WORDS, {"ANTHROPIC_API_KEY": "k"}, []),
    ],
)
def test_sdk_is_imported_ahead_only_where_models_are_called(
    monkeypatch: pytest.MonkeyPatch, flow: str, environ: dict[str, str], preload: list[str]
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "BATON_REHEARSE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert preload_of([find_flow(flow)]) == preload


async def test_imports_that_began_end_with_a_command_that_fails_at_once(tmp_path: Path) -> None:
    command = start("run", "nosuch", cwd=tmp_path)
    assert command.wait(WAIT_S) == 2
    await until(lambda: in_session(command.pid) == set())


async def test_imports_that_began_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    command = start("run", "ask", "question=x", cwd=tmp_path)
    await until(lambda: descendants(command.pid) != set())
    command.send_signal(signal.SIGKILL)
    command.wait(WAIT_S)
    await until(lambda: in_session(command.pid) == set())
