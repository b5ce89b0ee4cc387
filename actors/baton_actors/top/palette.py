"""Colours of the terminal: those of the pages, dark and light. A mark has the colour of its state; words have it too
where that can be read, and else are ink. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct
from rich.style import Style

from baton_actors.console.words import css
from baton_schemas.show.marks import MARKS

Span = tuple[str, str]
"""A text and its kind: a key of `Palette.styles`."""
Cell = tuple[Span, ...]


class Palette(Struct, frozen=True, kw_only=True):
    """The colours of a theme, by their use."""

    name: str
    is_dark: bool
    paper: str
    ink: str
    dim: str
    line: str
    shade: str
    at: str
    """Behind the row that is chosen."""
    marks: Mapping[str, str]
    """By state: `waiting`, `running`, `retry`, `done`, `failed`, `stopped`."""
    words: frozenset[str]
    """States whose colour is dark, or light, enough for words."""

    @property
    def styles(self) -> dict[str, Style]:
        """How each kind of text is written: `done` are words, `mark.done` is the sign."""
        found = {
            "": Style(color=self.ink),
            "bold": Style(color=self.ink, bold=True),
            "dim": Style(color=self.dim),
            "head": Style(color=self.dim),
            "mind": Style(color=self.marks["retry"] if self.is_dark else self.ink, italic=not self.is_dark),
            "away": Style(color=self.paper, bold=True),
        }
        for state, colour in self.marks.items():
            found[f"mark.{state}"] = Style(color=colour)
            found[state] = Style(color=colour if state in self.words else self.ink)
        found["waiting"] = Style(color=self.dim)
        return found


DARK = Palette(
    name="baton-dark",
    is_dark=True,
    paper="#1b1d20",
    ink="#e7e9ec",
    dim="#a2a8b1",
    line="#34383e",
    shade="#23262a",
    at="#2a3140",
    marks={
        "waiting": "#4b4f56",
        "running": "#aac2ed",
        "retry": "#fddf55",
        "done": "#6ae9bd",
        "failed": "#e16c4a",
        "stopped": "#9b43c1",
    },
    words=frozenset({"running", "retry", "failed"}),
)
LIGHT = Palette(
    name="baton-light",
    is_dark=False,
    paper="#ffffff",
    ink="#1d1f23",
    dim="#5d636c",
    line="#dfe1e5",
    shade="#f5f6f8",
    at="#dfe8fb",
    marks={
        "waiting": "#b9bcc1",
        "running": "#0431b2",
        "retry": "#b89008",
        "done": "#499473",
        "failed": "#9e1302",
        "stopped": "#72205d",
    },
    words=frozenset({"running", "failed", "stopped"}),
)


def first_palette(environ: Mapping[str, str] = os.environ) -> Palette:
    """Return the one that fits the terminal, as far as it says (`COLORFGBG`); the dark one else."""
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if background in ("7", "15") else DARK


def state_of(status: str) -> str:
    """Return the state whose colour a status has."""
    return css(status)


def mark(status: str) -> Span:
    """Return the sign of a status."""
    return MARKS.get(status, MARKS["waiting"]), f"mark.{state_of(status)}"


def words(text: str, status: str) -> Span:
    """Return words in the colour of a status."""
    return text, state_of(status)
