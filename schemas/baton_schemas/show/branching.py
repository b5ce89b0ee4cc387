"""The branches of fan-outs, one sign each: what ten thousand of them take to be drawn, listed or searched. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, get_args

from msgspec import Struct

from baton_schemas.run.refs import StepRef, parse, ranges
from baton_schemas.run.state import RunState, StepState
from baton_schemas.wire.outcomes import Error

from .cause import made
from .errors import told
from .excerpt import head_of, text_of

BranchStatus = Literal["waiting", "queued", "running", "retry", "done", "failed", "stopped"]
"""`waiting`: its turn has not come, and nothing in the log says so; `retry`: its last attempt failed, and it has not
ended; `stopped`: skipped, or dropped as its run ended before it did."""
SIGNS: dict[BranchStatus, str] = {
    "waiting": ".",
    "queued": "q",
    "running": "r",
    "retry": "y",
    "done": "d",
    "failed": "f",
    "stopped": "s",
}
"""One character of each."""
Sorted = Literal["outliers", "index", "longest", "shortest"]
"""`outliers`: those that failed, those that go on, and of the others those that took the longest."""
_STATUS: dict[str, BranchStatus] = {"joining": "queued", "skipped": "stopped", "dropped": "stopped"}
_URGENCY: dict[BranchStatus, int] = {"failed": 0, "retry": 1, "running": 2, "stopped": 3}
_ERROR_WIDE = 160
_ERRORS_MAX = 20
"""Errors that are told apart in a picture; in the list all are."""
_BINS = 40
_PLACES_MAX = 100_000
"""Branches that have a place: ten times what a run may have. A stranger's message may name any index."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Branches(Struct, frozen=True, kw_only=True):
    """All branches of a fan-out, in one round."""

    step: str
    """With its round."""
    branches: tuple[StepState | None, ...]
    """By index; None for one that the log does not name."""
    statuses: tuple[BranchStatus, ...]

    @property
    def signs(self) -> str:
        """Return one character a branch: see `SIGNS`."""
        return "".join(map(SIGNS.__getitem__, self.statuses))

    @property
    def counts(self) -> dict[BranchStatus, int]:
        """How many stand how, those left out that none does."""
        found = {status: self.statuses.count(status) for status in get_args(BranchStatus)}
        return {status: count for status, count in found.items() if count}

    @property
    def took(self) -> str:
        """Return how long each took, in milliseconds to the base of 36, empty for those that have not ended."""
        return ",".join("" if (each := seconds_of(step)) is None else _base36(each) for step in self.branches)

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Return the errors of those that failed, the most frequent first, each with its branches as ranges."""
        found: dict[str, list[int]] = {}
        for index, step in enumerate(self.branches):
            if step is not None and step.error is not None and self.statuses[index] in ("failed", "retry"):
                found.setdefault(head_of(told(step.error), _ERROR_WIDE), []).append(index)
        most = sorted(found.items(), key=lambda each: -len(each[1]))[:_ERRORS_MAX]
        return [(error, ranges(indices)) for error, indices in most]

    @property
    def since(self) -> datetime | None:
        """When the first of them was handed on."""
        return min((step.queued_at for step in self.branches if step is not None and step.queued_at), default=None)

    @property
    def pattern(self) -> str:
        """Return the name of a branch in the log with `#` in place of its index."""
        ref = parse(self.step)
        return f"{ref.name}-#" + (f"--r{ref.round}" if ref.round else "")

    def token(self, index: int) -> str:
        """Return the name of a branch in the log."""
        ref = parse(self.step)
        return StepRef(ref.name, index, ref.round).token


class BranchCause(Struct, frozen=True):
    """Errors of branches that are one to people."""

    key: str
    """That of their `cause.Cause`."""
    error: str
    """One of them."""
    count: int


class Bin(Struct, frozen=True):
    """Branches that took about as long."""

    from_s: float
    to_s: float
    count: int
    failed: int


class Looked(Struct, frozen=True, kw_only=True):
    """What is looked for among branches; all that is given must fit."""

    statuses: tuple[str, ...] = ()
    cause: str = ""
    """The key of a `BranchCause`."""
    text: str = ""
    """In the error or the output, in any case of letters; or the index."""
    order: Sorted = "outliers"


def branches_in(state: RunState, running: Mapping[str, int] | None = None) -> dict[str, Branches]:
    """Return the branches of each fan-out by its name and round; `running` are attempts that workers say they make."""
    found: dict[str, dict[int, StepState]] = {}
    for name, step in state.steps.items():
        ref = parse(name)
        if ref.index is not None and not ref.key:
            whole = f"{ref.name}--r{ref.round}" if ref.round else ref.name
            found.setdefault(whole, {})[ref.index] = step
    return {name: _branches(name, members, state, running or {}) for name, members in found.items()}


def _branches(name: str, members: Mapping[int, StepState], state: RunState, running: Mapping[str, int]) -> Branches:
    count = min(max(state.counts.get(name, 0), max(members) + 1), _PLACES_MAX)
    steps = tuple(members.get(index) for index in range(count))
    return Branches(step=name, branches=steps, statuses=tuple(_status(step, state, running) for step in steps))


def _status(step: StepState | None, state: RunState, running: Mapping[str, int]) -> BranchStatus:
    if step is None:
        return "stopped" if state.result is not None else "waiting"
    if step.status == "queued" and (step.waits or step.error is not None):
        return "retry" if step.name not in running else "running"
    if step.status == "queued" and step.name in running:
        return "running"
    return _STATUS.get(step.status, step.status)  # type: ignore[arg-type] # the others are its own


def seconds_of(step: StepState | None) -> float | None:
    """Return how long a branch took from its handoff to its end; None for one that has not ended, or is reused."""
    if step is None or step.queued_at is None or step.ended_at is None or step.reused:
        return None
    return max((step.ended_at - step.queued_at).total_seconds(), 0.0)


def causes_of(branches: Branches) -> list[BranchCause]:
    """Return the causes for which branches failed, the most frequent first."""
    found: dict[str, tuple[str, int]] = {}
    for step in branches.branches:
        if step is not None and step.status == "failed" and step.error is not None:
            key = _cause(step.error)
            first, count = found.get(key, (head_of(told(step.error), _ERROR_WIDE), 0))
            found[key] = (first, count + 1)
    return sorted((BranchCause(key, text, count) for key, (text, count) in found.items()), key=lambda each: -each.count)


def _cause(error: Error) -> str:
    return made("", "", error.type, error.message).key


def looked_for(branches: Branches, looked: Looked) -> list[int]:
    """Return the indices of the branches that fit, in their order. Raises `ValueError` for an order that there is not.

    A text is looked for in what is inline; what is kept beside the log is not read.
    """
    if looked.order not in get_args(Sorted):
        raise ValueError(f"the order {looked.order!r} is none of {', '.join(get_args(Sorted))}")
    steps, statuses, text = branches.branches, branches.statuses, looked.text.casefold()
    found: Iterable[int] = range(len(steps))
    if looked.statuses:
        found = (index for index in found if statuses[index] in looked.statuses)
    if looked.cause:
        found = (index for index in found if _fails_for(steps[index], looked.cause))
    if text:
        found = (index for index in found if text == str(index) or _says(steps[index], text))
    return _in_order(branches, list(found), looked.order)


def _fails_for(step: StepState | None, cause: str) -> bool:
    return step is not None and step.error is not None and _cause(step.error) == cause


def _says(step: StepState | None, text: str) -> bool:
    if step is None:
        return False
    if step.error is not None and text in told(step.error).casefold():
        return True
    return step.output is not None and text in text_of(step.output).casefold()


def _in_order(branches: Branches, found: Sequence[int], order: Sorted) -> list[int]:
    took = {index: seconds_of(branches.branches[index]) for index in found}
    match order:
        case "index":
            return list(found)
        case "longest":
            return sorted(found, key=lambda index: -_or(took[index], -1.0))
        case "shortest":
            return sorted(found, key=lambda index: _or(took[index], math.inf))
        case "outliers":
            return sorted(
                found, key=lambda index: (_URGENCY.get(branches.statuses[index], 9), -_or(took[index], -1.0), index)
            )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def histogram_of(branches: Branches) -> list[Bin]:
    """Return how long the branches that have ended took, in bins of one width from the shortest to the longest."""
    ended = [
        (took_s, status == "failed")
        for step, status in zip(branches.branches, branches.statuses, strict=True)
        if (took_s := seconds_of(step)) is not None
    ]
    if not ended:
        return []
    low, high = min(ended)[0], max(ended)[0]
    count = min(_BINS, max(len(ended), 1)) if high > low else 1
    wide = (high - low) / count or 1.0
    sums = [[0, 0] for _ in range(count)]
    for took_s, failed in ended:
        each = sums[min(int((took_s - low) / wide), count - 1)]
        each[0] += 1
        each[1] += failed
    return [
        Bin(low + number * wide, low + (number + 1) * wide, all_, failed) for number, (all_, failed) in enumerate(sums)
    ]


def _base36(seconds: float) -> str:
    number, digits = min(round(seconds * 1_000), 36**9), ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
