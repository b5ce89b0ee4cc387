"""`baton run --stream`, and what steps say in `baton run` and `baton show --follow`, in pipes and on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import select
import signal
import struct
import subprocess
import termios
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_actors.cli.show.wrapping import Wrapping
from baton_actors.cli.text import wrapped

from .commands import WAIT_S, baton, environ, here, start
from .talking_model import TalkingModel, talking_model

FLOW = """
name = "tale"
[agents.first]
handler = "./tale.py:first"
[agents.writer]
model = "worker"
prompt = "Write about {first}."
retry_base_s = 0.02
retry_max_s = 0.02
[steps.first]
[steps.write]
agent = "writer"
after = "first"
"""
HANDLER = """
import asyncio, os
from baton_actors import Context

async def first(context: Context) -> str:
    for number in range(30):
        await context.say(f"page {number // 10} \\x1b[2J of 3")
        await asyncio.sleep(0.01)
    while os.path.exists("waits"):
        await asyncio.sleep(0.01)
    return "it"
"""


@pytest.fixture
def model() -> Iterator[TalkingModel]:
    with talking_model() as model:
        yield model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "tale.toml").write_text(FLOW)
    (tmp_path / "tale.py").write_text(HANDLER)
    return tmp_path


def streaming(home: Path, model: TalkingModel, *more: str, **files: Any) -> subprocess.Popen[str]:
    return start("run", "tale.toml", "--stream", *more, cwd=home, env=environ(**model.environ), **files)


def read(command: subprocess.Popen[str], size: int) -> str:
    """Read so many characters of its stdout as soon as they are there."""
    assert command.stdout is not None
    found = b""
    while len(found) < size:
        part = os.read(command.stdout.fileno(), size - len(found))
        assert part, f"it ended after {found!r}"
        found += part
    return found.decode()


class Terminal:
    """A pseudo-terminal of 80 columns, and what was written on it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until this is there. Fails at the end of the command."""
        while text not in self.seen:
            assert select.select([self._ours], [], [], WAIT_S)[0], self.seen
            self.seen += os.read(self._ours, 65_536).decode(errors="replace")

    def rest(self, command: subprocess.Popen[str]) -> str:
        """Return all that is written until the command has ended."""
        os.close(self.theirs)
        try:
            while part := os.read(self._ours, 65_536):
                self.seen += part.decode(errors="replace")
        except OSError:  # how Linux says that nobody holds the other side any more
            pass
        os.close(self._ours)
        command.wait(WAIT_S)
        return self.seen


def test_text_is_on_stdout_as_it_is_written_and_not_again(home: Path, model: TalkingModel) -> None:
    command = streaming(home, model)
    model.say("Once upon ")
    assert read(command, 10) == "Once upon "
    model.say("a time,\n\x1b[1mall\twas well.")
    model.end()
    out, err = command.communicate(timeout=WAIT_S)
    assert "Once upon " + out == "Once upon a time,\n\x1b[1mall\twas well.\n", "as it is without --stream"
    assert command.returncode == 0
    lines = [line.split("  ")[0] for line in err.splitlines()]
    assert lines.index("✓ first") < lines.index("✓ write")
    assert "● first  page 0  [2J of 3" in err
    assert here("show", "--json", cwd=home).stdout.count("Once upon a time") == 1


def test_retry_is_said_and_its_text_begins_anew_and_one_that_fails_ends_its_line(
    home: Path, model: TalkingModel
) -> None:
    (home / "tale.toml").write_text(FLOW.replace("retry_base", "max_attempts = 2\nretry_base"))
    command = streaming(home, model)
    model.say("It was a dark")
    assert read(command, 13) == "It was a dark"
    model.break_off()
    model.say("It was a bright", " day")
    assert read(command, 20) == "\nIt was a bright day"
    model.break_off()
    out, err = command.communicate(timeout=WAIT_S)
    assert (command.returncode, out) == (1, "\n")
    assert "· write: attempt 2 writes it anew\n" in err
    assert "✗ write" in err


def test_json_has_all_that_is_said_and_the_run_last(home: Path, model: TalkingModel) -> None:
    model.say("Once upon ", "a time")
    model.end()
    out, err = streaming(home, model, "--json").communicate(timeout=WAIT_S)
    *events, run = [json.loads(line) for line in out.splitlines()]
    assert (run["status"], run["output"], err) == ("done", "Once upon a time", "")
    said = [event for event in events if event["event"] == "said"]
    assert said[-1] == {"event": "said", "step": "first", "attempt": 1, "text": "page 2  [2J of 3"}
    wrote = [event for event in events if event["event"] == "wrote"]
    assert "".join(event["text"] for event in wrote) == "Once upon a time"
    assert wrote[0].keys() == {"event", "step", "attempt", "take", "of", "at", "text"}


def test_reader_that_is_gone_ends_nothing_but_the_text(home: Path, model: TalkingModel) -> None:
    command = streaming(home, model)
    model.say("Once upon a time")
    read(command, 16)
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None
    model.say(" and more")
    model.end()
    _, err = command.communicate(timeout=WAIT_S)
    assert "✓ done in" in err
    assert "Traceback" not in err
    assert json.loads(here("show", "--json", cwd=home).stdout)["output"] == "Once upon a time and more"


def test_reader_that_does_not_read_holds_up_nobody(home: Path, model: TalkingModel) -> None:
    command = streaming(home, model)
    model.say(*("word " * 2_000 for _ in range(30)))  # more than a pipe takes
    model.end()
    read(command, 10)
    assert command.stderr is not None
    os.killpg(command.pid, signal.SIGINT)
    command.wait(WAIT_S)
    err = command.stderr.read()
    assert "Fatal" not in err
    assert "Traceback" not in err
    assert command.returncode == 130


def test_rehearsal_streams_what_it_prints_without(home: Path) -> None:
    streamed = baton("run", "ask", "question=What is NATS?", "--stream", cwd=home)
    recorded = json.loads(here("show", "--json", cwd=home).stdout)["output"]
    assert (streamed.returncode, streamed.stdout) == (0, recorded.rstrip("\n") + "\n")


def test_output_that_no_model_writes_is_printed_as_ever(home: Path) -> None:
    (home / "tale.toml").write_text('name = "tale"\nagents.a.handler = "./tale.py:first"\nsteps.a = {}\n')
    streamed = baton("run", "tale.toml", "--stream", cwd=home)
    assert (streamed.returncode, streamed.stdout) == (0, "it\n")
    assert "page" in streamed.stderr


@pytest.mark.parametrize("up", [False, True])
def test_run_that_goes_on_streams_what_is_written_whoever_plays_it(home: Path, model: TalkingModel, up: bool) -> None:
    model.say("Once.")
    model.end()
    streaming(home, model, "--run", "first").communicate(timeout=WAIT_S)
    team = start("up", "tale.toml", "--json", cwd=home, env=environ(**model.environ)) if up else None
    if team is not None:
        assert team.stdout is not None
        assert team.stdout.readline()
    command = start("fork", "first", "--after", "first", "--stream", cwd=home, env=environ(**model.environ))
    model.say("Once upon ")
    assert read(command, 10) == "Once upon "
    model.say("a time")
    model.end()
    out, err = command.communicate(timeout=WAIT_S)
    assert (command.returncode, out, model.calls) == (0, "a time\n", 2)
    assert "forked from first: reuses first" in err
    if team is not None:
        team.terminate()
        team.communicate(timeout=WAIT_S)


def test_streaming_excludes_the_debugger(home: Path) -> None:
    refused = here("run", "tale.toml", "--stream", "--debug", cwd=home)
    assert refused.returncode == 2
    assert "--stream and --debug exclude each other" in refused.stderr


def test_on_a_terminal_the_text_is_wrapped_and_told_from_what_is_said_of_it(home: Path, model: TalkingModel) -> None:
    terminal = Terminal()
    command = streaming(home, model, stdout=terminal.theirs, stderr=terminal.theirs)
    model.say("It was a \x1b]0;dark\x07 night")
    terminal.until("It was a  ]0;dark")
    model.break_off()
    model.say("It was a bright day, and " + "the sun stood high over the sea. " * 3)
    model.end()
    lines = terminal.rest(command).splitlines()
    text = lines.index("It was a bright day, and the sun stood high over the sea. the sun stood high")
    assert lines[text + 1] == "over the sea. the sun stood high over the sea."
    (anew,) = [number for number, line in enumerate(lines) if "· write: attempt 2 writes it anew" in line]
    assert lines.index("It was a  ]0;dark  night") < anew < text
    assert all("\x1b]0;" not in line for line in lines)
    assert [line for line in lines if "✓" in line and "write" in line]


def test_table_shows_what_a_step_says_and_how_much_a_model_has_written(home: Path, model: TalkingModel) -> None:
    (home / "waits").touch()
    terminal = Terminal()
    files = {"stdout": terminal.theirs, "stderr": terminal.theirs}
    command = start("run", "tale.toml", cwd=home, env=environ(**model.environ), **files)
    terminal.until("page 2  [2J of 3")
    (home / "waits").unlink()
    model.say("Once upon a time")
    terminal.until("16 characters written")
    model.end()
    shown = terminal.rest(command)
    assert command.returncode == 0
    assert "\x1b[2J" not in shown
    last = shown[shown.rindex("tale") :]
    assert "characters written" not in last, "what is over is gone"


def test_run_is_followed_by_show_until_it_ends(home: Path, model: TalkingModel) -> None:
    (home / "waits").touch()
    running = start("run", "tale.toml", "--run", "r1", cwd=home, env=environ(**model.environ))
    assert running.stdout is not None
    while '"running"' not in here("runs", "--json", cwd=home).stdout:
        assert running.poll() is None
    piped = start("show", "r1", "--follow", cwd=home)
    terminal = Terminal()
    shown = start("show", "r1", "-f", cwd=home, stdout=terminal.theirs, stderr=terminal.theirs)
    terminal.until("page 2")  # said before it came: it is told again
    (home / "waits").unlink()
    model.say("Once")
    terminal.until("4 characters written")
    model.say(" upon a time")
    model.end()
    page = terminal.rest(shown)
    assert "Once upon a time" in page
    assert page.count("tokens in") >= 1
    out, err = piped.communicate(timeout=WAIT_S)
    assert out.startswith("✓ tale  r1  done in")
    assert out.endswith("Once upon a time\n")
    assert "✓ write  done in" in err
    assert "page" not in running.communicate(timeout=WAIT_S)[1], "a line for each word is for who asks"
    assert here("show", "r1", "write", "--follow", cwd=home).returncode == 2


WORDS = st.lists(st.sampled_from(["a", "word", "longer-words", "  ", "\n", " ", "\n\n  ", "x" * 30]), max_size=60)


@given(WORDS, st.integers(20, 40), st.integers(0, 2**32))
def test_text_in_pieces_is_wrapped_as_it_is_in_one(parts: list[str], width: int, seed: int) -> None:
    text, dice = "".join(parts), random.Random(seed)
    whole = Wrapping(width)
    expected = whole.add(text) + whole.end()
    wrapping, printed, at = Wrapping(width), "", 0
    while at < len(text):
        size = dice.randint(1, 9)
        printed += wrapping.add(text[at : at + size])
        at += size
    printed += wrapping.end()
    assert printed == expected
    assert expected.split() == text.split()
    assert all(len(line) <= width or len(line.split()) == 1 for line in expected.split("\n"))


def test_text_is_wrapped_as_outputs_are() -> None:
    text = textwrap.dedent(
        """\
        # A heading

        A paragraph that is long enough to be broken once or twice at thirty columns.
          - a point that is indented, and is broken below where it began
        """
    )
    wrapping = Wrapping(30)
    assert wrapping.add(text) + wrapping.end() == wrapped(text, 30)
