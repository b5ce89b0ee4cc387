"""What a step did while it was in hand: its calls of models and tools, and what it asked, with their times. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec.structs import replace

from baton_schemas.run.state import Entry, StepState
from baton_schemas.wire.facts import Exchange, ModelCall, Offered, Recorded, Spent, ToolBegun, ToolCall
from baton_schemas.wire.messages import Note

from .moments import before
from .spans import Try, Within


def within_of(
    entries: Iterable[Entry], asked: Iterable[StepState], over_at: datetime | None
) -> tuple[list[Within], list[datetime]]:
    """Return what the entries on a step tell that it did, by when it ended; and the times at which it was in hand.

    `asked` is what it asked for, `over_at` when it or its run ended.
    """
    found: list[Within] = []
    signs: list[datetime] = []
    for entry in entries:
        fact = entry.message.fact if isinstance(entry.message, Note) else None
        match fact:
            case ModelCall(copied=True):
                continue
            case ModelCall(model=name, rehearsed=rehearsed) | Exchange(model=name, rehearsed=rehearsed):
                call = Within(kind="model", name=name, begin=entry.at, end=entry.at, is_exact=False)
                found.append(replace(call, rehearsed=rehearsed))
                if isinstance(fact, ModelCall) and fact.batch:
                    continue  # whoever had the batch sent tells of it
            case ToolCall(name=name, elapsed_s=elapsed_s):
                tool = Within(kind="tool", name=name, begin=before(entry.at, elapsed_s), end=entry.at)
                found.append(replace(tool, failed=fact.is_error, rehearsed=fact.rehearsed))
            case Offered() | Recorded() | Spent() | ToolBegun():
                pass
            case _:
                continue
        signs.append(entry.at)
    for each in asked:
        if each.queued_at is not None:
            signs.append(each.queued_at)
        if each.queued_at is not None and each.asked != "batch":
            child = Within(kind="asked", name=each.name, begin=each.queued_at, end=_end(each, over_at))
            found.append(replace(child, failed=each.status == "failed"))
    return sorted(found, key=lambda each: each.end or each.begin), signs


def bounded(found: Sequence[Within], tries: Sequence[Try]) -> tuple[Within, ...]:
    """Return the same, in which a call of a model begins when what was done before it in its attempt had ended."""
    begins = [one.begin for one in tries]
    done: list[Within] = []
    ended: datetime | None = None
    for each in found:
        if not each.is_exact and each.end is not None:
            place = bisect_right(begins, each.end)
            starts = [begins[place - 1]] if place else []
            starts += [ended] if ended is not None else []
            each = replace(each, begin=max(starts, default=each.end))
        done.append(each)
        ended = each.end if each.end is not None else ended
    return tuple(done)


def _end(child: StepState, over_at: datetime | None) -> datetime | None:
    """Return when who asked had an answer, or was over; an answer may come before its question in a stranger's log."""
    ended = child.ended_at or over_at
    return max(ended, child.queued_at) if ended is not None and child.queued_at is not None else ended
