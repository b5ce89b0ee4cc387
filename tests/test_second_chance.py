"""What failed beside others may pass alone, three times, and is listed; anything else stays red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from .again import FAILED_MAX, KEPT, Session, main
from .commands import WAIT_S
from .longest import LONGEST
from .maps import ROOT

TESTS = """
from pathlib import Path

def test_counts():
    count = Path("count")
    count.write_text(count.read_text() + "x" if count.exists() else "x")
    assert len(count.read_text()) not in {fails}

def test_is_steady():
    assert Path("count") != Path("other")
"""
CONFTEST = "from tests.again import record as pytest_configure\n"


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a folder, with the tests' modules at hand."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def written(folder: Path, tests: str) -> Path:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_some.py").write_text(tests)
    return folder


def recorded(folder: Path, **said: object) -> Path:
    (folder / KEPT).parent.mkdir(parents=True)
    (folder / KEPT).write_bytes(msgspec.json.encode(Session(**said)))  # type: ignore[arg-type]
    return folder


def test_test_that_fails_beside_others_and_passes_three_times_alone_is_listed_as_unsteady(tmp_path: Path) -> None:
    folder = written(tmp_path, TESTS.format(fails={1}))
    assert ran(folder, "pytest", "-q", "-n", "2").returncode == 1
    again = ran(folder, "tests.again")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "UNSTEADY: failed beside others, passed 3 times alone:\n  test_some.py::test_counts\n" in again.stdout
    assert "== 1 passed beside others" in again.stdout
    assert again.stdout.splitlines()[-1].startswith("1 passed in")
    assert (tmp_path / "count").read_text() == "xxxx"


def test_test_that_fails_once_more_is_broken(tmp_path: Path) -> None:
    folder = written(tmp_path, TESTS.format(fails={1, 3}))
    assert ran(folder, "pytest", "-q", "-n", "0").returncode == 1
    again = ran(folder, "tests.again")
    assert again.returncode == 1
    assert "FAILED AGAIN, alone, at time 2 of 3; failed beside others:\n  test_some.py::test_counts\n" in again.stdout
    assert again.stdout.splitlines()[-1].startswith("1 failed in")


@pytest.mark.parametrize("arguments", [("test_some.py", "test_broken.py"), ("-x", "test_some.py")])
def test_session_that_broke_off_gets_no_second_chance(arguments: tuple[str, ...], tmp_path: Path) -> None:
    folder = written(tmp_path, TESTS.format(fails={1}))
    (folder / "test_broken.py").write_text("import nothing_of_that_name\n")
    assert ran(folder, "pytest", "-q", "-n", "0", *arguments).returncode != 0
    again = ran(folder, "tests.again")
    assert (again.returncode, (tmp_path / "count").exists()) == (1, "-x" in arguments)
    assert "broke off before all was run" in again.stdout


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"exit_code": 1, "failed": ["t"] * (FAILED_MAX + 1), "passed": 7}, "11 failed, 7 passed: more than 10"),
        ({"exit_code": None}, "broke off"),
        ({"exit_code": 3, "failed": ["t"]}, "broke off"),
        ({"exit_code": 1}, "broke off"),
    ],
)
def test_what_is_no_unsteady_test_stays_red_at_once(
    said: dict[str, object], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(recorded(tmp_path, **said)) == 1
    assert why in capsys.readouterr().out


def test_nothing_is_run_again_where_nothing_failed_or_nothing_was_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path) == 1
    assert "run the tests first" in capsys.readouterr().out
    assert main(recorded(tmp_path, exit_code=0)) == 0


def test_files_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / f"test_{name}.py").exists()] == []


@pytest.mark.parametrize(
    ("fails", "made", "code"),
    [
        ((), ["lint", "types", "chaos", "test"], 0),
        (("test",), ["lint", "types", "chaos", "test", "again"], 0),
        (("test", "again"), ["lint", "types", "chaos", "test", "again"], 2),
        (("types",), ["lint", "types"], 2),
        (("chaos",), ["lint", "types", "chaos", "chaos"], 2),
    ],
)
def test_ci_gives_tests_and_crashes_a_second_chance_and_nothing_else(
    fails: tuple[str, ...], made: list[str], code: int, tmp_path: Path
) -> None:
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\ncase '{' '.join(fails)} ' in *\"$2 \"*) exit 2;; esac\n")
    make.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": path}, capture_output=True, text=True, timeout=WAIT_S)
    assert ended.returncode == code, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("UNSTEADY")]
    assert [line.removeprefix("== make ") for line in lines] == made
