"""Attempts of a step, as its journal tells them: what a handler did counts, and not what the broker did. Pure.

An attempt is one that failed with a reason (`retry`), or one in which the worker died: it had said that it begins
(`begun`), and nothing says how that ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from baton_bus.jetstream.consumer import Delivery
from baton_schemas.wire.facts import Begun, GivenBack, Retry
from baton_schemas.wire.messages import Note


class Tries(Struct, frozen=True, kw_only=True):
    """What earlier attempts at a step came to."""

    failed: int = 0
    """Attempts that ended with an error."""
    died_with: tuple[str, ...] = ()
    """The workers that died of it."""
    begun: int = 0
    """How often somebody said that it begins."""

    @property
    def next(self) -> int:
        """Which attempt is to come, from 1."""
        return self.failed + len(self.died_with) + 1


_NONE = Tries()


def tries_of(notes: Sequence[Note], *, ours: int = 0) -> Tries:
    """Return what the notes on a step say of earlier attempts; `ours` is the number of a beginning that goes on."""
    if not notes:
        return _NONE
    begun: dict[int, str] = {}
    ended: set[int] = set()
    failed = 0
    for note in notes:
        match note.fact:
            case Begun(number=number):
                begun[number] = note.worker
            case Retry(begun=number):
                failed += 1
                ended.add(number)
            case GivenBack(begun=number):
                ended.add(number)
            case _:
                pass
    died_with = tuple(worker for number, worker in begun.items() if number not in ended and number != ours)
    return Tries(failed=failed, died_with=died_with, begun=len(begun))


def is_suspect(notes: Sequence[Note], delivery: Delivery) -> bool:
    """Say whether a step may have killed its last worker: it was handed out, and nothing says what became of it."""
    if delivery.delivered == 1:
        return False
    return not any(
        isinstance(note.fact, Retry | GivenBack)
        and (note.fact.seq, note.fact.delivered) == (delivery.seq, delivery.delivered - 1)
        for note in notes
    )
