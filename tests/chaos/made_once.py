"""I14: what is in the log is not made again, be it a value that a handler records or an answer that it pays for.

Made twice is only what whoever made it before was kept from recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .attempts import CLOCK_S, Step
from .called import exchanges, recorded_twice
from .demands import Demands
from .history import Event
from .raw import Record

Fact = tuple[str, str, str]
"""A run, a step, and what of it."""


class _Made(NamedTuple):
    """Somebody began to make something, or came to have it."""

    fact: Fact
    event: Event
    attempt: Event
    has: bool
    """Whether it was made with that: a model that was asked may give no answer."""


def made_once(
    runs: Mapping[str, Demands],
    records: list[Record],
    history: list[Event],
    was_kept_from: Callable[[Step, Event, float], bool],
    knew_nothing: Callable[[Step, Event, float], bool],
) -> Iterator[str]:
    """Yield what was made again. The last two say of a step: whether an attempt that made something was cut off on the

    way to recording it, by that time, and whether it may have begun without what was in the log by then.
    """
    recorded = _recorded(runs, records)
    had: dict[Fact, list[Event]] = defaultdict(list)
    for fact, event, attempt, has in _made(history):
        (run, token, name), at_s, knew_at = fact, recorded.get(fact), attempt["knew_at"]
        what = f"I14 step {token} of run {run} made {name}"
        if at_s is not None and at_s < knew_at - CLOCK_S and not knew_nothing((run, token), attempt, at_s):
            yield f"{what} {knew_at - at_s:.2f} s after it was recorded"
        if has:
            made = {**event, "pid": attempt["pid"]}
            # One that is answered late, as whoever asked had failed of another call, comes after the next attempt's.
            if had[fact] and not any(was_kept_from((run, token), each, event["at"]) for each in [*had[fact], made]):
                yield f"{what} twice, and nothing had gone wrong"
            had[fact].append(made)
    for run, demands in runs.items():
        for token, notes in demands.log.notes.items():
            for name in recorded_twice(notes, demands.value):
                yield f"I14 step {token} of run {run} has two answers for {name} in the log"


def _recorded(runs: Mapping[str, Demands], records: list[Record]) -> dict[Fact, float]:
    """Return when each was in the log first."""
    found: dict[Fact, float] = {}
    for record in records:
        if record.kind != "note" or record.body is None or record.run not in runs:
            continue
        fact, step = record.body["fact"], record.body["step"]
        if fact["type"] == "recorded":
            found.setdefault((record.run, step, fact["name"]), record.at_s)
        for call in exchanges([record.body], runs[record.run].value):
            found.setdefault((record.run, step, _called(call.what, call.number)), record.at_s)
    return found


def _made(history: list[Event]) -> Iterator[_Made]:
    began = {event["attempt"]: event for event in history if event["what"] == "step.began"}
    for event in history:
        if event["what"] == "step.makes":
            fact = (event["run"], event["step"], event["name"])
            yield _Made(fact, event, began[event["attempt"]], has=True)
        elif event["what"] in ("call.asked", "call.answered"):
            fact = (event["run"], event["asker"], _called(event["asked"], event["number"]))
            yield _Made(fact, event, began[event["attempt"]], has=event["what"] == "call.answered")


def _called(what: str, number: int) -> str:
    return f"the call {what} ({number})"
