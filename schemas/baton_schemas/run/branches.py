"""The branches of a join with their places, for whoever asks how each ended: a plain list leaves out those that failed.

What each was given is in the log once: in the list that its step fanned out over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import carried
from baton_schemas.run.rounds import in_round
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Done, Error, Failed

from .refs import indices, ranges


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


class Came(Struct, frozen=True, omit_defaults=True):
    """Which branches of a fan-out had come to a join, where some failed or had not."""

    count: int
    came: str
    """Their indices as ranges (`0-4,7`)."""
    failed: dict[int, Error] = {}


_encoder = msgspec.json.Encoder()
_came_decoder = msgspec.json.Decoder(dict[str, Came])


def fan_outs(plan: Plan, join: str) -> frozenset[str]:
    """Return the steps with `each` that come right before a step: those whose branches it joins."""
    return frozenset(source for source in plan.before(join) if plan.step(source).each)


def came_of(branches: Mapping[str, BranchEnds]) -> bytes:
    """Return what a step that joins before another fans out puts out: which branches came, where the list does not say.

    JSON: by fan-out, `Came`; those that ended well, all of them, are left out.
    """
    return _encoder.encode(
        {
            source: Came(
                found.count,
                ranges(end.index for end in found.ends),
                {end.index: end.error for end in found.ends if end.error is not None},
            )
            for source, found in branches.items()
            if not found.whole
        }
    )


def ends_seen(
    plan: Plan,
    step: str,
    replies: Sequence[Reply],
    came: Raw | None,
    values: Mapping[str, Raw],
    wanted: Collection[str],
) -> dict[str, BranchEnds]:
    """Return how the branches of fan-outs ended that came right before a step, whether it joins them itself or not.

    `replies` are those that it joins, and `came` is what was put out by the step that joined for it; `values` is what
    it reads, inline. Raises `ValueError` as `ends_of`.
    """
    if not plan.opening(step):
        return branch_ends(plan, step, replies, wanted)
    lists = {name: values[name] for name in wanted if name in values}
    return ends_of(plan, step, came, lists) if came is not None else {}


def ends_of(plan: Plan, step: str, came: Raw, lists: Mapping[str, Raw]) -> dict[str, BranchEnds]:
    """Return how the branches ended that were joined before a step fanned out, by fan-out.

    `came` is what that join put out (see `came_of`), `lists` are the lists of their outputs. Raises `ValueError` for
    what a stranger wrote.
    """
    told = _came_decoder.decode(came)
    ends: dict[str, BranchEnds] = {}
    for source, listed in lists.items():
        values = iter(msgspec.json.decode(listed, type=list[Raw]))
        passes = plan.on_failed_branch(plan.opening(step), source) == "pass"
        found: list[BranchEnd] = []
        if source not in told:
            found = [BranchEnd(index, value) for index, value in enumerate(values)]
            ends[source] = BranchEnds(found, len(found), passes)
            continue
        for index in indices(told[source].came):
            error = told[source].failed.get(index)
            if error is None or passes:
                value = next(values, None)
            found.append(BranchEnd(index, value if error is None else None, error))
        ends[source] = BranchEnds(found, told[source].count, passes)
    return ends


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


def list_comes_from(plan: Plan, fan_out: str, number: int = 1) -> tuple[str, str]:
    """Return where the log has the list that a step fanned out over: after which step's outcome, and under which name.

    `number` is the round of the fan-out, and the step that is returned has its own. It is empty when the run's first
    handoff has the list: then it is an input.
    """
    root, last = plan.step(fan_out).each.split(".")[0], plan.loop_of.get(fan_out, "")
    if number > 1 and fan_out == plan.first_of_loop(last):
        return in_round(last, number - 1), root
    source = next(iter(plan.sources[fan_out]), "")
    return in_round(source, number) if source else "", root
