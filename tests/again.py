"""A second chance for tests that failed beside others: alone, three times in a row, and said aloud. `make again`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct, field

KEPT = Path(".pytest_cache", "v", "baton", "last_session.json")
"""Below where pytest ran: what became of its last session."""
FAILED_MAX = 10
"""With more failures something is broken, and no test merely unsteady."""
ROUNDS = 3


class Session(Struct):
    """What became of a session of pytest. As long as it runs, and when it dies, it has no exit code."""

    exit_code: int | None = None
    """1 when all was run and some of it failed; any other failure leaves tests that were not run."""
    failed: list[str] = field(default_factory=list)
    passed: int = 0


class Recorder:
    """A plug-in that writes down which tests failed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._failed: dict[str, None] = {}
        self._passed: set[str] = set()
        self._write(Session())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None
        elif report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if session.shouldfail or session.shouldstop:  # after the first failure, or so many
            return
        passed = len(self._passed - self._failed.keys())
        self._write(Session(int(exitstatus), list(self._failed), passed))

    def _write(self, session: Session) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(msgspec.json.encode(session))


def record(config: pytest.Config) -> None:
    """Have the process that gathers all results write them down."""
    if not hasattr(config, "workerinput") and config.pluginmanager.has_plugin("cacheprovider"):
        config.pluginmanager.register(Recorder(config.rootpath / KEPT))


def main(root: Path) -> int:
    """Run what failed in the last session again; return 0 when all of it passes each time.

    The last lines are always a summary by pytest, but where nothing was run again.
    """
    try:
        last = msgspec.json.decode((root / KEPT).read_bytes(), type=Session)
    except (OSError, msgspec.DecodeError):
        return _red("it is not known what failed: run the tests first")
    if last.exit_code == pytest.ExitCode.OK:
        print("== nothing failed in the last session")
        return 0
    if last.exit_code != pytest.ExitCode.TESTS_FAILED or not last.failed:
        return _red("the last session broke off before all was run: no second chance")
    if len(last.failed) > FAILED_MAX:
        return _red(f"{len(last.failed)} failed, {last.passed} passed: more than {FAILED_MAX} get no second chance")
    print(f"== {_tests(len(last.failed))} failed beside others; now alone, {ROUNDS} times", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *last.failed]
    for number in range(1, ROUNDS + 1):
        done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            _say(f"FAILED AGAIN, alone, at time {number} of {ROUNDS}; failed beside others:", last.failed)
        elif number == ROUNDS:
            _say(f"UNSTEADY: failed beside others, passed {ROUNDS} times alone:", last.failed)
            print(f"== {last.passed} passed beside others; what is below is the last time alone", flush=True)
        sys.stdout.buffer.write(done.stdout)
        sys.stdout.buffer.flush()
        if done.returncode:
            return 1
    return 0


def _say(what: str, tests: list[str]) -> None:
    line = "=" * 100
    print("\n".join(["", line, what, *(f"  {test}" for test in tests), line]), flush=True)


def _red(why: str) -> int:
    print(f"== {why}", flush=True)
    return 1


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
