"""I21: what must hold of what is spent: what counters say is what the log says, and no more than is allowed.

It follows `schemas/docs/models.md` (what may be spent), `deploy/docs/limits.md` and decision 0016. What a call took
is reckoned by its tokens and the list price of the model, which is said here once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .demands import Demands
from .following import kept_of
from .ledger import Added, Ledger
from .raw import Record

OVER_BUDGET = "over_budget"
_IN, _OUT = 1_000, 5_000
"""What a token of claude-haiku-4-5 costs, in billionths of a USD."""
_PER_USD = 10**9
_UNITS = ("usd", "tokens")


class Paid(NamedTuple):
    """What calls took, in billionths of a USD and in tokens."""

    usd: int = 0
    tokens: int = 0

    def of(self, unit: str) -> int:
        return self.usd if unit == "usd" else self.tokens


def spends_what_it_may(runs: Mapping[str, Demands], records: list[Record], spent: list[Record]) -> Iterator[str]:
    """Yield what does not hold once all that was handed on has been settled."""
    ledger, words = Ledger(spent), _allowed(records)
    by_flow: dict[str, list[Demands]] = {}
    for run in runs.values():
        if run.flow.budget:
            by_flow.setdefault(run.flow.name, []).append(run)
    for flow, some in by_flow.items():
        paid = {run.run: _paid(run) for run in some}
        for run in some:
            yield from _Of(run, paid[run.run], ledger, words.get(run.run, [])).violations()
        for unit in _UNITS:
            if (cap := some[0].flow.budget.get(f"{unit}_per_day")) is None:
                continue
            days = ledger.of_days(flow, unit)
            for name, entries in days.items():
                if any(each.spent > _counted(unit, cap) for each in entries):
                    yield f"I21 {'.'.join(name)} came to more than the {cap} {unit} of a day"
                if entries[-1].held:
                    yield f"I21 {'.'.join(name)} holds {entries[-1].held} in the end"
            logged = sum(each.of(unit) for each in paid.values())
            counted = sum(entries[-1].spent for entries in days.values())
            if logged != counted:
                yield f"I21 flow {flow} has spent {counted} {unit} by its days, and {logged} by the log"


class _Of:
    """The rules for one run."""

    def __init__(self, run: Demands, paid: Paid, ledger: Ledger, words: list[dict[str, Any]]) -> None:
        """`words` are what allowed it to spend more."""
        self._run, self._paid, self._ledger, self._words = run, paid, ledger, words
        self._budget, self._what = run.flow.budget, f"run {run.run}"

    def violations(self) -> Iterator[str]:
        for unit in (unit for unit in _UNITS if self._budget.get(unit)):
            entries, paid, cap = self._ledger.of_run(self._run.run, unit), self._paid.of(unit), self._cap(unit)
            if paid > cap:
                yield f"I21 {self._what} has paid for {paid} {unit}, and may for {cap}"
            if any(each.spent > cap for each in entries):
                yield f"I21 the counter of {self._what} came to more than {cap} {unit}"
            end = entries[-1] if entries else Added(0.0, 0, 0, 0, 0)
            if end.spent != paid:
                yield f"I21 the counter of {self._what} says {end.spent} {unit}, the log {paid}"
            if end.held:
                yield f"I21 the counter of {self._what} holds {end.held} {unit} in the end"
        if self._run.is_over_budget and self._run.flow.parks:
            yield f"I21 {self._what} failed for its budget, and was to wait for more"
        if self._run.is_over_budget and not self._was_short():
            yield f"I21 {self._what} failed for its budget, and there was enough"
        for token in self._run.log.notes:
            waits = self._waits(token)
            if waits and not self._run.flow.parks:
                yield f"I21 step {token} of {self._what} waits for its budget, and was to end the run"
            if waits and not self._was_short():
                yield f"I21 step {token} of {self._what} waited for its budget, and there was enough"
            if waits and self._run.is_done and kept_of(self._run, token) is None:
                yield f"I21 step {token} of {self._what} waits for its budget for ever"

    def _waits(self, token: str) -> list[dict[str, Any]]:
        facts = [note["fact"] for note in self._run.log.notes[token]]
        return [fact for fact in facts if fact["type"] == "waits" and fact["what"] == "budget"]

    def _cap(self, unit: str) -> int:
        """Return what it may come to at the most: by its flow, or by who allowed it more."""
        said = [word[unit] for word in self._words if word.get(unit)]
        return max(_counted(unit, each) for each in [self._budget[unit], *said])

    def _was_short(self) -> bool:
        """Say whether a call of it was held for that would have come to more than is allowed, with what was spent then.

        By what the flow allows: whoever allows more does so later.
        """
        for unit in _UNITS:
            caps = [(self._budget.get(unit), [self._ledger.of_run(self._run.run, unit)])]
            caps.append(
                (self._budget.get(f"{unit}_per_day"), [*self._ledger.of_days(self._run.flow.name, unit).values()])
            )
            for cap, counters in caps:
                most = _counted(unit, cap) if cap is not None else math.inf
                for entries in counters:
                    if any(each.more_held > 0 and each.spent + each.more_held > most for each in entries):
                        return True
        return False


def _counted(unit: str, amount: float) -> int:
    return round(amount * _PER_USD) if unit == "usd" else int(amount)


def _allowed(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """Return what was said of runs that they may spend."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record.kind == "say" and record.who == "-budget" and isinstance((record.body or {}).get("answer"), dict):
            found.setdefault(record.run, []).append((record.body or {})["answer"])
    return found


def _paid(run: Demands) -> Paid:
    """Return what the log says that a run has paid for: answers, and what was paid in vain."""
    usages = []
    for notes in run.log.notes.values():
        for fact in (note["fact"] for note in notes):
            if fact["type"] in ("model", "exchange"):
                usages.append(fact.get("usage"))
            elif fact["type"] in ("retry", "spent"):
                usages.append(fact.get("work", {}).get("usage"))
    usages += [work.get("usage") for work in run.log.failed_work.values() if work.get("model")]
    found = [usage for usage in usages if usage]
    read = sum(usage.get("input_tokens", 0) for usage in found)
    written = sum(usage.get("output_tokens", 0) for usage in found)
    return Paid(read * _IN + written * _OUT, read + written)
