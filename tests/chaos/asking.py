"""What the steps of one run must have asked for, and what came of it: who answered, with what, and whether in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .asked import TIME_IS_UP, WITHDRAWN, Asks, Child, Children, NotThere
from .called import answer_to, is_refused
from .flow_file import FlowFile
from .run_log import RunLog
from .talks import Talk
from .twins import Done, Ended, Failed


class Reckoned(NamedTuple):
    """What is asked of the reckoning of a run."""

    ended: Callable[[str], Ended | None]
    """How a step must end, or what was asked for."""
    of_twin: Callable[[str, Any], Ended | None]
    """How an agent that was asked must end: the token, and what it was given."""
    of_run: Callable[[str], Ended | None]
    """What the run came to that was asked for by this token; None while it has not ended."""


class Asking:
    """Of one run: what its steps ask of each other, of people, of the world outside, and of other flows."""

    def __init__(
        self, flow: FlowFile, run: str, log: RunLog, value: Callable[[dict[str, Any]], Any], reckoned: Reckoned
    ) -> None:
        """`value` gives what an outcome, or what refers to a blob, holds."""
        self._flow, self._run, self._log, self._value, self._reckoned = flow, run, log, value, reckoned
        self._asks: dict[str, Asks] = {}
        self.children = Children(flow, log.asked, value)

    def asks(self, token: str) -> Asks:
        """Return what a step must have asked for, as far as the log has it."""
        self._reckoned.ended(token)
        return self._asks.get(token) or self.begin(token)

    def begin(self, token: str) -> Asks:
        """Return what a twin asks with that does this step anew."""

        def came_to(child: str) -> Any:
            ended = self._reckoned.ended(child)
            if not isinstance(ended, Done | Failed):
                raise NotThere(child)
            return {"failed": ended.type} if isinstance(ended, Failed) else ended.output

        def recorded(name: str, number: int) -> Any:
            facts = [note["fact"] for note in self._log.notes[token] if note["fact"]["type"] == "recorded"]
            found = [fact for fact in facts if (fact["name"], fact.get("number", 1)) == (name, number)]
            if not found:
                raise NotThere(name)
            return self._value({"output": found[0].get("value"), "blob": found[0].get("blob")})

        def called(what: str, number: int) -> Any:
            if is_refused(self._run, token, what):
                return {"refused": "BadRequestError"}
            found = answer_to(self._log.notes[token], self._value, what, number)
            if found is None:
                raise NotThere(what)
            return found

        talk = Talk(self._log.notes[token], self._value)
        self._asks[token] = Asks(self._flow, self.children.of[token], came_to, recorded, called, talk)
        return self._asks[token]

    def asker(self, token: str) -> str | None:
        """Return the step that asked for this one; None for a step of the flow."""
        child = self.children.by_token.get(token)
        return child.asker if child is not None else None

    def with_children(self, tokens: Iterable[str]) -> Iterator[str]:
        """Yield these steps, each with all that it must have asked for, as far as that is in the log."""
        for token in tokens:
            yield token
            yield from self.with_children(self.asks(token).tokens)

    def is_late(self, token: str) -> bool:
        """Say whether a child was answered by itself, as its time was up: the log says so."""
        child, answer = self.children.by_token.get(token), self._log.answers.get(token)
        if child is None or child.kind == "sleep" or not child.due_s or answer is None:
            return False
        outcome = (answer.body or {})["outcome"]
        return bool(outcome.get("error", {}).get("type") == TIME_IS_UP)

    # ---- what came of it -------------------------------------------------------------------------

    def ended(self, token: str) -> Ended | None:
        """Return how something that was asked for must have ended; None while the log does not say what decides it."""
        child = self.children.by_token[token]
        if child.kind == "sleep":
            return Done(None)
        if child.kind in ("person", "event"):
            return self._as_was_said(child)
        if child.kind == "flow":
            # That nobody ended it in time, by the log, is told by whoever asked.
            return Failed(token, TIME_IS_UP) if self.is_late(token) else self._reckoned.of_run(token)
        ended = self._reckoned.of_twin(token, self.children.given(token))
        return Failed(token, TIME_IS_UP) if self.is_late(token) else ended

    def _as_was_said(self, child: Child) -> Ended | None:
        """Return what somebody said, by the log; whether they did, and in time, is looked at in `said.py`."""
        answer = self._log.answers.get(child.token)
        if answer is None:
            return None
        body = answer.body or {}
        if body.get("say"):
            return Done(self._value(body["outcome"]))
        if body["outcome"].get("error", {}).get("type") == WITHDRAWN:
            return Failed(child.token, WITHDRAWN)
        default = self.children.given(child.token)["default"]
        return Failed(child.token, TIME_IS_UP) if default is None else Done(default)
