"""What the counters of money say, read raw off their stream: each number that was added, by its counter.

As decision 0016 has it, one number stands for two: what is spent, and so many times 2^64 what is held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from .raw import Record

_HELD = 2**64

Name = tuple[str, ...]
"""What is counted, of what, and in which unit: a run, or the day of a flow."""


class Added(NamedTuple):
    """One number, and what the counter stood at then."""

    at_s: float
    spent: int
    held: int
    more_spent: int
    more_held: int


class Ledger:
    """Of a namespace."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.entries: dict[Name, list[Added]] = defaultdict(list)
        for record in sorted(records, key=lambda each: each.seq):
            name = tuple(record.subject.split(".")[1:])
            held, spent = divmod(int((record.body or {}).get("val", "0")), _HELD)
            before = self.entries[name][-1] if self.entries[name] else Added(0.0, 0, 0, 0, 0)
            self.entries[name].append(Added(record.at_s, spent, held, spent - before.spent, held - before.held))

    @property
    def is_held(self) -> bool:
        """Whether something is held on any counter in the end."""
        return any(entries[-1].held for entries in self.entries.values())

    def of_run(self, run: str, unit: str) -> list[Added]:
        return self.entries.get(("run", run, unit), [])

    def of_days(self, flow: str, unit: str) -> dict[Name, list[Added]]:
        return {n: each for n, each in self.entries.items() if n[:2] == ("flow", flow) and n[-1] == unit}
