"""`baton diff` on real runs: two of them, one and the run that it goes on from, and files where there is no server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .commands import WAIT_S, WORDS, baton, here, start


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with two runs of one flow, a run that goes on from the first, and the files of two."""
    home = tmp_path_factory.mktemp("home")
    command = start("up", WORDS, "--json", cwd=home, stderr=subprocess.DEVNULL)
    assert command.stdout is not None
    try:
        assert command.stdout.readline()
        baton("submit", WORDS, "text=a b\nc", "--run", "one", "--wait", cwd=home)
        baton("submit", WORDS, "text=a b\nc d e", "--run", "two", "--wait", cwd=home)
        here("fork", "one", "--after", "split", "--same", "--run", "again", "--wait", cwd=home)
        for run in ("one", "two"):
            (home / f"{run}.jsonl").write_text(here("export", run, cwd=home).stdout, "utf-8")
        yield home
    finally:
        command.terminate()
        assert command.wait(WAIT_S) == 0


def test_runs_part_at_the_first_step_that_was_given_something_else(home: Path) -> None:
    ended = here("diff", "one", "two", cwd=home)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "  input text" in lines
    assert "    - a b⏎c" in [line.rstrip() for line in lines]
    assert "    + a b⏎c d e" in [line.rstrip() for line in lines]
    assert "they part at split, which read other values: text" in lines
    told = [line.split()[0] for line in lines[lines.index(next(x for x in lines if x.startswith("step "))) + 1 :]]
    assert told[:4] == ["split", "count-1", "add", "write"]
    assert lines[-1].strip() == "1 step is alike"


def test_run_alone_is_compared_with_the_one_that_it_goes_on_from(home: Path) -> None:
    ended = here("diff", "again", cwd=home)
    assert ended.stdout.splitlines()[0].split()[3] == "one"
    assert "no step differs: 5 alike" in ended.stdout
    alone = here("diff", "one", cwd=home)
    assert alone.returncode == 2
    assert "goes on from no other" in alone.stderr


def test_json_has_every_difference(home: Path) -> None:
    facts = json.loads(here("diff", "one", "two", "--json", cwd=home).stdout)
    assert (facts["first"], facts["alike"], facts["prompts"]) == ("split", 1, [])
    assert [pair["after"] for pair in facts["input"]] == ["a b\nc d e"]
    assert [step["step"] for step in facts["steps"]] == ["split", "count-1", "add", "write"]
    assert facts["steps"][1]["reads"] == [{"name": "item", "before": "c", "after": "c d e"}]
    assert facts["before"]["run"] == "one"


def test_files_are_compared_where_there_is_no_server(home: Path, tmp_path: Path) -> None:
    files = [str(home / "one.jsonl"), str(home / "two.jsonl")]
    there = here("diff", *files, cwd=tmp_path)
    assert there.stdout == here("diff", "one", "two", cwd=home).stdout
    assert list(tmp_path.iterdir()) == []
    mixed = here("diff", files[0], "two", cwd=home)
    assert mixed.stdout == there.stdout


def test_run_or_file_that_there_is_not_is_told(home: Path) -> None:
    ended = here("diff", "one", "nowhere", cwd=home)
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr
    gone = here("diff", "one", "./nowhere.jsonl", cwd=home)
    assert gone.returncode == 2
    assert "nowhere.jsonl" in gone.stderr


def test_show_says_on_what_the_time_went_and_runs_how_each_stands(home: Path) -> None:
    shown = here("show", "one", cwd=home).stdout
    assert " waiting for a worker" in shown
    facts = json.loads(here("show", "one", "--json", cwd=home).stdout)
    assert {lane["step"] for lane in facts["lanes"]} == {"split", "count-0", "count-1", "add", "write"}
    assert 0 < sum(facts["time"].values()) <= facts["elapsed_s"] + 0.001
    rows = {each["run"]: each["summary"] for each in json.loads(here("runs", "--json", cwd=home).stdout)}
    assert (rows["two"]["steps_done"], rows["two"]["steps"], rows["two"]["attempts"]) == (4, 4, 5)
    assert rows["again"]["forked_from"] == "one"
    wide = here("runs", cwd=home, COLUMNS="160").stdout
    assert "text=a b c d e" in wide or "a b c d e" in wide
