"""`baton runs` with what is looked for, and `baton index`: the same rows with the index and without."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baton_bus.index.finding import Wanted

from .commands import WAIT_S, WORDS, baton, here, start
from .indexed import found_in

WANTED = [
    [],
    ["--failed"],
    ["--status", "done", "--status", "cancelled"],
    ["--flow", "words", "--limit", "2"],
    ["--text", "acme"],
    ["--text", "ACM told", "--sort", "cost"],
    ["--since", "1h", "--sort", "time"],
    ["--since", "1h", "--sort", "tokens"],
    ["--until", "2020-01-01"],
    ["--waiting"],
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with four runs, one of which failed, whose server runs."""
    home = tmp_path_factory.mktemp("home")
    command = start("up", WORDS, "--json", cwd=home, stderr=subprocess.DEVNULL)
    assert command.stdout is not None
    try:
        command.stdout.readline()
        baton("submit", WORDS, "text=a b\nc", "--run", "done-run", "--wait", cwd=home)
        here("submit", WORDS, "text=acme was told", "--run", "acme-run", "--wait", cwd=home)
        here("submit", WORDS, "text=acme\nc", "breaks_on=c", "--run", "failed-run", "--wait", cwd=home)
        yield home
    finally:
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0


def runs(home: Path, *arguments: str) -> tuple[list[str], str]:
    ended = here("runs", *arguments, "--json", cwd=home)
    assert ended.returncode == 0, ended.stdout
    return [run["run"] for run in json.loads(ended.stdout)], ended.stderr


def test_both_ways_list_the_same_and_say_the_same_of_it(home: Path) -> None:
    by_log = [(here("runs", *wanted, cwd=home).stdout, *runs(home, *wanted)) for wanted in WANTED]
    made = json.loads(here("index", "--json", cwd=home).stdout)
    assert (made["runs"], made["removed"], made["made_anew"]) == (len(by_log[0][1]), 0, "")
    by_index = [(here("runs", *wanted, cwd=home).stdout, *runs(home, *wanted)) for wanted in WANTED]
    Path(made["path"] if Path(made["path"]).is_absolute() else home / made["path"]).unlink()

    assert by_index == by_log
    found = {" ".join(wanted): names for wanted, (_, names, _) in zip(WANTED, by_log, strict=True)}
    assert found[""][-3:] == ["failed-run", "acme-run", "done-run"]
    assert found["--failed"] == ["failed-run"]
    assert found["--text acme"] == ["failed-run", "acme-run"]
    assert found["--text ACM told --sort cost"] == ["acme-run"]
    assert found["--until 2020-01-01"] == found["--waiting"] == []
    assert {said for _, _, said in by_log[:-2]} == {""}
    assert "no run fits" in here("runs", "--waiting", cwd=home).stderr


def test_index_is_kept_up_until_it_is_stopped(home: Path) -> None:
    (home / ".baton" / "index-baton.sqlite").unlink(missing_ok=True)
    keeper = start("index", "--follow", cwd=home)
    try:
        assert keeper.stderr is not None
        assert "keeps the index .baton/index-baton.sqlite" in keeper.stderr.readline()
        assert "up to date" in keeper.stderr.readline()
        here("submit", WORDS, "text=tardigrade", "--run", "new-run", "--wait", cwd=home)
        assert runs(home, "--text", "tardi") == (["new-run"], "")
        second = here("index", cwd=home)
        assert second.returncode == 2
        assert f"is kept by pid {keeper.pid} already" in second.stderr
    finally:
        keeper.send_signal(signal.SIGINT)
    assert keeper.wait(WAIT_S) == 0
    assert "4 runs in .baton/index-baton.sqlite: 0 messages read" in here("index", cwd=home).stdout
    again = here("index", "--rebuild", cwd=home).stdout
    assert "4 runs in .baton/index-baton.sqlite (made anew): " in again


def test_what_cannot_be_used_is_said_and_the_log_is_read(home: Path) -> None:
    index = home / ".baton" / "index-baton.sqlite"
    index.unlink(missing_ok=True)
    index.write_text("a note of mine, that is somewhat longer than the header of a database, so that it is read")
    names, said = runs(home, "--text", "acme")
    assert names == ["failed-run", "acme-run"]
    assert "without the index: the index .baton/index-baton.sqlite is no database" in said
    refused = here("index", cwd=home)
    assert (refused.returncode, index.read_text()[:6]) == (2, "a note")
    assert "move the file away" in refused.stderr
    index.unlink()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--status", "gone"], "'gone' is not one of"),
        (["--since", "soon"], "cannot be read. Expected 7d, 12h, or a day"),
        (["--text", "--,"], "has no word to look for"),
        (["--sort", "name"], "'name' is not one of"),
        (["--of", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_meant_is_told(home: Path, arguments: list[str], says: str) -> None:
    ended = here("runs", *arguments, cwd=home)
    assert ended.returncode == 2
    assert says in ended.stderr


def test_program_is_told_of_each_writing(home: Path) -> None:
    index = home / ".baton" / "index-baton.sqlite"
    index.unlink(missing_ok=True)
    keeper = start("index", "--follow", "--json", cwd=home)
    try:
        assert keeper.stdout is not None
        lines: list[dict[str, Any]] = [{"index": ""}]
        while lines[-1]["index"] != "up to date":
            lines.append(json.loads(keeper.stdout.readline()))
        written = [line for line in lines if line["index"] == "written"]
        positions = [line["position"]["version"] for line in written]
        assert positions == sorted(positions)
        assert positions[-1] > 0
        assert {line["position"]["made"] for line in written} == {written[0]["position"]["made"]}
        assert all(line["high_seq"] > 0 and line["stored_at"] is None for line in written)
        assert found_in(index, Wanted(limit=9, text="acme told")) == ["acme-run"], "what is told is there"
    finally:
        keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(WAIT_S) == 0


def test_index_that_was_taken_away_is_made_again(home: Path) -> None:
    index = home / ".baton" / "index-baton.sqlite"
    keeper = start("index", "--follow", "--json", cwd=home)
    try:
        assert keeper.stdout is not None
        while "up to date" not in keeper.stdout.readline():
            assert keeper.poll() is None
        index.unlink()
        while "up to date" not in keeper.stdout.readline():
            assert keeper.poll() is None
    finally:
        keeper.send_signal(signal.SIGTERM)
    assert keeper.wait(WAIT_S) == 0
    assert runs(home, "--text", "acme")[0] == ["failed-run", "acme-run"]
