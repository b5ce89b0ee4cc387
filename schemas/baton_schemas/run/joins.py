"""A join as pure functions: who has arrived, whether that is enough, and the handoff that closes it.

Who has arrived is a chain of small records, each of which names only the branches that came since the last. The join
closes after the first link with which it has what its policy asks for: what it closes with follows from the chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Handoff, Join, Joined, Reply
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Error, Failed, Skipped

from .child_runs import version_in
from .refs import ITSELF, indices, ranges


class Chain:
    """The links of one join, folded in their order. `head` is any of its messages: it says whose join this is."""

    def __init__(self, plan: Plan, head: Reply | Join) -> None:
        self._plan, self.head, self.step = plan, head, head.step
        self._sources = plan.sources[plan.name_of(head.step)]
        self.number = 0
        """Links so far."""
        self.closed = False
        """Whether it has what its policy asks for. From then on no branch changes it: those that come are late."""
        self.deadline = False
        self.copied = False
        self.counts: dict[str, int] = {}
        self._came: dict[str, set[int]] = {}
        self._failed: dict[str, set[int]] = {}
        self._left_out: dict[str, str] = {}

    def apply(self, link: Join) -> None:
        """Fold the next link."""
        self.number = link.number
        if self.closed:
            return
        self.counts.update(link.counts)
        for source, text in link.came.items():
            self._came.setdefault(source, set()).update(indices(text))
        for source, text in link.failed.items():
            self._failed.setdefault(source, set()).update(indices(text))
        self._left_out.update(link.left_out)
        self.deadline = self.deadline or link.deadline
        self.copied = self.copied or link.copied
        self.closed = self._enough()

    def has(self, reply: Reply) -> bool:
        """Say whether this branch is in the chain."""
        return self.deadline if reply.source == DEADLINE else reply.index in self._came.get(reply.source, ())

    def link(self, replies: Iterable[Reply]) -> Join | None:
        """Return the next link, for those of these replies that are not in the chain; None when nothing is new."""
        came: dict[str, set[int]] = {}
        failed: dict[str, set[int]] = {}
        counts: dict[str, int] = {}
        left_out: dict[str, str] = {}
        deadline = copied = False
        for reply in replies:
            if self.closed or self.has(reply):
                continue
            copied = copied or reply.copied
            if reply.source == DEADLINE:
                deadline = True
                continue
            came.setdefault(reply.source, set()).add(reply.index)
            if reply.source not in self.counts:
                counts[reply.source] = reply.count
            if isinstance(reply.outcome, Failed):
                failed.setdefault(reply.source, set()).add(reply.index)
            if isinstance(reply.outcome, Skipped) and reply.outcome.left_out:
                left_out[reply.source] = reply.outcome.reason
        if not came and not deadline:
            return None
        return Join(
            flow=self.head.flow,
            digest=self.head.digest,
            run=self.head.run,
            step=self.step,
            start_seq=self.head.start_seq,
            number=self.number + 1,
            came={source: self._text(source, found, {**self.counts, **counts}) for source, found in came.items()},
            failed={source: self._text(source, found, {**self.counts, **counts}) for source, found in failed.items()},
            counts=counts,
            deadline=deadline,
            copied=copied,
            left_out=left_out,
        )

    def closing(self) -> Handoff:
        """Return the handoff that closes the join: it follows from the chain alone, and names its branches.

        A fan-out over an empty list, and what was left out, is named too: its word carries what the merger reads.
        """
        sources = self._sources
        left_out = {source: self._left_out[source] for source in sources if source in self._left_out}
        error = shortfall(self._plan, self.step, self._done(), self._branches(), len(left_out))
        branches = {
            source: self._text(source, self._came[source], self.counts) for source in sources if source in self._came
        }
        cause = Joined(
            branches=branches,
            counts={source: self.counts[source] for source in sources if source in self.counts},
            deadline=self.deadline,
            error=error if len(left_out) < len(sources) else None,
            left_out=left_out,
        )
        return Handoff(
            v=version_in(self.head.run),
            flow=self.head.flow,
            digest=self.head.digest,
            run=self.head.run,
            step=self.step,
            cause=cause,
            start_seq=self.head.start_seq,
            copied=self.copied,
        )

    @property
    def missing(self) -> int:
        """How many branches have not come, as far as is known."""
        known = sum(max(self.counts.get(source, 1), 1) for source in self._sources)
        return max(known - sum(len(found) for found in self._came.values()), 0)

    def _text(self, source: str, found: set[int], counts: Mapping[str, int]) -> str:
        return ranges(found) if self._plan.step(source).each and counts.get(source) else ITSELF

    def _enough(self) -> bool:
        plan, step = self._plan, self.step
        if any(found and plan.on_failed_branch(step, source) == "fail" for source, found in self._failed.items()):
            return False  # the run has failed: nothing of it may start
        wait = plan.join_policy(step).wait
        if self.deadline or (isinstance(wait, int) and self._done() >= wait):
            return True
        return all(source in self.counts for source in self._sources) and not self.missing

    def _done(self) -> int:
        """How many branches ended well."""
        return self._branches() - sum(len(found) for found in self._failed.values())

    def _branches(self) -> int:
        """How many branches came: word of an empty list is none, and so is what was left out."""
        came = {source: found for source, found in self._came.items() if source not in self._left_out}
        return sum(len(found) for source, found in came.items() if self.counts.get(source))


def shortfall(plan: Plan, step: str, done: int, arrived: int, left_out: int = 0) -> Error | None:
    """Return the error with which a step that joins fails when too few of its branches ended well."""
    needed = plan.join_policy(step).min_done
    if done >= needed:
        return None
    skipped = f", {left_out} {'was' if left_out == 1 else 'were'} skipped" if left_out else ""
    message = f"{done} of {arrived} branches ended well{skipped}; min_done is {needed}"
    return Error(step=plan.implied.get(plan.name_of(step), step), type="JoinShort", message=message)
