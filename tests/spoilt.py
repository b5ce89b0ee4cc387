"""Logs that the checker of chaos runs is tried on: those of quiet runs, with one thing in each that must not be."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .chaos import raw
from .chaos.checker import Checker
from .chaos.driver import Options, run_chaos
from .chaos.history import Event, History
from .chaos.raw import Record, Seen

LEASE_S = 1.0


class Story:
    """A log and a history, to be spoilt."""

    def __init__(self, seen: Seen, history: list[Event]) -> None:
        self.records, self.timers, self.blobs = list(seen.records), list(seen.timers), dict(seen.blobs)
        self.spent: list[Record] = list(seen.spent)
        self.history = copy.deepcopy(history)

    def violations(self) -> list[str]:
        history = sorted(self.history, key=lambda event: event["at"])
        return Checker(Seen(self.records, self.timers, self.blobs, self.spent), history, LEASE_S).violations

    def find(self, subject: str, where: Callable[[dict[str, Any]], object] = lambda _: True) -> Record:
        """The first message whose subject has all these parts, and whose body is so. It is of a run that is done."""
        done = {r.run for r in self.records if r.kind == "result" and r.body and r.body["status"] == "done"}
        forged = {event["run"] for event in self.history if event["what"] == "word.forged"}
        return next(
            each
            for each in self.records
            if each.run in done - forged and each.body and all(part in each.subject for part in subject.split("…"))
            if where(each.body)
        )

    def remove(self, record: Record) -> None:
        self.records.remove(record)

    def change(self, record: Record, **fields: Any) -> None:
        """Change fields of a body; `cause__branches` is one within another."""
        body = copy.deepcopy(record.body)
        for name, value in fields.items():
            part = body
            *path, last = name.split("__")
            for key in path:
                assert part is not None
                part = part[key]
            assert part is not None
            part[last] = value
        self.records[self.records.index(record)] = record._replace(body=body, data=json.dumps(body).encode())

    def add(self, record: Record, **fields: Any) -> None:
        """Add a message like this one, at the end of the log."""
        self.add_record(record)
        self.change(self.records[-1], **fields)

    def add_record(self, record: Record) -> None:
        """Add it as it is, at the end of the log."""
        self.records.append(record._replace(seq=self.records[-1].seq + 1))

    def event(self, what: str, **facts: Any) -> Event:
        return next(
            e for e in self.history if e["what"] == what and all(e.get(name) == value for name, value in facts.items())
        )

    def excuse_nothing(self) -> None:
        """Forget what broke by itself: handlers that kill their process, and a machine that is busy with others."""
        self.history = [e for e in self.history if e["what"] not in ("process.starved", "worker.died", "bus.lost")]

    def again(self, event: Event, later_s: float, **facts: Any) -> None:
        self.history.append({**event, "at": event["at"] + later_s, **facts})


def left_by(quiet: Options, folder: Path) -> tuple[Seen, list[Event]]:
    """Return what a run left behind in which the checker finds nothing."""
    found = asyncio.run(run_chaos(quiet, folder)).violations
    assert found == [], found
    return raw.load(folder), History(folder / "history.jsonl").events()


def assert_found(story: Story, expected: str) -> None:
    """Assert that the checker says so: `expected` is an invariant, and after `…` words of the sentence."""
    invariant, _, words = expected.partition("…")
    found = story.violations()
    assert [each for each in found if each.startswith(f"{invariant} ") and words in each], found
