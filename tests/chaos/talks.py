"""What the log has of an agent that has tools: what its model answered, which calls were begun, and what came of them.

A call is known by the order that the model gave with it, and by the answer that it is of: see `talking.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_TURN = re.compile(r"turn (\d+) of .*, number (\d+)\.")

Value = Callable[[dict[str, Any]], Any]
"""What an outcome, or whatever else refers to a blob, holds."""


class Call(NamedTuple):
    """A call in an answer of the model."""

    name: str
    order: str
    number: int
    """Of the answer."""


class Answer(NamedTuple):
    """What the model answered."""

    turn: int
    number: int
    calls: list[Call]
    text: str


class Result(NamedTuple):
    """What came of a call, by the log."""

    text: str
    is_error: bool
    settled_by: str
    """The role of the person who said so; empty where the tool did."""
    cut_bytes: int
    elapsed_s: float
    name: str


Place = tuple[str, int]
"""The hash of a request, and the place of a call among those of its answer."""


class Talk:
    """Of one step, from its notes."""

    def __init__(self, notes: Iterable[dict[str, Any]], value: Value) -> None:
        self.answers: dict[str, Answer] = {}
        """By the hash of the request."""
        self.begun: dict[Place, list[dict[str, Any]]] = {}
        """The notes that a call of a tool that is not idempotent begins, in their order."""
        self.results: dict[Place, Result] = {}
        self.doubled: list[str] = []
        """What is in the log twice."""
        for note in notes:
            self._take(note, value)

    def _take(self, note: dict[str, Any], value: Value) -> None:
        fact = note["fact"]
        kind, sha256 = fact["type"], fact.get("request_sha256", "")
        place = (sha256, fact.get("place", 0))
        if kind == "model":
            self._add(self.answers, sha256, _answer(fact, value))
        elif kind == "tool_begun":
            self.begun.setdefault(place, []).append(note)
        elif kind == "tool":
            text = value({"output": fact.get("result"), "blob": fact.get("blob")})
            result = Result(
                text,
                fact.get("is_error", False),
                fact.get("settled_by", ""),
                fact.get("cut_bytes", 0),
                fact.get("elapsed_s", 0.0),
                fact["name"],
            )
            self._add(self.results, place, result)

    def _add(self, found: dict[Any, Any], key: Any, what: Any) -> None:
        if key in found:
            self.doubled.append(f"{type(what).__name__.lower()} to {key}")
        found.setdefault(key, what)

    def turn(self, number: int) -> tuple[str, Answer] | None:
        """Return the answer of a turn, and the hash of its request."""
        return next(((sha, each) for sha, each in self.answers.items() if each.turn == number), None)

    def call(self, place: Place) -> Call | None:
        """Return the call at a place; None when no answer in the log has it."""
        answer = self.answers.get(place[0])
        return answer.calls[place[1]] if answer is not None and place[1] < len(answer.calls) else None

    def place_of(self, order: str, number: int) -> Place | None:
        """Return where a call is; None when no answer in the log has it."""
        for sha256, answer in self.answers.items():
            for place, call in enumerate(answer.calls):
                if (call.order, call.number) == (order, number):
                    return sha256, place
        return None


def _answer(fact: dict[str, Any], value: Value) -> Answer:
    blocks = value({"output": fact.get("content"), "blob": fact.get("content_blob")}) or []
    said = next((block["text"] for block in blocks if block["type"] == "text"), None)
    text = said if said is not None else value({"output": fact.get("text"), "blob": fact.get("blob")})
    found = _TURN.match(text)
    turn, number = (int(found[1]), int(found[2])) if found is not None else (-1, -1)
    calls = [
        Call(block["name"], block["input"]["order"], block["input"]["number"])
        for block in blocks
        if block["type"] == "tool_use"
    ]
    return Answer(turn, number, calls, text)
