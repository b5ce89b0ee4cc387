"""The commands around a team that is up: submitting to it, looking at its runs, and stopping it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .commands import BATON, WAIT_S, WORDS, all_gone, baton, descendants, environ, here, start
from .servers import until


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which `baton up words` runs, with one run done and one failed."""
    home = tmp_path_factory.mktemp("home")
    command = start("up", WORDS, "--json", cwd=home, stderr=subprocess.DEVNULL)
    assert command.stdout is not None
    try:
        up = json.loads(command.stdout.readline())
        assert list(up["flows"][0]["actors"]) == ["words--splitter", "words--counter", "words--adder", "words--writer"]
        here("submit", WORDS, "text=a b\nc", "--run", "done-run", "--wait", cwd=home)
        here("submit", WORDS, "text=a b\nc", "breaks_on=c", "--run", "failed-run", "--wait", cwd=home)
        yield home
    finally:
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0


async def test_up_stops_on_a_signal_and_leaves_nothing(tmp_path: Path) -> None:
    command = start("up", WORDS, cwd=tmp_path)
    assert command.stderr is not None
    while "baton submit" not in command.stderr.readline():
        assert command.poll() is None
    children = descendants(command.pid)
    command.send_signal(signal.SIGHUP)
    assert command.wait(WAIT_S) == 0
    await until(lambda: all_gone(children))
    assert len(children) >= 6, "a server, the fork server, and a worker for each actor"


def test_submit_prints_the_id_of_a_durable_run(home: Path) -> None:
    run = baton("submit", WORDS, "text=x", cwd=home).stdout.strip()
    assert len(run) == 26
    assert here("log", run, "--follow", cwd=home).stdout.splitlines()[-1].split()[3:5] == ["result", "done"]


def test_submit_waits_for_the_output(home: Path) -> None:
    ended = here("submit", WORDS, "text=x y", "--run", "waited", "--wait", cwd=home)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "2 words in 1 lines\n", "waited\n")


def test_submit_tells_why_a_run_failed(home: Path) -> None:
    ended = here("submit", WORDS, "text=a b\nc", "breaks_on=c", "--run", "failed-run", "--wait", cwd=home)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        "baton: step 'count-1' failed: Retry: the line has 'c' in it at words.py:19 in count (2 tries)" in ended.stderr
    )


def test_runs_are_listed_from_the_newest(home: Path) -> None:
    here("submit", WORDS, "text=x", "--run", "newest", "--wait", cwd=home)
    listed = baton("runs", cwd=home).stdout.splitlines()
    assert listed[0].split() == ["run", "flow", "status", "started", "time", "cost"]
    assert listed[1].split()[:4] == ["✓", "newest", "words", "done"]
    assert "✗ failed-run" in "\n".join(listed)
    (run,) = json.loads(here("runs", "--limit", "1", "--json", cwd=home).stdout)
    assert run["run"] == "newest"


def test_show_has_the_steps_and_the_output(home: Path) -> None:
    shown = baton("show", "done-run", cwd=home).stdout
    assert shown.splitlines()[0].startswith("✓ words  done-run  done in ")
    assert "✓ count  2/2      done" in shown
    assert shown.endswith("\n3 words in 2 lines\n")


def test_show_of_a_step_has_what_it_read_and_how_it_failed(home: Path) -> None:
    shown = here("show", "failed-run", "count-1", cwd=home).stdout
    assert shown.splitlines()[1].startswith("  failed after 2 tries in ")
    assert "branch 2 of 2 of count, handler ./words.py:count" in shown
    assert [line.split() for line in shown.splitlines() if "item " in line] == [["item", "c"]]
    assert "the line has 'c' in it at words.py:19 in count (2 tries)" in " ".join(shown.split())
    facts = json.loads(here("show", "failed-run", "count-1", "--json", cwd=home).stdout)
    assert (facts["status"], facts["index"], facts["count"], facts["values"]["breaks_on"]) == ("failed", 1, 2, "c")
    assert [attempt["came_to"] for attempt in facts["attempts"]] == ["failed", "failed"]
    assert facts["error"]["at"]["function"] == "count"


def test_show_of_a_step_that_there_is_not_says_which_there_are(home: Path) -> None:
    ended = here("show", "done-run", "cont", cwd=home)
    says = "baton: run done-run has no step 'cont'. Did you mean 'count'? Its steps: split, count, add, write.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", says)
    told = json.loads(here("show", "done-run", "count-9", "--json", cwd=home).stdout)
    assert told["error"]["code"] == "unknown_step"
    hint = here("show", "count-0", cwd=home).stderr
    assert "It is a step of the latest run: `baton show " in hint


def test_show_takes_the_end_of_an_id_and_names_the_step_that_broke(home: Path) -> None:
    shown = here("show", "led-run", cwd=home)
    assert "✗ count  2/2" in shown.stdout
    assert "✗ count-1  Retry: the line has 'c' in it at words.py:19 in count (2 tries)" in shown.stdout
    facts = json.loads(here("show", "failed-run", "--json", cwd=home).stdout)
    assert (facts["status"], facts["error"]["step"]) == ("failed", "count-1")


def test_unknown_and_ambiguous_ids_are_told(home: Path) -> None:
    unknown = here("show", "nobody", cwd=home)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "baton: no run 'nobody' in the log. `baton runs` lists the runs.\n",
    )
    ambiguous = here("show", "--json", "--", "-run", cwd=home)
    assert json.loads(ambiguous.stdout)["error"]["type"] == "AmbiguousRun"


def test_log_has_a_line_per_message_with_its_number_and_the_time_since_the_start(home: Path) -> None:
    lines = baton("log", "done-run", cwd=home).stdout.splitlines()
    assert lines[0].split() == ["1", "+0.000", "s", "handoff", "start", "→", "split"]
    assert lines[-1].split()[3:5] == ["result", "done"]
    assert here("log", "done-run", "--json", cwd=home).stdout == here("export", "done-run", cwd=home).stdout


def test_replay_ends_where_the_live_state_does_also_from_a_file_with_no_bus(home: Path, tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text(baton("export", "failed-run", cwd=home).stdout)
    steps = baton("replay", "run.jsonl", "--json", cwd=tmp_path).stdout.splitlines()
    last = json.loads(steps[-1])
    shown = json.loads(here("show", "failed-run", "--json", cwd=home).stdout)
    assert last["state"]["steps"] == shown["steps"]
    assert (last["after"], last["state"]["status"], last["state"]["error"]) == (len(steps), "failed", shown["error"])
    assert here("replay", "failed-run", "--json", cwd=home).stdout.splitlines() == steps
    assert not (tmp_path / ".baton").exists()


def test_replay_until_shows_the_state_after_so_many_messages(home: Path) -> None:
    after_2 = here("replay", "done-run", "--until", "2", cwd=home).stdout
    assert "✓ split" in after_2
    assert "· count" in after_2
    assert json.loads(here("replay", "done-run", "--until", "2", "--json", cwd=home).stdout)["after"] == 2
    past = here("replay", "done-run", "--until", "999", cwd=home)
    assert (past.returncode, "past its end" in past.stderr) == (2, True)


def test_replay_without_a_terminal_prints_every_step(home: Path) -> None:
    lines = here("replay", "done-run", cwd=home).stdout.splitlines()
    assert lines[0].split()[:1] == ["1"]
    assert lines[1].split() == ["input", "text", "a", "b", "c"]
    assert "      split queued" in lines
    assert '      split put out  ["a b", "c"]' in lines
    assert lines[-1].strip() == "split done  count 2/2  add done  write done"


def test_replay_on_a_terminal_goes_forward_and_back(home: Path) -> None:
    ours, theirs = pty.openpty()
    command = subprocess.Popen([*BATON, "replay", "done-run"], cwd=home, env=environ(TERM="xterm"), stdin=theirs,
                               stdout=theirs, stderr=theirs)  # fmt: skip
    os.close(theirs)
    for keys, page in [("", "message 1 of"), ("n", "message 2 of"), ("\x1b[C", "message 3 of"), ("p", "message 2 of"),
                       ("g", "message 1 of")]:  # fmt: skip
        os.write(ours, keys.encode())
        seen = ""
        while page not in seen:
            seen += os.read(ours, 4096).decode(errors="replace")
    os.write(ours, b"q")
    with os.fdopen(ours, "rb", buffering=0) as rest:
        assert command.wait(WAIT_S) == 0
        assert rest.fileno() == ours


def test_file_that_is_no_export_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"seq":1')
    ended = here("replay", "bad.jsonl", cwd=tmp_path)
    assert (ended.returncode, ended.stderr.startswith("baton: line 1 is no entry of a log")) == (2, True)
    assert here("replay", "no.jsonl", cwd=tmp_path).stderr == "baton: no.jsonl: No such file or directory\n"


def test_cancel_ends_a_run_and_says_when_it_had_ended_before(home: Path) -> None:
    here("submit", WORDS, "text=x", "pause_s=60", "--run", "long", cwd=home)
    ended = baton("cancel", "long", "--reason", "changed my mind", cwd=home)
    assert (ended.returncode, ended.stdout) == (0, "long is cancelled\n")
    assert json.loads(here("show", "long", "--json", cwd=home).stdout)["reason"] == "changed my mind"
    late = here("cancel", "done-run", cwd=home)
    assert (late.returncode, late.stderr) == (1, "baton: done-run had ended before: done\n")


def test_actor_and_steward_run_alone_until_a_signal(home: Path) -> None:
    for arguments, word in [(["actor", WORDS, "words--adder"], "worker.ready"), (["steward", WORDS], "words")]:
        command = start(*arguments, cwd=home)
        assert command.stderr is not None
        assert word in command.stderr.readline()
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0
        assert not descendants(command.pid)


def test_actor_that_is_unknown_is_told_the_nearest(home: Path) -> None:
    ended = baton("actor", WORDS, "conter", cwd=home)
    assert (ended.returncode, ended.stderr) == (
        2,
        "baton: flow 'words' has no agent or actor 'conter'. Did you mean 'counter'?\n",
    )


def test_actor_without_a_server_says_how_to_have_one(tmp_path: Path) -> None:
    ended = baton("actor", WORDS, "counter", cwd=tmp_path)
    assert (ended.returncode, "Start one with `baton up FLOW`" in ended.stderr) == (3, True)
    assert not (tmp_path / ".baton").exists()


def test_looking_where_nothing_ever_ran_makes_no_directory(tmp_path: Path) -> None:
    ended = here("runs", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"baton: no runs here: there is no directory {tmp_path}/.baton.")
    assert not (tmp_path / ".baton").exists()


def test_run_submitted_with_every_actor_down_is_there_for_later(tmp_path: Path) -> None:
    run = json.loads(baton("submit", WORDS, "text=x y z", "--json", cwd=tmp_path).stdout)["run"]
    shown = baton("show", cwd=tmp_path).stdout
    assert shown.startswith(f"● words  {run}  running")
    assert "· split           queued" in shown


def test_graph_is_drawn_and_is_mermaid_and_json(tmp_path: Path) -> None:
    drawn = baton("graph", WORDS, cwd=tmp_path).stdout
    assert "\N{MULTIPLICATION SIGN} each split" in drawn
    assert "joins all" in drawn
    assert here("graph", WORDS, "--mermaid", cwd=tmp_path).stdout.startswith("flowchart TD\n  in([input])\n")
    steps = json.loads(here("graph", WORDS, "--json", cwd=tmp_path).stdout)["steps"]
    assert [(step["step"], step["each"], step["joins"]) for step in steps][1:3] == [
        ("count", "split", False),
        ("add", "", True),
    ]
