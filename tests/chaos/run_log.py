"""The log of one run, sorted by what its messages are. What they should be is in `demands.py`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .raw import Record

DEADLINE = "deadline"


class Kept(NamedTuple):
    """How a step ended by the log: the outcome, and the record that decides it."""

    outcome: dict[str, Any]
    record: Record


class Outcome(NamedTuple):
    """How a step ended, as any one record has it."""

    seq: int
    at_s: float
    how: dict[str, Any]


@dataclass
class Chain:
    """What the links of a join say, up to the last."""

    came: dict[str, dict[int | None, Record]]
    """By source and index: the replies."""
    counts: dict[str, int] = field(default_factory=dict)
    deadline: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    """By source: why it was left out."""
    suffix: str = ""
    """Of the tokens in its round."""
    enough_at: Record | None = None
    """The first link with which the join has what its policy asks for."""
    wrong: list[str] = field(default_factory=list)

    @property
    def arrived(self) -> set[str]:
        return {
            (source if index is None else f"{source}-{index}") + self.suffix
            for source, found in self.came.items()
            if self.counts.get(source)
            for index in found
        }


def parking_of(parked: Record) -> int:
    """Return what a parking is called, of which this is a mark: the sequence of its first."""
    return int((parked.body or {}).get("first") or parked.seq)


class RunLog:
    """The messages of one run, by what they are. Of two on one subject the first counts: I1 tells of the other."""

    def __init__(self, records: list[Record]) -> None:
        self.handoffs: dict[tuple[str, str], Record] = {}
        """By step (or branch) and what handed it on."""
        self.replies: dict[tuple[str, str], Record] = {}
        """By join and branch."""
        self.outcomes: dict[str, Record] = {}
        self.answers: dict[str, Record] = {}
        """By child."""
        self.parked: dict[str, list[Record]] = defaultdict(list)
        """By the step that is parked upon an answer."""
        self.links: dict[str, list[Record]] = defaultdict(list)
        self.notes: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.result: Record | None = None
        self.start: Record | None = None
        self.over_budget: set[str] = set()
        """The steps that failed as there was too little left to spend."""
        self.failed_work: dict[str, dict[str, Any]] = {}
        """What the last attempts took of steps that failed."""
        for record in records:
            if record.body is not None:
                self._sort(record, record.body)
        for links in self.links.values():
            links.sort(key=lambda link: int(link.rest[1]))

    def _sort(self, record: Record, body: dict[str, Any]) -> None:
        outcome = body.get("outcome") or (body.get("cause") or {}).get("outcome") or {}
        if (error := outcome.get("error")) is not None:
            self.failed_work.setdefault(error["step"], outcome.get("work", {}))
            if error["type"] == "over_budget":
                self.over_budget.add(error["step"])
        match record.kind, record.rest:
            case "handoff", (step, source):
                self.handoffs.setdefault((step, source), record)
                if source == "start" and "begins" in body["cause"]:
                    self.start = record
            case "reply", (join, branch):
                self.replies.setdefault((join, branch), record)
            case "outcome", (step,):
                self.outcomes.setdefault(step, record)
            case "answer", (step, _):
                if body["kind"] == "parked":
                    self.parked[step].append(record)
                else:
                    self.answers.setdefault(body["child"], record)
            case "join", (step, _):
                self.links[step].append(record)
            case "note", (step, _):
                self.notes[step].append(body)
            case "result", _:
                self.result = self.result or record

    def closing(self, join: str) -> Record | None:
        return self.handoffs.get((join, "join"))

    def woken(self, parked: Record) -> Record | None:
        """Return the handoff that brings back a step that was parked."""
        return self.handoffs.get((parked.rest[0], f"wake-s{parking_of(parked)}"))

    @property
    def asked(self) -> list[Record]:
        """The handoffs of what steps asked for."""
        return [each for each in self.handoffs.values() if each.body and each.body["cause"]["by"] == "ask"]
