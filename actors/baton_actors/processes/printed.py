"""What a worker's process writes to its stdout and stderr, as it goes to its supervisor: lines, marked with the step.

A line that Python code printed begins with a mark that says in which step. What has none was written past Python's
`sys.stdout`: by C code, or by a subprocess. Pure.
"""

from __future__ import annotations

import re

from msgspec import Struct

from baton_schemas.show.children import short_name

LINE_MAX = 16_384
"""Bytes of a line that are kept together: what prints a megabyte without a line break is shown in parts."""
_MARK, _BETWEEN = "\x1e", "\x1f"
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b."
)


class Printed(Struct, frozen=True, kw_only=True):
    """A line that a worker's process wrote."""

    actor: str
    run: str = ""
    step: str = ""
    """Empty when nobody can say which of the actor's steps it was."""
    text: str
    is_log: bool = False
    """A line of Baton's own logs, which says in itself what it is about; colours and all."""

    @property
    def who(self) -> str:
        """What the line is marked with: the step, or else the agent."""
        return short_name(self.step) or self.actor.rpartition("--")[2]


def mark(run: str, step: str) -> str:
    """Return what a line that a step printed begins with."""
    return f"{_MARK}{run}{_BETWEEN}{step}{_BETWEEN}"


LOG = f"{_MARK}{_BETWEEN}log{_BETWEEN}"
"""What a line of Baton's logs begins with: no step has a run without a name."""


def read_line(line: bytes, actor: str, sole: tuple[str, str] = ("", "")) -> Printed:
    """Return a line as it is shown, without its line break; `sole` are run and step of one that has no mark."""
    text = line.decode("utf-8", "replace")
    if text.startswith(LOG):
        return Printed(actor=actor, text=text[len(LOG) :], is_log=True)
    run, step = sole
    if text.startswith(_MARK) and text.count(_BETWEEN, 0, 300) >= 2:
        run, step, text = text[1:].split(_BETWEEN, 2)
    return Printed(actor=actor, run=clean(run), step=clean(step), text=clean(text))


def clean(text: str) -> str:
    """Return what is left to see of a line: what was overwritten (`\\r`), colours and other controls are gone."""
    text = text.rstrip("\r").rpartition("\r")[2]
    return "".join(char if char.isprintable() else " " for char in _CONTROL.sub("", text).expandtabs())
