"""What a worker's process prints: lines with marks, and the board that says which steps it is doing."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from baton_actors.processes.printed import LINE_MAX, Printed, clean, mark, read_line
from baton_actors.processes.prints import _Marking, flush_all
from baton_actors.steps.held import SLOTS, Held, HeldStep, read_ended, read_held
from baton_actors.steps.logged import log_with

A = {"run": "r", "step": "a", "actor": "f--a"}


class Screen:
    """A marking stream, and what comes out at the other end of its pipe."""

    def __init__(self, only: Callable[[], tuple[str, str] | None] = lambda: None) -> None:
        self._heard, self._said = os.pipe()
        os.set_blocking(self._heard, False)
        self.stream = _Marking(self._said, "<stdout>", only)

    def lines(self) -> list[tuple[str, str]]:
        try:
            data = os.read(self._heard, 1_000_000)
        except BlockingIOError:
            return []
        return [(line.step, line.text) for line in (read_line(raw, "f--x") for raw in data.split(b"\n")[:-1])]

    def close(self) -> None:
        self.stream.close()
        os.close(self._heard)
        os.close(self._said)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def as_step(call: Callable[[], object], **fields: str) -> None:
    """Call it where the logs have these fields."""

    def run() -> None:
        log_with(**fields)
        call()

    contextvars.copy_context().run(run)


def test_line_is_marked_with_the_step_in_whose_context_it_is_printed(screen: Screen) -> None:
    as_step(lambda: print("one", 1, file=screen.stream), **A)
    print("nobody's", file=screen.stream)
    assert screen.lines() == [("a", "one 1"), ("", "nobody's")]


def test_line_without_a_context_is_of_the_only_step_that_is_being_done() -> None:
    screen = Screen(only=lambda: ("r", "b-3"))
    print("from a thread of its own", file=screen.stream)
    assert screen.lines() == [("b-3", "from a thread of its own")]
    screen.close()


def test_parts_of_lines_of_two_steps_do_not_mix(screen: Screen) -> None:
    as_step(lambda: print("a begins", end=" ", file=screen.stream, flush=True), **A)
    as_step(lambda: print("b", file=screen.stream), **A | {"step": "b"})
    as_step(lambda: print("and ends", file=screen.stream), **A)
    assert screen.lines() == [("b", "b"), ("a", "a begins and ends")]


def test_line_that_has_no_end_comes_when_its_step_ends(screen: Screen) -> None:
    as_step(lambda: print("a", end="", file=screen.stream), **A)
    as_step(lambda: print("b", end="", file=screen.stream), **A | {"step": "b"})
    assert screen.lines() == []
    screen.stream.end_lines(mark("r", "a"))
    assert screen.lines() == [("a", "a")]
    screen.stream.end_lines()
    assert screen.lines() == [("b", "b")]


def test_what_is_overwritten_is_not_shown_nor_kept(screen: Screen) -> None:
    def progress_bar() -> None:
        for percent in range(100_000):
            screen.stream.write(f"\r{percent} of it")
        assert len("".join(screen.stream.open_lines.values())) < 100
        screen.stream.write("\n")

    as_step(progress_bar, **A)
    assert screen.lines() == [("a", "99999 of it")]


def test_endless_line_comes_in_parts(screen: Screen) -> None:
    as_step(lambda: screen.stream.write("x" * (LINE_MAX + 1)), **A)
    assert screen.lines() == [("a", "x" * (LINE_MAX + 1))]
    assert screen.stream.open_lines == {}


def test_lines_of_threads_and_odd_characters_come_whole(screen: Screen) -> None:
    def speak(number: int) -> None:
        for _ in range(20):
            as_step(lambda: print("\udcff" + "ä" * 400, file=screen.stream), **A | {"step": f"s-{number}"})

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    lines: list[tuple[str, str]] = []
    while any(thread.is_alive() for thread in threads) or not lines:
        lines += screen.lines()
    lines += screen.lines()
    assert sorted(lines) == sorted((f"s-{number}", "\\udcff" + "ä" * 400) for number in range(4) for _ in range(20))


def test_nobody_who_listens_any_more_is_no_failure_of_the_step(screen: Screen) -> None:
    os.close(screen._heard)
    as_step(lambda: print("hello", file=screen.stream), **A)
    screen._heard = os.open(os.devnull, os.O_RDONLY)


def test_stream_is_one_that_libraries_can_use(screen: Screen) -> None:
    assert (screen.stream.encoding, screen.stream.isatty(), screen.stream.name) == ("utf-8", False, "<stdout>")
    screen.stream.writelines(["a\n", "b\n"])
    screen.stream.buffer.write(b"bytes\n")
    assert screen.lines() == [("", "a"), ("", "b"), ("", "bytes")]
    with pytest.raises(TypeError, match="must be str, not int"):
        screen.stream.write(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\tb", "a       b"),
        ("\x07bell\x00", " bell "),
        ("10 %\r20 %\r", "20 %"),
        ("\x1bcreset", "reset"),
    ],
)
def test_line_controls_no_terminal(raw: str, shown: str) -> None:
    assert clean(raw) == shown
    assert clean(raw).isprintable()


def test_line_without_a_mark_is_the_agents_own() -> None:
    line = read_line(b"\xff from C", "triage--lookup")
    assert line == Printed(actor="triage--lookup", text="\N{REPLACEMENT CHARACTER} from C")
    assert line.who == "lookup"


# ---- the board -----------------------------------------------------------------------------------


def test_steps_that_are_held_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "7.held"
    held = Held(file)
    first, second = held.take("r1", "a-10000"), held.take("r" * 64, "b" * 64 + "-9999")
    assert read_held(file) == [HeldStep("r1", "a-10000"), HeldStep("r" * 64, "b" * 64 + "-9999")]
    assert (held.only, read_ended(file)) == (None, 0)
    held.free(first)
    assert (held.only, read_ended(file)) == (("r" * 64, "b" * 64 + "-9999"), 1)
    held.free(second)
    assert (read_held(file), held.only) == ([], None)


def test_more_steps_than_are_kept_are_done_all_the_same(tmp_path: Path) -> None:
    held = Held(tmp_path / "held")
    slots = [held.take("r", f"s-{number}") for number in range(SLOTS + 3)]
    assert slots[-3:] == [-1, -1, -1]
    for slot in slots:
        held.free(slot)
    assert read_held(tmp_path / "held") == []


def test_folder_that_is_gone_keeps_no_step_from_being_done(tmp_path: Path) -> None:
    held = Held(tmp_path / "gone" / "held")
    held.free(held.take("r", "a"))
    assert read_held(tmp_path / "gone" / "held") == []
    assert read_ended(tmp_path / "gone" / "held") == 0


def test_end_of_the_process_minds_no_stream_that_a_handler_has_closed_or_taken_away(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", screen.stream)
    as_step(lambda: print("left", end=""), **A)
    screen.stream.close()
    flush_all()
    assert screen.lines() == [("a", "left")]


def test_our_own_stdout_is_left_alone() -> None:
    assert not isinstance(sys.stdout, _Marking)
