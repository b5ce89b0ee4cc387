"""Stepping through a log with single keys: where each leads, what a search finds, and how terminals send them."""

from __future__ import annotations

import os

import pytest

from baton_actors.cli.keys import read_key
from baton_actors.cli.show.stepping import HELP, Stepping

TEXTS = ["handoff start", "note split", "outcome split", "handoff Merge", "result done"] + ["note more"] * 15


def pressed(*keys: str) -> Stepping:
    stepping = Stepping(TEXTS)
    for key in keys:
        assert stepping.press(key)
    return stepping


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        (["right", " ", "n", "j"], 5),
        (["left", "left"], 1),
        (["right", "right", "p"], 2),
        (["end"], 20),
        (["G", "right"], 20),
        (["end", "home"], 1),
        (["page-down"], 11),
        (["page-down", "page-down"], 20),
        (["end", "page-up"], 10),
        (["/", *"split", "\r"], 2),
        (["/", *"split", "\r", "n"], 3),
        (["/", *"split", "\r", "n", "n"], 2),
        (["/", *"split", "\r", "n", "N"], 2),
        (["/", *"split", "\r", "N"], 3),
        (["/", *"MERGE", "\r"], 4),
        (["/", *"x", "\x7f", *"done", "\r"], 5),
        (["/", *"done", "\x1b", "right"], 2),
        (["/", *"start", "\r"], 1),
        (["/", *"split", "\r", "/", "\r"], 3),
        (["/", "right", "?", *"done", "\r"], 1),
        (["?", "ä"], 1),
    ],
)
def test_key_leads_to_its_message(keys: list[str], at: int) -> None:
    assert pressed(*keys).at == at


def test_line_below_says_what_is_typed_what_is_not_there_and_the_keys() -> None:
    assert pressed().line == HELP
    assert pressed("/", "q", "é").line == "/qé▏"
    lost = pressed("right", "/", *"no such", "\r")
    assert (lost.at, lost.line) == (2, "no message has 'no such' in it")
    assert lost.press("right")
    assert (lost.at, lost.line) == (3, HELP)
    assert pressed("/", "a", "\x7f", "\x7f").line == HELP


@pytest.mark.parametrize("key", ["q", "\x1b", "\x04", ""])
def test_key_that_leaves(key: str) -> None:
    assert not Stepping(TEXTS).press(key)


def test_terminal_that_is_gone_leaves_a_search_too() -> None:
    assert not pressed("/", "q").press("")


def test_keys_are_read_as_terminals_send_them_one_by_one() -> None:
    sent = {
        b"\x1b[C": "right",
        b"\x1bOD": "left",
        b"\x1b[H": "home",
        b"\x1bOF": "end",
        b"\x1b[1~": "home",
        b"\x1b[4~": "end",
        b"\x1b[7~": "home",
        b"\x1b[8~": "end",
        b"\x1b[5~": "page-up",
        b"\x1b[6~": "page-down",
        b"\x1b[1;5C": "?",
        b"\x1b[15~": "?",
        b"q": "q",
        "é".encode(): "é",
        "語".encode(): "語",
        "🦊".encode(): "🦊",
        b"\xff": "\N{REPLACEMENT CHARACTER}",
        b"\x1b": "\x1b",
    }
    heard, typed = os.pipe()
    os.write(typed, b"".join(sent))  # as fast as they come when a key is held down
    read = [read_key(heard) for _ in sent]
    os.close(typed)
    assert read == list(sent.values())
    assert read_key(heard) == ""
    os.close(heard)
