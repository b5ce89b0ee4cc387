"""The commands for runs that are over or to come: retry, fork, dead, and schedules that really fire."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from baton_actors.cli import main
from baton_bus import Settings
from baton_bus.client.runs import RunHead, recent_runs
from baton_bus.server.lock import read_record
from baton_bus.store.bus import open_bus

from .commands import FLOWS, WAIT_S, WORDS, baton, here, start

MEND = str(FLOWS / "mend.toml")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which `baton up` runs two flows; `url` has its server's address."""
    home = tmp_path_factory.mktemp("home")
    command = start("up", MEND, WORDS, "--json", cwd=home, stderr=subprocess.DEVNULL)
    assert command.stdout is not None
    try:
        assert "***" in json.loads(command.stdout.readline())["url"]
        record = read_record(home / ".baton")
        assert record is not None
        (home / "url").write_text(record.url)
        yield home
    finally:
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0


@pytest.fixture(scope="module")
def broken(home: Path) -> str:
    """A run that failed at its third step, which would end well by now."""
    ended = baton("submit", MEND, "text=x y", f"folder={home}", "--run", "broken", "--wait", cwd=home)
    assert (ended.returncode, ended.stderr.splitlines()[1:]) == (
        1,
        ["baton: step 'merge' failed: Fail: the archive is closed at mend.py:20 in merge"],
    )
    (home / "mended").touch()
    return "broken"


@pytest.fixture(scope="module")
def retried(home: Path, broken: str) -> str:
    ended = baton("retry", broken, "--run", "retried", "--wait", cwd=home)
    assert (ended.returncode, ended.stdout) == (0, "X Y!\n")
    assert ended.stderr == "retried\nforked from broken: reuses split, each\n"
    return "retried"


def facts_of(run: str, home: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(here("show", run, "--json", cwd=home).stdout)
    return facts


def reused_in(run: str, home: Path) -> dict[str, int]:
    """How many times a step of the run (each of its branches) was done in the run before."""
    return {row["step"]: row.get("reused", 0) for row in facts_of(run, home)["steps"]}


# ---- retry and fork ------------------------------------------------------------------------------


def test_retry_does_again_what_failed_and_shows_what_it_reused(home: Path, retried: str) -> None:
    assert facts_of(retried, home)["forked_from"] == "broken"
    assert reused_in(retried, home) == {"split": 1, "each": 2, "merge": 0, "last": 0}
    shown = here("show", retried, cwd=home).stdout.splitlines()
    assert shown[1] == "  forked from broken"
    assert shown[4].split() == ["✓", "split", "done,", "reused"]
    assert shown[5].split() == ["✓", "each", "2/2", "done,", "reused"]
    assert shown[6].split()[:4] == ["✓", "merge", "done", "1"]
    step = here("show", retried, "each-1", cwd=home).stdout
    assert "  done in run broken, and reused here" in step.splitlines()
    assert "put out\n  Y" in step


def test_retry_prints_the_id_and_how_to_follow(home: Path, broken: str) -> None:
    ended = baton("retry", broken, cwd=home)
    run = ended.stdout.strip()
    assert len(run) == 26
    assert ended.stderr.splitlines() == [
        "forked from broken: reuses split, each",
        f"  baton log {run} --follow   its actors have to be up",
    ]
    log = baton("log", run, "--follow", cwd=home).stdout.splitlines()
    assert log[0].endswith("handoff  start → split   goes on from broken")
    assert log[-1].split()[3:5] == ["result", "done"]


def test_retry_with_an_id_of_its_own_starts_one_run(home: Path, broken: str) -> None:
    first, second = (json.loads(here("retry", broken, "--run", "r", "--json", cwd=home).stdout) for _ in "12")
    reused = {"reused": ["split", "each"], "again": {}, "changed": {}}
    assert first == second == {"run": "r", "flow": "mend", "forked_from": "broken", **reused}
    taken = here("retry", broken, "--run", broken, cwd=home)
    assert (taken.returncode, "take another id" in taken.stderr) == (2, True)


def test_retry_of_a_run_that_is_done_or_goes_on_says_what_to_do(home: Path, retried: str) -> None:
    done = here("retry", retried, cwd=home)
    assert (done.returncode, done.stderr) == (
        2,
        "baton: retried is done, there is nothing to retry. "
        "`baton fork retried --after STEP` does what comes after a step again\n",
    )
    here("submit", WORDS, "text=x", "pause_s=60", "--run", "long", cwd=home)
    running = here("retry", "long", "--json", cwd=home)
    assert json.loads(running.stdout)["error"]["type"] == "CannotGoOn"
    assert "`baton cancel long` ends it" in running.stdout
    here("cancel", "long", cwd=home)
    assert here("retry", "long", "--run", "long-again", cwd=home).stdout == "long-again\n"
    here("cancel", "long-again", cwd=home)


def test_fork_goes_on_after_a_step(home: Path, retried: str) -> None:
    ended = baton("fork", retried, "--after", "merge", "--run", "after-merge", "--wait", cwd=home)
    assert (ended.stdout, ended.stderr) == ("X Y!\n", "after-merge\nforked from retried: reuses split, each, merge\n")
    assert reused_in("after-merge", home) == {"split": 1, "each": 2, "merge": 1, "last": 0}


def test_fork_after_a_step_that_was_reused_goes_on_from_the_run_that_did_it(home: Path, retried: str) -> None:
    ended = here("fork", retried, "--after", "split", "--run", "after-split", "--wait", cwd=home)
    assert (ended.stdout, ended.stderr) == ("X Y!\n", "after-split\nforked from broken: reuses split\n")
    assert reused_in("after-split", home) == {"split": 1, "each": 0, "merge": 0, "last": 0}


def test_fork_goes_on_from_a_message_by_its_number_in_the_log(home: Path, retried: str) -> None:
    for line in here("log", retried, cwd=home).stdout.splitlines():
        number, *_, who, arrow, to = (*line.split()[:1], *line.partition("handoff")[2].split()[:3], "", "", "")[:4]
        if (who, arrow, to) == ("merge", "→", "last"):
            break
    ended = here("fork", retried, "--until", number, "--run", "until", "--wait", cwd=home)
    assert (ended.stdout, ended.stderr) == ("X Y!\n", "until\nforked from retried: reuses split, each, merge\n")
    anew = here("fork", retried, "--until", "1", "--run", "anew", "--wait", cwd=home)
    assert (anew.stdout, anew.stderr) == ("X Y!\n", "anew\nforked from retried: reuses no step\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--until", "99"], "messages: --until 99 is past its end"),
        (["--until", "1", "--after", "split"], "give one of them"),
        (["--after", "last"], "cannot go on after 'last', which is the last step of its flow. Known: each, merge,"),
        (["--after", "spilt"], "which is no step of its flow. Did you mean 'split'?"),
        (["--run", "a.b"], "run id 'a.b' cannot be used in a subject"),
    ],
)
def test_fork_from_where_there_is_nothing_is_refused(
    home: Path, retried: str, arguments: list[str], message: str
) -> None:
    ended = here("fork", retried, *arguments, cwd=home)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr


def test_task_that_was_refused_cannot_be_retried_and_is_dead(home: Path) -> None:
    seq = asyncio.run(publish(home, "task", '{"input": {"text": "a"}}'))
    run = f"task-{seq:012d}"
    until_so(lambda: here("show", run, cwd=home).returncode == 0)
    retried = here("retry", run, cwd=home)
    assert (retried.returncode, f"{run} never began, its task was refused." in retried.stderr) == (2, True)
    dead = here("dead", "--limit", "1", cwd=home).stdout
    assert dead.splitlines()[2] == f"  baton show {run}   never began: submit it again"


# ---- dead ----------------------------------------------------------------------------------------


def test_dead_lists_failed_steps_with_the_command_to_go_on(home: Path, retried: str) -> None:
    here("submit", WORDS, "text=a b\nc", "breaks_on=c", "--run", "newest", "--wait", cwd=home)
    dead = here("dead", cwd=home).stdout.splitlines()
    assert dead[0].split()[::3] == ["✗", "newest"]
    assert dead[1:4] == [
        "  count-1  Retry: the line has 'c' in it at words.py:19 in count (2 tries)",
        "  baton retry newest",
        "",
    ]
    (row,) = [row for row in json.loads(here("dead", "--json", cwd=home).stdout) if row["run"] == "broken"]
    assert (row["kind"], row["step"], row["error"]["message"]) == ("failed", "merge", "the archive is closed")
    assert row["go_on"] == f"baton show {row['forked_as']}"
    assert facts_of(row["forked_as"], home)["forked_from"] == "broken"


def test_dead_lists_rejected_messages_with_the_place_of_their_bytes(home: Path) -> None:
    seq = asyncio.run(publish(home, "handoff", "no json"))
    until_so(lambda: "rejected" in here("dead", cwd=home).stdout)
    head, why, go_on = here("dead", "--limit", "1", cwd=home).stdout.splitlines()
    assert head.startswith("✗ rejected  ")
    assert head.endswith(f"  sequence {seq} on baton.handoff.mend--split.garbage.split.start")
    assert "malformed" in why
    assert go_on == f"  nats stream get baton {seq}"
    (row,) = json.loads(here("dead", "--limit", "1", "--json", cwd=home).stdout)
    assert (row["kind"], row["seq"], row["run"]) == ("rejected", seq, "garbage")


def test_nothing_dead_is_said(tmp_path: Path) -> None:
    assert baton("run", WORDS, "text=a b", cwd=tmp_path).returncode == 0
    ended = baton("dead", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "no run has failed, and no message was rejected\n"


# ---- schedules -----------------------------------------------------------------------------------


def test_schedule_runs_a_flow_again_and_again_until_it_is_removed(home: Path) -> None:
    before = due_runs(home)
    made = baton("schedule", WORDS, "text=a b", "--cron", "* * * * * *", "--name", "often", cwd=home)
    assert (made.returncode, made.stdout) == (0, "often\n")
    assert "runs words at * * * * * * (UTC)" in made.stderr
    until_so(lambda: len(due_runs(home) - before) >= 2)
    (listed,) = json.loads(here("schedules", "--json", cwd=home).stdout)
    assert (listed["name"], listed["flow"], listed["cron"]) == ("often", "words", "* * * * * *")
    assert listed["last_at"] < listed["next_at"]
    removed = baton("unschedule", "often", cwd=home)
    assert removed.stdout == "often is unscheduled: words does not run for it any more\n"
    assert json.loads(here("schedules", "--json", cwd=home).stdout) == []
    fired = asyncio.run(firings(home, "often"))
    until_so(lambda: {run.rpartition("-")[2] for run in due_runs(home) - before} == {str(seq) for seq in fired})
    assert {facts_of(run, home)["output"] for run in due_runs(home) - before} == {"2 words in 1 lines\n"}


def test_schedule_for_once_fires_once_and_is_gone(home: Path) -> None:
    before = due_runs(home)
    name = here("schedule", WORDS, "text=once", "--at", "+1s", cwd=home).stdout.strip()
    assert len(name) == 8
    until_so(lambda: len(due_runs(home) - before) == 1)
    gone = here("unschedule", name, cwd=home)
    assert (gone.returncode, gone.stderr) == (
        2,
        f"baton: there is no schedule {name!r}. `baton schedules` lists them\n",
    )


def test_schedules_are_listed_by_what_comes_next_and_share_no_name_by_chance(home: Path) -> None:
    for more in (["--at", "+2h"], ["--at", "+1h", "--name", "soon"], ["--cron", "@yearly"], ["--cron", "@yearly"]):
        assert here("schedule", WORDS, "text=a", *more, cwd=home).returncode == 0
    assert here("schedule", MEND, "text=a", f"folder={home}", "--at", "+3h", "--name", "soon", cwd=home).stdout
    lines = here("schedules", cwd=home).stdout.splitlines()
    assert lines[0].split() == ["name", "flow", "cron", "(UTC)", "next", "input"]
    assert [line.split()[1:3] for line in lines[1:]] == [
        ["words", "once"],
        ["words", "once"],
        ["mend", "once"],
        ["words", "@yearly"],
    ]
    both = here("unschedule", "soon", cwd=home)
    assert both.stderr == "baton: 2 flows have a schedule 'soon'. Say which: mend/soon, words/soon\n"
    for name in ("mend/soon", "words/soon", lines[2].split()[0], lines[4].split()[0]):
        assert here("unschedule", name, cwd=home).returncode == 0
    assert here("schedules", cwd=home).stderr.startswith("nothing is scheduled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cron", "nope"], "the schedule 'nope' cannot be read: expected six fields"),
        (["--cron", "@at 2030-01-01T00:00:00Z"], "the schedule '@at 2030-01-01T00:00:00Z' cannot be read"),
        (["--cron", " "], "the schedule ' ' cannot be read"),
        (["--at", "+1h", "breaks_on=@big"], "the input has 2,000,0"),
    ],
)
def test_schedule_that_the_broker_would_not_keep_is_refused(home: Path, arguments: list[str], message: str) -> None:
    (home / "big").write_text("x" * 2_000_000)
    ended = here("schedule", WORDS, "text=a", *arguments, cwd=home)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"baton: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text=a"], "when? Give either --cron '0 0 6 * * *' or --at TIME"),
        (["text=a", "--cron", "@daily", "--at", "+1s"], "when? Give either"),
        (["text=a", "--at", "soon"], "the time 'soon' cannot be read. Expected 2026-11-25T06:00 (local)"),
        (["text=a", "--at", "2020-01-01T00:00Z"], "the time '2020-01-01T00:00Z' is past: it is "),
        (["text=a", "--at", "+1h", "--name", "a.b"], "schedule 'a.b' cannot be used in a subject"),
        (["--at", "+1h"], "flow 'words', input 'text': missing; expected str"),
        (["text=a", "pause_s=x", "--at", "+1h"], "flow 'words', input 'pause_s': found \"x\"; expected a number"),
    ],
)
def test_bad_schedule_is_told_before_anything_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["baton", "schedule", WORDS, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"baton: {message}")
    assert not (tmp_path / ".baton").exists()


# ---- what they need ------------------------------------------------------------------------------


async def publish(home: Path, kind: str, body: str) -> int:
    """Publish as a foreign client would: a task of `mend`, or a handoff to its first step."""
    async with open_bus(Settings(url=(home / "url").read_text())) as bus:
        subject = bus.subjects.task("mend")
        if kind == "handoff":
            subject = f"{bus.settings.namespace}.handoff.mend--split.garbage.split.start"
        return await bus.publisher.append(subject, body.encode())


async def firings(home: Path, name: str) -> list[int]:
    """The sequences at which the broker published a schedule's task."""
    found = [0]
    async with open_bus(Settings(url=(home / "url").read_text())) as bus:
        subject = bus.subjects.due("task", "words", name)
        with contextlib.suppress(NotFoundError):
            while True:
                msg = await bus.js.get_msg(bus.timers.stream, found[-1] + 1, subject=subject, direct=True, next=True)
                assert msg.seq is not None
                found.append(msg.seq)
    return found[1:]


def due_runs(home: Path) -> set[str]:
    """The runs that schedules have started, as far as they are done."""

    async def read() -> list[RunHead]:
        async with open_bus(Settings(url=(home / "url").read_text())) as bus:
            return await recent_runs(bus, 100)

    return {head.run for head in asyncio.run(read()) if head.run.startswith("due-") and head.status == "done"}


def until_so(condition: Callable[[], bool]) -> None:
    """Wait until a condition that is another process's matter holds."""
    deadline = time.monotonic() + 3 * WAIT_S  # each look may start a command
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
