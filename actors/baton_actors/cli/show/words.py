"""What steps say while they are done, as people see it beside the table: who says what, or how much is written."""

from __future__ import annotations

from msgspec import Struct
from rich.text import Text

from baton_actors.cli.text import plain
from baton_schemas.run.state import RunState
from baton_schemas.wire.words import Running, Said, Word

STEPS_MAX = 10_000
"""Steps whose words are kept: as many as a run has branches."""
_LINES_MAX = 5
"""Steps that are shown at once: with more the table would leave the screen."""
_OPEN = frozenset({"joining", "queued"})


class Spoken(Struct):
    """What an attempt at a step has said by now."""

    attempt: int
    says: str = ""
    chars: int = 0


class Words:
    """The last words of each step of a run."""

    def __init__(self) -> None:
        self._steps: dict[str, Spoken] = {}

    def hear(self, word: Word | Running) -> None:
        """Take a word in; of an attempt that another has followed, none."""
        spoken = self._steps.get(word.step)
        if spoken is None and len(self._steps) >= STEPS_MAX:
            return
        if spoken is None or spoken.attempt < word.attempt:
            spoken = self._steps[word.step] = Spoken(word.attempt)
        if word.attempt < spoken.attempt:
            return
        if isinstance(word, Said):
            spoken.says = word.text
        elif isinstance(word, Running):
            spoken.says = word.says or spoken.says
        else:
            spoken.chars = word.at + len(word.text)

    def forget(self, step: str) -> None:
        """Let go of what a step said: its attempt is over."""
        self._steps.pop(step, None)

    def standing(self, state: RunState) -> dict[str, Spoken]:
        """Return what those steps say that are in hand, as far as the log tells."""
        if state.result is not None:
            return {}
        steps = state.steps
        spoken = {name: spoken for name, spoken in self._steps.items() if spoken.says or spoken.chars}
        return {name: spoken for name, spoken in spoken.items() if name in steps and steps[name].status in _OPEN}

    def lines(self, state: RunState) -> list[Text]:
        """Return a line for each step that says something, and one for those that have no room."""
        standing = self.standing(state)
        lines = [word_line(name, spoken) for name, spoken in list(standing.items())[:_LINES_MAX]]
        if len(standing) > _LINES_MAX:
            lines.append(Text(f"  and {len(standing) - _LINES_MAX:,} more", "dim"))
        return lines


def word_line(step: str, spoken: Spoken) -> Text:
    """Return `● read  3 of 12 pages read`, or how much a model has written so far."""
    parts = [plain(spoken.says)] if spoken.says else []
    if spoken.chars:
        parts.append(f"{spoken.chars:,} characters written")
    text = Text.assemble(("● ", "cyan"), (plain(step), "bold"), f"  {', '.join(parts)}")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
