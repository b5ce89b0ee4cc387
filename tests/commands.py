"""The command `baton` as its users start it: as a process of its own, in a directory of its own; or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from baton_actors.cli import main

from .servers import is_gone

FLOWS = Path(__file__).with_name("flows")
WORDS = str(FLOWS / "words.toml")
WAIT_S = 30.0

BATON = [sys.executable, "-m", "baton_actors.cli"]


def environ(**more: str) -> dict[str, str]:
    """Our environment without what would change the command's ways."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("BATON_", "ANTHROPIC_"))}
    return {**ours, "COLUMNS": "80", **more}


def baton(*arguments: str, cwd: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*BATON, *arguments],
        cwd=cwd,
        env=environ(**env),
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=WAIT_S,
    )


def here(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end as `baton` does, but in this process: it starts in no time, so that many can be run.

    It prints into pipes, in UTF-8. For commands that start no process. An error that is a bug comes out as it is.
    """
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", how, write_through=True) for how in ("strict", "backslashreplace")
    )
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, environ(**env), clear=True),
        mock.patch.object(sys, "argv", ["baton", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    said = []
    for each in (out, err):
        each.seek(0)
        said.append(each.read())
    return subprocess.CompletedProcess(arguments, ended.value.code, *said)


_started: list[subprocess.Popen[str]] = []


def start(*arguments: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """Start the command in a session of its own, with pipes, which `close_pipes` closes."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    given = {**pipes, "env": environ(), **more}
    process = subprocess.Popen(
        [*BATON, *arguments], cwd=cwd, text=True, encoding="utf-8", start_new_session=True, **given
    )
    _started.append(process)
    return process


def close_pipes() -> None:
    """Close the pipes of commands that have ended: one that is left open is a warning in whichever test runs then."""
    for process in [process for process in _started if process.poll() is not None]:
        _started.remove(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def descendants(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that they have, as far as they live."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found


def all_gone(pids: set[int]) -> bool:
    return all(map(is_gone, pids))
