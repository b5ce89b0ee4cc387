"""Going through what waits for people by single keys, and answering it: which key does what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from baton_bus.client.people import Waiting

_ENTER, _ESCAPE, _TAB = frozenset({"\r", "\n"}), frozenset({"\x1b"}), "\t"
_QUIT = frozenset({"q", "\x1b", "\x04", ""})
_BACKSPACE = frozenset({"\x7f", "\b"})
LIST_HELP = "↑ ↓ choose  Enter read and answer  q quit"
CHOICE_HELP = "1-9 or ↑ ↓ choose  Enter answer  n note  Esc back"
TEXT_HELP = "type the answer  Tab note  Enter answer  Esc back"
NOTE_HELP = "type a note  Enter done"


class Given(NamedTuple):
    """What somebody answers."""

    waiting: Waiting
    text: str
    note: str


class Answering:
    """Where somebody is among the questions, and what they have typed so far."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        self.waiting, self.at = list(waiting), 0
        self.open = False
        """Whether a question is read, and not the list."""
        self.choice = -1
        """Which answer is chosen, from 0; -1 for none."""
        self.text, self.note = "", ""
        self.types_note = False
        self.said = ""
        """What came of the last answer."""
        self.left = False

    @property
    def question(self) -> Waiting:
        """The one that is chosen, or read."""
        return self.waiting[self.at]

    @property
    def help(self) -> str:
        """The keys that do something now."""
        if not self.open:
            return LIST_HELP
        if self.types_note:
            return NOTE_HELP
        return CHOICE_HELP if self.question.question.answers else TEXT_HELP

    def press(self, key: str) -> Given | None:
        """Do what a key says, as `read_key` gives it; return an answer once there is one. `left` says to leave."""
        if key == "":  # the terminal is gone
            self.left = True
        elif not self.open:
            self._in_list(key)
        elif self.types_note:
            self._in_note(key)
        elif key in _ESCAPE:
            self._close()
        elif self.question.question.answers:
            return self._in_choice(key)
        else:
            return self._in_text(key)
        return None

    def goes_on_with(self, waiting: Sequence[Waiting], said: str) -> None:
        """Take what waits now, after an answer that came to this."""
        name = self.question.name
        self.waiting, self.said = list(waiting), said
        kept = any(each.name == name for each in self.waiting)
        if not kept:  # else it is still open, with what was typed
            self._close()
            self.said = said
        self.at = min(self.at, max(len(self.waiting) - 1, 0))
        self.left = not self.waiting

    def _in_list(self, key: str) -> None:
        self.said = ""
        if key in _QUIT:
            self.left = True
        elif key in _ENTER:
            self.open = True
        elif key in ("right", "j"):
            self.at = min(self.at + 1, len(self.waiting) - 1)
        elif key in ("left", "k"):
            self.at = max(self.at - 1, 0)

    def _in_choice(self, key: str) -> Given | None:
        answers = self.question.question.answers
        self.said = ""
        if key in _ENTER and self.choice >= 0:
            return Given(self.question, answers[self.choice], self.note)
        if key.isdecimal() and 1 <= int(key) <= len(answers):
            self.choice = int(key) - 1
        elif key == "right":
            self.choice = min(self.choice + 1, len(answers) - 1)
        elif key == "left":
            self.choice = max(self.choice - 1, 0)
        elif key == "n":
            self.types_note = True
        return None

    def _in_text(self, key: str) -> Given | None:
        self.said = ""
        if key in _ENTER:
            return Given(self.question, self.text, self.note) if self.text.strip() else None
        if key == _TAB:
            self.types_note = True
        else:
            self.text = _typed(self.text, key)
        return None

    def _in_note(self, key: str) -> None:
        if key in _ENTER or key in _ESCAPE or key == _TAB:
            self.types_note = False
        else:
            self.note = _typed(self.note, key)

    def _close(self) -> None:
        self.open = self.types_note = False
        self.choice, self.text, self.note, self.said = -1, "", "", ""


def _typed(text: str, key: str) -> str:
    if key in _BACKSPACE:
        return text[:-1]
    return text + key if len(key) == 1 and key.isprintable() else text
