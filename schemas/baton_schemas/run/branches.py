"""The branches of a join with their places, for whoever asks how each ended: a plain list leaves out those that failed.

What each was given is in the log once: in the list that its step fanned out over.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Raw, Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import carried
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Done, Error, Failed


class BranchEnd(Struct, frozen=True):
    """How one branch of a fan-out ended."""

    index: int
    """Its place in the list, from 0."""
    value: Raw | None = None
    """What it put out; None when it failed."""
    error: Error | None = None


class BranchEnds(Struct, frozen=True):
    """The branches of one fan-out that its join closed with, in the order of the list."""

    ends: Sequence[BranchEnd]
    count: int
    """How many the fan-out had."""
    passes: bool
    """Whether the error of a failed branch stands in its place in the plain list (`failed = "pass"`)."""

    @property
    def whole(self) -> bool:
        """Whether all of them ended well: then the plain list has each in its place."""
        return len(self.ends) == self.count and all(end.error is None for end in self.ends)


def fan_outs(plan: Plan, join: str) -> frozenset[str]:
    """Return the steps with `each` that come right before a step: those whose branches it joins."""
    return frozenset(source for source in plan.sources[join] if plan.step(source).each)


def branch_ends(plan: Plan, join: str, replies: Sequence[Reply], wanted: Collection[str]) -> dict[str, BranchEnds]:
    """Return how the branches of these fan-outs ended, by step; `replies` as for `carry.state_of_join`."""
    ends: dict[str, list[BranchEnd]] = {source: [] for source in wanted}
    counts: dict[str, int] = dict.fromkeys(wanted, 0)
    for reply in replies:
        if reply.source not in ends:
            continue
        counts[reply.source] = max(counts[reply.source], reply.count)
        match reply.outcome:
            case Done(output=output):
                ends[reply.source].append(BranchEnd(reply.index, output))
            case Failed(error=error):
                ends[reply.source].append(BranchEnd(reply.index, None, carried(error)))
    return {
        source: BranchEnds(found, counts[source], plan.on_failed_branch(join, source) == "pass")
        for source, found in ends.items()
    }


def list_comes_from(plan: Plan, fan_out: str) -> tuple[str, str]:
    """Return where the log has the list that a step fanned out over: after which step's outcome, and under which name.

    The step is empty when the run's first handoff has it: then it is an input.
    """
    root = plan.step(fan_out).each.split(".")[0]
    return next(iter(plan.sources[fan_out]), ""), root
