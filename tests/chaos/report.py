"""What a chaos run came to: counts, recovery times, and whether anything that must never happen has happened."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass

from .checker import Checker
from .demands import Demands
from .plans import ONCE
from .talks import Talk


@dataclass(frozen=True)
class Report:
    """The rows of the table, and the violations, which are none when all is well."""

    rows: list[tuple[str, str]]
    violations: list[str]
    kills: int
    """SIGKILLs of workers, by the driver and by handlers."""
    lost: int
    doubled: int
    wrong: int

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"  {name:{width}}  {value}" for name, value in self.rows)


def make_report(checker: Checker, more_violations: list[str]) -> Report:
    """Count what the checker knows."""
    what = Counter(event["what"] for event in checker.history)
    ends = [checker.results[run][0].body for run in checker.runs if checker.results[run]]
    statuses = Counter(body["status"] for body in ends if body is not None)
    killed = {e["victim"] for e in checker.history if e["what"] == "worker.died" and e["code"] == -signal.SIGKILL}
    by_driver = killed & {e["victim"] for e in checker.history if e["what"] == "worker.killed"}
    attempts = [event for event in checker.history if event["what"] == "step.began"]
    steps = {(event["run"], event["step"]) for event in attempts}
    interrupted, restarts_s = _recoveries(checker)
    notes = Counter(r.body["fact"]["type"] for r in checker.records if r.kind == "note" and r.body)
    woken = sum(1 for r in checker.records if r.kind == "handoff" and r.rest and r.rest[-1].startswith("wake-"))
    paid = checker.calls.paid()
    late = [late_s for _, late_s in checker.attempts.late_starts(checker.results)]
    violations = [*checker.violations, *more_violations]
    rows = [
        ("runs", f"{what['submit.acknowledged']} accepted: {_said(statuses)}"),
        ("messages in the log", f"{len(checker.records)}, {len(checker.garbage)} of them garbage"),
        ("faults by the driver", f"{what['fault']}: {_said(Counter(_faults(checker)))}"),
        ("workers killed", f"{len(by_driver)} by the driver, {len(killed - by_driver)} by their own handler"),
        ("processes starved of processor time", f"{what['process.starved']}"),
        ("steps, attempts, retries", f"{len(steps)}, {len(attempts)}, {notes['retry']}"),
        ("parked and woken, words forged", f"{woken}, {what['word.forged']}"),
        ("redeliveries with work done again", f"{len(attempts) - len(steps) - notes['retry']}"),
        ("steps whose worker died, recovered", f"{interrupted}, {len(restarts_s)} started again"),
        ("attempts charged for a death beside them", f"{checker.deaths.beside()}"),
        ("model calls paid, recorded", f"{sum(map(len, paid.values()))}, {notes['model']}"),
        ("those of handlers' own clients", f"{what['call.answered']}, {notes['exchange']}"),
        ("calls of tools, of those once, in doubt", _of_tools(what, checker)),
        ("model calls paid twice after a fault", f"{sum(len(calls) - 1 for calls in paid.values())}"),
        ("starts after the end, word on its way", _times(late)),
        ("SIGKILL of a worker to its step's new start", _times(restarts_s)),
        ("SIGKILL of the server to the next outcome", _times(_to_next_outcome(checker, "server.killed"))),
        ("server back to the next outcome", _times(_to_next_outcome(checker, "server.back"))),
        ("lost", f"{checker.lost}"),
        ("doubled", f"{checker.doubled}"),
        ("wrong", f"{checker.wrong}"),
        ("violations", f"{len(violations)}"),
    ]
    return Report(rows, violations, len(killed), checker.lost, checker.doubled, checker.wrong)


def _of_tools(what: Counter[str], checker: Checker) -> str:
    once = sum(event["what"] == "tool.began" and event["name"] in ONCE for event in checker.history)
    doubts = sum(len(demands.log.notes) and _in_doubt(demands) for demands in checker.demands.values())
    return f"{what['tool.began']}, {once}, {doubts}"


def _in_doubt(demands: Demands) -> int:
    """Return how many calls were begun of which there is no result, or a person's."""
    found = [Talk(notes, demands.value) for step, notes in demands.log.notes.items() if step != "rejected"]
    return sum(
        place not in talk.results or bool(talk.results[place].settled_by) for talk in found for place in talk.begun
    )


def _faults(checker: Checker) -> list[str]:
    return [event["kind"] for event in checker.history if event["what"] == "fault"]


def _recoveries(checker: Checker) -> tuple[int, list[float]]:
    """Return how many steps were in the hands of a worker that died, and how long each took to start again."""
    died: dict[int, float] = {}
    for event in checker.history:
        if event["what"] in ("worker.killed", "worker.died"):
            died.setdefault(event["victim"], event["at"])
    ended = {event["attempt"] for event in checker.history if event["what"] == "step.ended"}
    began = [event for event in checker.history if event["what"] == "step.began"]
    cut_off = [event for event in began if event["attempt"] not in ended and event["pid"] in died]
    again: list[float] = []
    for event in cut_off:
        step, death = (event["run"], event["step"]), died[event["pid"]]
        later = [other["at"] for other in began if (other["run"], other["step"]) == step and other["at"] > death]
        again += [min(later) - death] if later else []
    return len(cut_off), again


def _to_next_outcome(checker: Checker, what: str) -> list[float]:
    outcomes = sorted(outcome.at_s for found in checker.outcomes.values() for outcome in found)
    times = [event["at"] for event in checker.history if event["what"] == what]
    return [next(at_s for at_s in outcomes if at_s > time) - time for time in times if outcomes and outcomes[-1] > time]


def _times(times_s: list[float]) -> str:
    if not times_s:
        return "-"
    ordered = sorted(times_s)
    return f"p50 {ordered[len(ordered) // 2]:.2f} s, max {ordered[-1]:.2f} s, of {len(ordered)}"


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
