"""Completion: what the shell is told when Tab is pressed; where there is nothing, nothing is started or said."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from baton_actors.cli.completing import flows

from .commands import BATON, WAIT_S, WORDS, baton, environ
from .servers import NatsServer

FLOW = 'name = "f"\n[agents.a]\nhandler = "m:f"\n[steps.a]\n'


def completed(line: str, cwd: Path, shell: str = "bash", **env: str) -> list[str]:
    """What the shell is told for a line that ends where the cursor is; nothing may be said besides."""
    words = line.split(" ")
    asked = {
        "_BATON_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
    }
    ended = subprocess.run(
        BATON, cwd=cwd, env=environ(**asked, **env), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return [line for line in ended.stdout.splitlines() if line]


@pytest.fixture(scope="module")
def place(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a server with one run, whose actors are not up."""
    where = {"BATON_URL": server.url, "BATON_NAMESPACE": "completing"}
    ended = baton("submit", WORDS, "text=a", "--run", "run-1", cwd=tmp_path_factory.mktemp("place"), **where)
    assert (ended.returncode, ended.stdout) == (0, "run-1\n")
    return where


def test_flows_are_the_shipped_ones_and_the_flow_files_of_the_folder_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.toml").write_text(FLOW)
    (tmp_path / "array.toml").write_text(FLOW)
    (tmp_path / "apart.toml").write_text('[project]\nname = "no flow"\n')
    (tmp_path / "anthropic.py").write_text("raise SystemExit('imported')\n")
    assert completed("baton run a", tmp_path, PYTHONPATH=str(tmp_path)) == ["article", "ask", "array.toml"]
    monkeypatch.chdir(tmp_path)
    assert flows("mine/") == ["mine/a.toml"]
    assert flows("./a") == ["./array.toml"]
    assert flows(f"{tmp_path}/ar") == [f"{tmp_path}/array.toml"]
    assert flows("nowhere/") == []


def test_agents_are_those_of_the_flow_that_is_typed_before(tmp_path: Path) -> None:
    assert completed("baton actor report d", tmp_path) == ["digester"]


def test_commands_are_all_that_begin_so(tmp_path: Path) -> None:
    assert completed("baton un", tmp_path) == ["unschedule"]


def test_runs_are_those_of_the_log_and_say_what_they_are(place: dict[str, str], tmp_path: Path) -> None:
    assert completed("baton show r", tmp_path, **place) == ["run-1"]
    assert completed("baton cancel ", tmp_path, **place) == ["run-1"]
    (line,) = completed("baton show ", tmp_path, "zsh", **place)
    assert '"run-1":"words, running"' in line


def test_steps_are_those_of_the_run_that_is_typed_before(place: dict[str, str], tmp_path: Path) -> None:
    found = completed("baton fork run-1 --after ", tmp_path, **place)
    assert found == ["split", "count", "add", "write"]
    assert completed("baton fork nosuch --after ", tmp_path, **place) == []


@pytest.mark.parametrize("url", ["", "nats://192.0.2.1:4222", "nonsense://x"])
def test_no_server_completes_nothing_soon_and_starts_none(tmp_path: Path, url: str) -> None:
    """192.0.2.1 is nobody's (RFC 5737), so a connection to it may hang."""
    (tmp_path / ".baton").mkdir()
    started = time.monotonic()
    assert completed("baton show ", tmp_path, BATON_URL=url) == []
    assert time.monotonic() - started < 10
    assert list((tmp_path / ".baton").iterdir()) == []


def test_script_for_the_shell_is_printed(tmp_path: Path) -> None:
    script = baton("--show-completion", "bash", cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_BATON_COMPLETE=complete_bash" in script.stdout
