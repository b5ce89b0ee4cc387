"""Going on with what was mended, through the command: a changed flow, failed branches, and nobody who plays."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from baton_actors.cli.nobody import FIRST_LOOK_S
from baton_bus.client.left import SURE_S

from .commands import WAIT_S, baton, here, start
from .servers import NatsServer

FLOW = """\
name = "desk"

[input]
text = "str"

[agents.split]
handler = "./desk.py:split"

[agents.check]
handler = "./desk.py:check"
max_attempts = 1

[agents.merge]
handler = "./desk.py:broken"

[steps.split]

[steps.check]
each = "split"
on_error = "continue"

[steps.merge]
after = "check"
"""
HANDLERS = """\
from pathlib import Path

from baton_actors import Fail


def split(text: str) -> list[str]:
    return text.split()


def check(item: str) -> str:
    if item == "odd" and not Path(__file__).with_name("patient").exists():
        raise Fail("odd")
    return item.upper()


def merge(check: list[str]) -> str:
    return " ".join(check)


def broken(check: list[str]) -> str:
    raise Fail("not yet")
"""


def desk_in(folder: Path, flow: str = FLOW) -> Path:
    (folder / "desk.toml").write_text(flow)
    (folder / "desk.py").write_text(HANDLERS)
    return folder


def mend(folder: Path) -> None:
    (folder / "desk.toml").write_text(FLOW.replace(":broken", ":merge"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run that failed at its last step, whose flow is mended since; nothing runs there."""
    folder = desk_in(tmp_path_factory.mktemp("desk"))
    ended = baton("run", "desk.toml", "text=a odd c", "--run", "first", cwd=folder)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1] == "  baton retry first   once it is mended"
    mend(folder)
    return folder


@pytest.fixture(scope="module")
def mended(desk: Path) -> str:
    """A run that goes on from it."""
    ended = baton("retry", "first", "--run", "second", cwd=desk)
    assert (ended.returncode, ended.stdout) == (0, "A C\n")
    assert ended.stderr.splitlines()[:4] == [
        "second",
        "./desk.toml has changed since: agent merge (handler ./desk.py:broken → ./desk.py:merge)",
        "forked from first: reuses split, check",
        "  does again merge (another handler)",
    ]
    return "second"


def test_retry_uses_the_flow_as_it_is_now_and_plays_it_where_no_worker_is_up(desk: Path, mended: str) -> None:
    facts = json.loads(baton("show", mended, "--json", cwd=desk).stdout)
    assert {row["step"]: row.get("reused", 0) for row in facts["steps"]} == {"split": 1, "check": 3, "merge": 0}
    assert facts["unplayed"] == []


def test_retry_with_the_flow_of_the_run_fails_as_it_did(desk: Path, mended: str) -> None:
    ended = baton("retry", "first", "--same", "--json", cwd=desk)
    facts = json.loads(ended.stdout)
    assert (ended.returncode, facts["status"], facts["error"]["message"]) == (1, "failed", "not yet")
    assert ended.stderr == ""


def test_failed_branches_of_a_run_that_is_done_are_retried(desk: Path, mended: str) -> None:
    (desk / "patient").touch()
    ended = baton("retry", mended, cwd=desk)
    assert (ended.returncode, ended.stdout) == (0, "A ODD C\n")
    assert ended.stderr.splitlines()[1:4] == [
        "1 of 3 branches of check failed: it is done again, 2 are kept",
        "forked from second: reuses split, check 2/3",
        "  does again check (it failed), merge (after check)",
    ]


def test_fork_takes_another_flow_by_name_and_a_broken_file_says_how_to_go_on(desk: Path, mended: str) -> None:
    (desk / "loud.toml").write_text(FLOW.replace('handler = "./desk.py:broken"', 'handler = "./desk.py:loud"'))
    with (desk / "desk.py").open("a") as file:
        file.write("\n\ndef loud(check: list[str]) -> str:\n    return ' '.join(check) + '!'\n")
    ended = baton("fork", mended, "--flow", "loud.toml", cwd=desk)
    assert (ended.returncode, ended.stdout) == (0, "A C!\n")
    (desk / "desk.toml").write_text(FLOW + "\n[steps.more]\n")
    try:
        broken = baton("retry", "first", cwd=desk)
    finally:
        mend(desk)
    assert (broken.returncode, broken.stdout) == (2, "")
    assert "steps.more" in broken.stderr
    assert broken.stderr.endswith("Mend it, or go on with the flow as the run has it: --same\n")
    both = baton("fork", mended, "--flow", "loud.toml", "--same", cwd=desk)
    assert (both.returncode, "give one of them" in both.stderr) == (2, True)


def test_fork_after_a_step_that_was_reused_keeps_the_flow_of_the_run_that_is_named(desk: Path, mended: str) -> None:
    ended = baton("fork", mended, "--after", "split", "--run", "from-split", "--same", cwd=desk)
    assert (ended.returncode, ended.stdout) in ((0, "A C\n"), (0, "A ODD C\n"))
    assert ended.stderr.splitlines()[:2] == ["from-split", "forked from first: reuses split"]


def test_file_that_is_gone_is_said_and_the_flow_of_the_run_is_used(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    folder = desk_in(tmp_path / "there")
    baton("run", "there/desk.toml", "text=a", "--run", "first", cwd=tmp_path)
    (folder / "desk.toml").unlink()
    gone = f"{folder / 'desk.toml'} has no flow 'desk' any more: goes on with that of the run"
    told = baton("retry", "first", "--run", "second", cwd=tmp_path)
    assert told.stderr.splitlines()[:3] == [
        "second",
        f"{gone}; --flow FILE takes another",
        "forked from first: reuses split, check",
    ]
    assert "✗ merge  Fail: not yet" in told.stderr, "its handlers are there, and are enough"
    (folder / "desk.py").unlink()
    told = baton("retry", "first", "--run", "third", cwd=tmp_path)
    assert (told.returncode, told.stdout) == (0, "third\n")
    assert told.stderr.splitlines()[2:] == [
        "  baton log third --follow   its actors have to be up",
        "· waits for desk--split, desk--check, desk--merge, which nobody plays",
        "  baton up ./there/desk.toml   starts it",
    ]


# ---- nobody plays --------------------------------------------------------------------------------


def test_what_waits_for_an_actor_that_nobody_plays_says_so(tmp_path: Path) -> None:
    desk_in(tmp_path)
    mend(tmp_path)
    waits = start("submit", "desk.toml", "text=a b", "--run", "waits", "--wait", cwd=tmp_path)
    assert waits.stderr is not None
    nobody = ["· waits for desk--split, which nobody plays\n", "  baton up ./desk.toml   starts it\n"]
    assert [waits.stderr.readline() for _ in range(3)] == ["waits\n", *nobody]
    assert baton("show", "waits", cwd=tmp_path).stdout.endswith("".join(nobody))
    facts = json.loads(baton("show", "waits", "--json", cwd=tmp_path).stdout)
    assert facts["unplayed"] == ["desk--split"]
    ended = baton("run", "desk.toml", "text=c", cwd=tmp_path)
    assert ended.stdout == "C\n"
    assert ended.stderr.splitlines()[0] == "1 earlier run of desk has not ended, and goes on beside this one:"
    assert ended.stderr.splitlines()[1].endswith("   baton cancel waits")
    waits.terminate()
    waits.wait(WAIT_S)


def test_it_is_said_within_two_seconds() -> None:
    assert FIRST_LOOK_S + SURE_S < 2.0


def test_retry_on_a_server_that_is_named_leaves_the_work_to_its_actors(
    tmp_path: Path, server: NatsServer, namespace: str
) -> None:
    desk_in(tmp_path)
    where = ["--nats", server.url, "--namespace", namespace]
    here("submit", "desk.toml", "text=a", "--run", "first", *where, cwd=tmp_path)
    here("cancel", "first", *where, cwd=tmp_path)
    ended = baton("retry", "first", "--run", "second", *where, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "second\n")
    assert ended.stderr.splitlines()[-2:] == [
        "· waits for desk--split, desk--check, desk--merge, which nobody plays",
        f"  baton up --nats {server.url} --namespace {namespace} ./desk.toml   starts it",
    ]


# ---- reload --------------------------------------------------------------------------------------


def test_up_takes_up_files_that_change_and_keeps_its_workers_when_one_has_a_mistake(tmp_path: Path) -> None:
    desk_in(tmp_path)
    mend(tmp_path)
    up = start("up", "desk.toml", "--reload", "--json", cwd=tmp_path, stderr=subprocess.PIPE)
    assert up.stdout is not None
    assert up.stderr is not None
    try:
        up.stdout.readline()
        code = (tmp_path / "desk.py").read_text()
        (tmp_path / "desk.py").write_text(code.replace("item.upper()", "item.upper("))
        told = list(iter(up.stderr.readline, "  desk goes on with the code that it has\n"))
        assert told[-1].startswith("✗ desk.py:")
        assert "'(' was never closed" in told[-1]
        assert baton("submit", "desk.toml", "text=a b", "--wait", cwd=tmp_path).stdout == "A B\n"
        (tmp_path / "desk.py").write_text(code.replace("item.upper()", "item.upper() + '?'"))
        for line in iter(up.stderr.readline, ""):
            if line == "↻ desk.py changed: desk--split, desk--check, desk--merge began anew\n":
                break
        assert baton("submit", "desk.toml", "text=a b", "--wait", cwd=tmp_path).stdout == "A? B?\n"
        # A flow that names what those who are up have not: whoever waits is told of it.
        (tmp_path / "other.toml").write_text(FLOW.replace(":broken", ":loud"))
        waits = start("submit", "other.toml", "text=a", "--run", "waits", "--wait", cwd=tmp_path)
        assert waits.stderr is not None
        assert waits.stderr.readline() == "waits\n"
        assert waits.stderr.readline() == "· merge  waits for a worker that has './desk.py:loud'\n"
        waits.terminate()
        waits.wait(WAIT_S)
    finally:
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=WAIT_S)
    assert up.returncode == 0
