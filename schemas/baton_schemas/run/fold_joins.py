"""Joins in the fold of a run: who has replied to each, of how many, and who of them came too late."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from copy import copy

from baton_schemas.wire.messages import Joined, Reply
from baton_schemas.wire.names import DEADLINE, JOIN

from .refs import StepRef, ended_by, name_of, parse, replied, tokens, whole
from .state import StepState


class FoldedJoins:
    """Those of one run. Joins and fan-outs go by their tokens."""

    def __init__(self) -> None:
        self.sources: Mapping[str, Sequence[str]] = {}
        """What each waits for, as the flow says, once that is known."""
        self.arrived: dict[str, dict[str, str]] = {}
        """By join: the branches that replied, in order: their tokens, by what the join calls them."""
        self.counts: dict[str, int] = {}
        """By step, with its round: how many branches it has."""

    def copied(self) -> FoldedJoins:
        """Return the same, to go on by itself."""
        other = copy(self)
        other.arrived = {name: dict(branches) for name, branches in self.arrived.items()}
        other.counts = dict(self.counts)
        return other

    def arrive(self, reply: Reply) -> str | None:
        """Take a reply; return the branch that it comes from, None for the deadline."""
        arrived = self.arrived.setdefault(reply.step, {})
        if reply.source == DEADLINE:
            return None
        branch = ended_by(reply)
        arrived[replied(reply)] = branch
        self.counts[whole(branch)] = reply.count
        return branch

    def expected(self, join: str) -> int:
        """Return how many branches are to reply, as far as the log says."""
        there = {name_of(branch): whole(branch) for branch in self.arrived[join].values()}
        sources = self.sources.get(name_of(join)) or tuple(there)
        tokens_ = [there.get(source) or StepRef(source, round=parse(join).round).token for source in sources]
        return sum(max(self.counts.get(token, 1), 1) for token in tokens_)

    def branches(self, join: str, closing: Joined) -> list[str]:
        """Return the branches that a closing handoff names, as their own handoffs call them."""
        arrived = self.arrived.get(join, {})
        found: list[str] = []
        for source, text in closing.branches.items():
            with contextlib.suppress(ValueError):  # a stranger's
                found += [arrived.get(name, name) for name in tokens(source, text)]
        return found

    def late(self, join: StepState) -> list[str]:
        """Return the branches that replied, and are not in the handoff that closed it."""
        if join.source != JOIN:
            return []
        closed = set(join.branches)
        return [branch for branch in self.arrived[join.name].values() if branch not in closed]
