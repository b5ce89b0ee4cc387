"""What handlers with the official client are answered, as the log has it: the facts that are called exchanges."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Value = Callable[[dict[str, Any]], Any]
"""What an outcome, or whatever else refers to a blob, holds."""


class Exchange(NamedTuple):
    """One call and its answer."""

    what: str
    """What was asked: the answer says it again."""
    number: int
    """Counts what was asked alike, from 1."""
    text: str


def exchanges(notes: list[dict[str, Any]], value: Value) -> Iterator[Exchange]:
    """Yield the calls of one step, from its notes."""
    for note in notes:
        fact = note["fact"]
        if fact["type"] == "exchange":
            body = value({"output": fact.get("body"), "blob": fact.get("blob")})
            text = _streamed(body) if fact.get("streamed") else body["content"][0]["text"]
            yield Exchange(text.partition(":")[0].rpartition("/")[2], fact.get("number", 0) + 1, text)


def answer_to(notes: list[dict[str, Any]], value: Value, what: str, number: int) -> str | None:
    return next((each.text for each in exchanges(notes, value) if (each.what, each.number) == (what, number)), None)


def is_refused(run: str, step: str, what: str) -> bool:
    """Say whether the model refuses this for good: one in ten."""
    return zlib.crc32(f"{run}/{step}/{what}".encode()) % 10 == 0


def recorded_twice(notes: list[dict[str, Any]], value: Value) -> Iterator[str]:
    """Yield what has two answers in the log."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for each in exchanges(notes, value):
        found[each.what, each.number].append(each.text)
    for (what, number), texts in found.items():
        if len(texts) > 1:
            yield f"{what} ({number})"


def _streamed(events: list[dict[str, Any]]) -> str:
    deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text_delta")
