"""Steps whose worker has died: nobody does them until their leases end. What the log cannot say, as nobody wrote it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from baton_actors.steps.held import HeldStep
from baton_schemas.run.refs import whole
from baton_schemas.show.children import is_child
from baton_schemas.show.rows import Row


class Lost:
    """The steps that dead workers of this command held."""

    def __init__(self) -> None:
        self.run = ""
        """The run of the command, once it has begun."""
        self._back_at: dict[tuple[str, str], float] = {}

    def add(self, held: Iterable[HeldStep], lease_s: float) -> None:
        """A worker has died with these in hand, which come back within `lease_s` seconds."""
        now = time.monotonic()
        self._back_at |= {(step.run, step.step): now + lease_s for step in held}

    def steps(self) -> dict[str, float]:
        """Return the steps of the run that wait for the end of a lease, and for how long still, in seconds."""
        now = time.monotonic()
        self._back_at = {step: at for step, at in self._back_at.items() if at > now}
        return {step: at - now for (of, step), at in self._back_at.items() if of == self.run}

    def found(self, step: str) -> None:
        """Somebody does a step of the run again, or it has ended."""
        self._back_at.pop((self.run, step), None)


def with_lost(rows: Sequence[Row], lost: dict[str, float]) -> list[Row]:
    """Return the rows, those of lost steps as waiting."""
    if not lost:
        return list(rows)
    waits: dict[str, list[float]] = {}
    known = {row.step for row in rows if not row.depth} | {row.token for row in rows}
    for step, left_s in lost.items():
        # Children that share a row are not said to wait: how many of them do, nobody could tell from it.
        name = step if step in known or is_child(step) else whole(step)
        waits.setdefault(name, []).append(left_s)
    return [
        replace(
            row,
            waits="a new worker",
            waits_s=max(waits[_key(row)]),
            waiting=len(waits[_key(row)]) if row.count else 0,
        )
        if _key(row) in waits and row.status in ("queued", "running")
        else row
        for row in rows
    ]


def _key(row: Row) -> str:
    """Return the step that a row is, as logs name it; nothing where that is no step of its own."""
    return row.token if row.depth else row.step
