"""Which steps of a flow come in which order, round by round: what is before a step and after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property

from .flow_file import FlowFile, Loop, in_round


class Course:
    """The way through a flow that its loops make: a step of theirs is there once for each round."""

    def __init__(self, flow: FlowFile, wants_another: Callable[[Loop, int], bool]) -> None:
        """`wants_another` says whether there is to be another round after this one, were it not for their number."""
        self._flow, self._wants_another = flow, wants_another

    @cached_property
    def steps(self) -> list[str]:
        """The steps, each in all its rounds that there are, in an order in which they may come."""
        steps: list[str] = []
        for step in self._flow.order:
            loop = self._flow.loop_of(step)
            if loop is None:
                steps.append(step)
            elif step == loop.first:
                within = [each for each in self._flow.order if each in loop.steps]
                for number in range(1, self.rounds(loop) + 1):
                    steps += [in_round(each, number) for each in within]
        return steps

    def rounds(self, loop: Loop) -> int:
        """Return how many rounds of a loop there are, as far as the log has them."""
        return next(number for number in itertools.count(1) if not self.goes_again(loop, number))

    def goes_again(self, loop: Loop, number: int) -> bool:
        """Say whether another round comes after this one."""
        return number < loop.rounds and self._wants_another(loop, number)

    def is_out_of_rounds(self, token: str) -> bool:
        """Say whether the run fails after this step, as there is to be another round, and it was the last."""
        step, _, number = self._flow.place(token)
        loop = self._flow.loop_of(step)
        if loop is None or step != loop.last or not loop.fails:
            return False
        return number == loop.rounds and self._wants_another(loop, number)

    def sources(self, token: str) -> list[str]:
        """Return the steps right before this one, in their rounds."""
        step, _, number = self._flow.place(token)
        loop = self._flow.loop_of(step)
        if loop is not None and step == loop.first and number > 1:
            return [in_round(loop.last, number - 1)]
        return [self.last_of(source, loop, number) for source in self._flow.sources[step]]

    def after(self, token: str) -> list[str]:
        """Return the steps that come right after this one, in their rounds, unless it is done once more."""
        step, _, number = self._flow.place(token)
        loop = self._flow.loop_of(step)
        within = loop.steps if loop is not None else frozenset()
        return [in_round(each, number if each in within else 1) for each in self._flow.successors[step]]

    def last_of(self, step: str, loop: Loop | None, number: int) -> str:
        """Return a step as it is seen in this round of a loop: in that round, or of another loop in its last."""
        if loop is not None and step in loop.steps:
            return in_round(step, number)
        other = self._flow.loop_of(step)
        return step if other is None else in_round(step, self.rounds(other))

    def joins(self, token: str) -> bool:
        """Say whether a step waits for several: the first of a loop does so in its first round alone."""
        step, _, number = self._flow.place(token)
        loop = self._flow.loop_of(step)
        return self._flow.joins(step) and (loop is None or step != loop.first or number == 1)

    def joins_after(self, token: str) -> Iterator[str]:
        """Yield the joins that a step is before, in its round or after the loop: a loop is left when all of it is."""
        step, _, number = self._flow.place(token)
        loop = self._flow.loop_of(step)
        for join in filter(self._flow.joins, self._flow.all_after(step)):
            if loop is not None and join in loop.steps:
                yield in_round(join, number)
            elif (other := self._flow.loop_of(join)) is None or other.first == join:
                yield join

    def ends_a_loop(self, token: str) -> bool:
        """Say whether a step is the one after which it is decided whether there is another round."""
        loop = self._flow.loop_of(self._flow.base(token))
        return loop is not None and self._flow.base(token) == loop.last
