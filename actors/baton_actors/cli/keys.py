"""Single keys from a terminal, without waiting for a line."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator

_ESCAPE = "\x1b"
_ESCAPE_S = 0.05
"""An arrow key comes as ESC and two more at once; a person who presses Esc sends nothing after it for so long."""


@contextlib.contextmanager
def single_keys(fd: int) -> Iterator[None]:
    """Have the terminal hand out keys as they are pressed, unseen, while the context is open."""
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def read_key(fd: int) -> str:
    """Wait for a key and return it: a character, a name (`right`, `home`, `page-down`), `?` for one that is not known.

    Empty when the terminal is gone.
    """
    pressed = _read_char(fd)
    if pressed != _ESCAPE:
        return pressed
    if not select.select([fd], [], [], _ESCAPE_S)[0]:
        return _ESCAPE
    sequence = _read_char(fd)
    while sequence in ("[", "O") or (sequence[-1:].isdigit() or sequence[-1:] == ";"):
        if not select.select([fd], [], [], _ESCAPE_S)[0]:
            break
        sequence += _read_char(fd)
    return _NAMED.get(sequence, "?")


def _read_char(fd: int) -> str:
    """Read one character; one that is not ASCII comes in several bytes."""
    data = os.read(fd, 1)
    if data and 0xC2 <= data[0] <= 0xF4:  # what UTF-8 begins with
        for _ in range(1 if data[0] < 0xE0 else 2 if data[0] < 0xF0 else 3):
            if select.select([fd], [], [], _ESCAPE_S)[0]:
                data += os.read(fd, 1)
    return data.decode(errors="replace")


_NAMED = {
    f"{lead}{letter}": key
    for lead in "[O"  # normal and application mode
    for letter, key in {"C": "right", "D": "left", "B": "right", "A": "left", "H": "home", "F": "end"}.items()
} | {
    f"[{number}~": key  # as the Linux console, tmux, screen and rxvt send them
    for number, key in {1: "home", 7: "home", 4: "end", 8: "end", 5: "page-up", 6: "page-down"}.items()
}
