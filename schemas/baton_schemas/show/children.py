"""The children of a run: what its steps asked for, who asked, and what people call them: `researcher #3`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from baton_schemas.run.asking import waits_for
from baton_schemas.run.refs import parse
from baton_schemas.run.state import RunState, StepState
from baton_schemas.wire.names import BATCH

from .excerpt import head_of, in_words
from .lines import seconds

_NUMBERED = re.compile(r"(.+?) ?#([1-9][0-9]{0,8})\Z")
_KEY_SHOWN = 4
_OPEN = frozenset({"queued", "joining"})


class Child(Struct, frozen=True):
    """One thing that a step asked for."""

    step: StepState
    name: str
    """Of the agent, the flow, the role or the event."""
    number: int
    """Which of this name in its run, in the order of the log, from 1."""

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.name} #{self.number}"

    @property
    def is_open(self) -> bool:
        """Whether nobody has answered."""
        return self.step.status in _OPEN


def is_child(token: str) -> bool:
    """Say whether a name in a log is that of a child step, and not of a step of the flow or a branch of one."""
    return "--k" in token and bool(parse(token).key)


def asked_name(token: str) -> str:
    """Return the name of what was asked for as a child: an agent, a flow, a role, an event."""
    return token.rpartition("--k")[0] if is_child(token) else token


def short_name(token: str) -> str:
    """Return a step's name where its run's log is not at hand to number it: of a child its name and a bit of its key.

    `Children.find` knows whose it is.
    """
    return f"{asked_name(token)}~{parse(token).key[:_KEY_SHOWN]}" if is_child(token) else token


class Children:
    """All children of a run, by token, in the order of the log."""

    def __init__(self, state: RunState) -> None:
        self.by_token: dict[str, Child] = {}
        self._of: dict[str, list[Child]] = {}
        self._named: dict[str, list[str]] = {}
        for step in state.steps.values():
            if not is_child(step.name) or asked_name(step.name) == BATCH:  # its model is nobody whom it asked
                continue
            name = asked_name(step.name)
            named = self._named.setdefault(name, [])
            named.append(step.name)
            child = self.by_token[step.name] = Child(step, name, len(named))
            self._of.setdefault(step.source, []).append(child)

    def of(self, asker: str) -> list[Child]:
        """Return what a step (or a branch, or a child) asked for."""
        return self._of.get(asker, [])

    def orphans(self, state: RunState) -> list[Child]:
        """Return those whose asker the log does not name: a stranger's, or of a log that is not whole."""
        return [child for child in self.by_token.values() if child.step.source not in state.steps]

    def label(self, token: str) -> str:
        """Return what people call a step: of a child its name and number, else its own name."""
        child = self.by_token.get(token)
        return child.label if child is not None else token

    def written(self, token: str) -> str:
        """Return what `baton show RUN STEP` takes for a step: `researcher#3` for a child."""
        child = self.by_token.get(token)
        return f"{child.name}#{child.number}" if child is not None else token

    def find(self, text: str) -> str:
        """Return the token of the child that people call so; "" when there is none.

        `researcher#3`, `researcher~k4k4` as a line of a worker has it, or `researcher` where there is but one.
        """
        if text in self.by_token:
            return text
        if text in self._named and len(self._named[text]) == 1:
            return self._named[text][0]
        name, _, key = text.partition("~")
        if key and (found := [token for token in self._named.get(name, []) if token.startswith(f"{name}--k{key}")]):
            return found[0]
        match = _NUMBERED.match(text)
        named = self._named.get(match[1], []) if match else []
        number = int(match[2]) if match else 0
        return named[number - 1] if number and number <= len(named) else ""

    def count(self, text: str) -> tuple[str, int]:
        """Return which name is meant by `researcher` or `researcher#99`, and how many of it there are."""
        match = _NUMBERED.match(text)
        name = match[1] if match and match[1] in self._named else text
        return name, len(self._named.get(name, []))


def parked_upon(step: StepState, children: Iterable[Child]) -> bool:
    """Say whether a step is held by nobody until one of these has answered."""
    return bool(step.waits) and any(step.waits == waits_for(child.step.name) for child in children)


def asked_with(step: StepState, width: int) -> str:
    """Return in a few words what a child was asked: a question, how long a sleep is, its arguments shortened."""
    if step.question:
        return head_of(step.question, width)
    if step.asked == "sleep":
        if step.answers_at is None or step.queued_at is None:
            return ""
        return seconds(max((step.answers_at - step.queued_at).total_seconds(), 0.0))
    return in_words(step.arguments, width)
