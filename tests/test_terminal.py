"""What people see fits their terminal: 60, 80 or 160 columns, dark or light, with colours or without."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from rich.color import Color
from rich.console import Console

from baton_actors.cli.exits import CommandError, report
from baton_actors.cli.show.console import _COLOURS, console
from baton_actors.cli.show.lost import Lost, with_lost
from baton_actors.cli.show.said import death_lines, line_of, teller
from baton_actors.cli.show.steps_table import steps_table
from baton_actors.cli.text import wrapped
from baton_actors.processes.child import End
from baton_actors.processes.logs import LogSettings, carry_logging, configure
from baton_actors.processes.printed import Printed
from baton_actors.processes.supervisor import Death
from baton_actors.steps.held import HeldStep
from baton_actors.steps.logged import log_with
from baton_schemas.show.rows import Row

ROWS = [
    Row(step="split", status="done", attempts=1, elapsed_s=1.1),
    Row(step="digest", status="running", ended=2, count=3, input_tokens=5_354, output_tokens=392, rehearsed=True,
        attempts=2, retries=1, elapsed_s=33.0),
]  # fmt: skip


def drawn(what: object, width: int) -> list[str]:
    screen = Console(width=width, file=io.StringIO())
    screen.print(what)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (45, ["step", "status", "tries", "time"]),
        (60, ["step", "status", "tries", "cost", "time"]),
        (80, ["step", "status", "tries", "tokens", "in", "out", "cost", "time"]),
        (160, ["step", "status", "tries", "tokens", "in", "out", "cost", "time"]),
    ],
)
def test_table_of_steps_leaves_out_what_has_no_room(width: int, headings: list[str]) -> None:
    lines = drawn(steps_table(ROWS), width)
    assert lines[0].split() == headings
    assert len(lines) == 1 + len(ROWS)
    assert all(len(line) <= width for line in lines)
    assert lines[2].rstrip().endswith("33.0 s")


def test_long_line_of_a_handler_goes_on_beside_the_bar() -> None:
    line = Printed(actor="f--a", run="r1", step="look-up-3", text="many words " * 10)
    shown = line_of(line, "r1", width=60).plain.splitlines()
    assert shown[0].startswith("look-up-3 | many words")
    assert all(each.startswith("          | ") for each in shown[1:])
    assert all(len(each) <= 60 for each in shown)
    assert line_of(line, "r1").plain == f"look-up-3 | {line.text}"


def test_long_line_of_a_log_is_broken_between_words() -> None:
    line = Printed(actor="f--a", text="2026-11-25 [info] looked up  actor=f--a run=01m89hndp15y", is_log=True)
    assert line_of(line, width=40).plain == "2026-11-25 [info] looked up  actor=f--a\nrun=01m89hndp15y"


def test_line_of_another_run_says_of_which() -> None:
    line = Printed(actor="f--a", run="01m89hndp15y", step="a", text="x")
    assert line_of(line, "r1").plain == f"{line.run[-6:]} a | x"


def test_line_of_a_log_keeps_its_colours_and_controls_nothing() -> None:
    coloured = Printed(actor="f--a", text="\x1b[1mbold\x1b[0m text", is_log=True)
    assert [str(span.style) for span in line_of(coloured).spans] == ["bold"]
    assert line_of(Printed(actor="f--a", text="\x1b[2Jgone\x1b", is_log=True)).plain.isprintable()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([], "its worker died with nothing to do: exit code 3"),
        (["a"], "its worker died while doing a: exit code 3"),
        (["a-0", "a-1", "a-2", "a-3", "a-4"], "while doing a-0, a-1, a-2 and 2 more: exit code 3"),
    ],
)
def test_death_of_a_worker_says_what_it_held(held: list[str], said: str) -> None:
    steps = tuple(HeldStep("r1", step) for step in held)
    death = Death(actor="f--a", end=End(3, "exit code 3", None), held=steps, restart_s=0.5)
    first, second = (line.plain for line in death_lines(death, 15.0, "r1"))
    assert said in first
    assert ("within 15 s" in second) == bool(held)


def test_steps_of_a_dead_worker_wait_until_somebody_does_them_again() -> None:
    lost = Lost()
    lost.run = "r1"
    lost.add([HeldStep("r1", "digest-0"), HeldStep("r1", "digest-2"), HeldStep("r2", "split")], 15.0)
    split, digest = with_lost(ROWS, lost.steps())
    assert (split.waits, digest.waits, digest.waiting) == ("", "a new worker", 2)
    lost.found("digest-0")
    assert with_lost(ROWS, lost.steps())[1].waiting == 1
    lost.found("digest-2")
    assert with_lost(ROWS, lost.steps()) == ROWS


@pytest.mark.parametrize("name", sorted(_COLOURS.styles.keys() & {"green", "cyan", "yellow", "red"}))
def test_colour_can_be_read_on_black_and_on_white(name: str) -> None:
    colour = _COLOURS.styles[name].color
    assert isinstance(colour, Color)
    # https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio; 3 is what it asks of large text and of signs.
    parts = [value / 255 for value in colour.get_truecolor()]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    light = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    assert min((light + 0.05) / 0.05, 1.05 / (light + 0.05)) >= 3


def test_nothing_is_coloured_without_a_terminal_or_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert console().color_system is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color


def test_who_reads_what_is_printed_may_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    screen = Console(file=closed)
    teller(screen)([Printed(actor="f--a", text="hello")])
    assert closed.closed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two three", "one two\nthree"),
        ("  one two three", "  one two\n  three"),
        ("short\n\nwith https://example.org/long in it", "short\n\nwith\nhttps://example.org/long\nin it"),
        ("ten-letter-words", "ten-letter-words"),
        ("", ""),
    ],
)
def test_long_line_is_broken_between_words(text: str, shown: str) -> None:
    assert wrapped(text, 10) == shown


def test_error_is_one_line_unless_a_terminal_would_break_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = CommandError("there are many words in this one")
    assert report(error, []) == 2
    assert capsys.readouterr().err == "baton: there are many words in this one\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    report(error, [])
    assert capsys.readouterr().err == "baton: there are many\nwords in this one\n"


# ---- levels --------------------------------------------------------------------------------------


@pytest.fixture
def own_logging() -> Iterator[None]:
    level, last = logging.getLogger().level, logging.lastResort
    yield
    logging.getLogger().setLevel(level)
    logging.lastResort = last


@contextlib.contextmanager
def no_handlers() -> Iterator[None]:
    """Take pytest's own away for a moment."""
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = kept


def said_at(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> dict[str, set[str]]:
    """Return which levels are heard of whom, with `baton run`'s own level."""
    settings = LogSettings.from_environ(environ | {"BATON_LOG_FORMAT": "json"}, level="error")
    configure(settings)
    carry_logging(settings)
    log_with(run="r", step="s", actor="a")
    who = {
        "baton": structlog.get_logger("baton.test"),
        "structlog": structlog.get_logger(),
        "logging": logging.getLogger("mine"),
    }
    with no_handlers():
        for name, logger in who.items():
            for level in ("debug", "info", "warning", "error", "critical"):
                getattr(logger, level)(name)
    log_with()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all((event["run"], event["step"], event["actor"]) == ("r", "s", "a") for event in events)
    return {name: {event["level"] for event in events if event["event"] == name} for name in who}


def test_handlers_are_heard_as_python_has_it_and_baton_only_with_errors(
    own_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = {"error", "critical"}
    assert said_at({}, capsys) == {
        "baton": loud,
        "structlog": {"info", "warning", *loud},
        "logging": {"warning", *loud},
    }


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", {"debug", "info", "warning", "error", "critical"}),
        ("info", {"info", "warning", "error", "critical"}),
        ("error", {"error", "critical"}),
    ],
)
def test_level_that_is_set_holds_for_all(
    own_logging: None, capsys: pytest.CaptureFixture[str], level: str, heard: set[str]
) -> None:
    assert set(map(frozenset, said_at({"BATON_LOG_LEVEL": level}, capsys).values())) == {frozenset(heard)}


def test_handler_that_sets_up_logging_itself_has_its_way(own_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    settings = LogSettings(format="json")
    configure(settings)
    carry_logging(settings)
    with no_handlers():
        logging.basicConfig(level=logging.DEBUG, format="mine: %(message)s", stream=sys.stderr)
        logging.getLogger("x").debug("hello")
    assert capsys.readouterr().err == "mine: hello\n"
