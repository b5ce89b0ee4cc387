"""What a step is given, and what it reads: values, errors, the items of a list; and whether it is left out for them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .conditions import unmet
from .course import Course
from .flow_file import FlowFile, Loop, in_round, indices
from .run_log import RunLog
from .twins import Done, Ended, Failed, Skipped, error_in_place


class Inputs:
    """Of the steps of one run. Which branches a join was given is taken from the log."""

    def __init__(
        self, flow: FlowFile, key: str, log: RunLog, course: Course, ended: Callable[[str], Ended | None]
    ) -> None:
        """`ended` says how a step must end."""
        self._flow, self._key, self._log, self._course, self._ended = flow, key, log, course, ended

    # ---- values and errors -----------------------------------------------------------------------

    def read(self, reader: str, number: int, name: str, *, after: bool = False) -> Any:
        """Return what a step reads, in its round, under the name of an input or another step; None for nothing.

        `after` that it is done, it reads itself as well.
        """
        if name not in self._flow.steps:
            return self._key if name == "key" else None
        loop = self._flow.loop_of(reader)
        if loop is not None and name in loop.steps:
            if not (reader in self._flow.all_after(name) or (after and name == reader)):
                number, reader = number - 1, loop.last  # what the round before has put out
            if number == 0:
                return None
        token = self._course.last_of(name, loop, number)
        following = self._course.after(token)
        if following and all(map(self._course.joins, following)):  # so it is known by what the join was given of it
            join = next((j for j in following if self._flow.base(j) in self._before(reader)), None)
            return self.joined(join).get(name) if join is not None and self._log.closing(join) else None
        ended = self._ended(token)
        return ended.output if isinstance(ended, Done) else None

    def _before(self, step: str) -> set[str]:
        return {step} | {each for each in self._flow.steps if step in self._flow.all_after(each)}

    def joined(self, join: str) -> dict[str, Any]:
        """Return what a join is given of the steps before it, by their names: nothing of those that were left out."""
        passes = self._flow.policy(self._flow.base(join)).failed == "pass"
        lists = [
            s for s in self._course.sources(join) if self._flow.spreads(self._flow.base(s)) and not self.is_left_out(s)
        ]
        values: dict[str, Any] = {self._flow.base(source): [] for source in lists}
        for branch in self.named(join):
            ended, source = self._ended(branch), self._flow.base(branch)
            if isinstance(ended, Skipped) or (isinstance(ended, Failed) and not passes):
                continue
            value = error_in_place(ended) if isinstance(ended, Failed) else ended.output if ended else None
            if source in values and self._flow.spreads(source):
                values[source].append(value)
            else:
                values[source] = value
        return values

    def named(self, join: str) -> list[str]:
        """Return the branches that the closing handoff of a join names, in the order of the flow.

        An empty fan-out is named too, by itself: it has no branch. So is what was left out.
        """
        branches = self._closed_with(join)
        return [
            self.branch(source, index)
            for source in self._course.sources(join)
            if self.branches(source) != 0
            for index in indices(branches.get(self._flow.base(source), ""))
        ]

    def _closed_with(self, join: str) -> dict[str, str]:
        closing = self._log.closing(join)
        found: dict[str, str] = (closing.body or {})["cause"].get("branches", {}) if closing is not None else {}
        return found

    def errors(self, token: str) -> list[Failed]:
        """Return the errors that a step must be given: each once, in the order of the flow."""
        found: list[Failed] = []
        befores = self._course.sources(token)
        if self._course.joins(token):
            closed_with = self._closed_with(token)
            nothing = [s for s in befores if self.branches(s) == 0 and self._flow.base(s) in closed_with]
            befores = [*self.named(token), *(before for empty in nothing for before in self._course.sources(empty))]
        for before in befores:
            found += self.errors(before)
            ended = self._ended(before)
            if isinstance(ended, Failed):
                found.append(ended)
        return list(dict.fromkeys(found))

    # ---- lists and conditions --------------------------------------------------------------------

    def branches(self, step: str) -> int | None:
        """Return how many branches a fan-out has, in its round; None when it is none.

        One that is left out, or whose list is not there, has none to do.
        """
        listed = self.listed(step)
        return None if listed is None else len(listed)

    def listed(self, token: str) -> list[Any] | None:
        """Return the items of a fan-out."""
        step, _, number = self._flow.place(token)
        if not self._flow.spreads(step):
            return None
        (source,) = self._course.sources(token)
        if isinstance(self._ended(source), Failed) or self.left_out(token):
            return []
        name, *path = self._flow.spreads(step).split(".")
        value = self.read(step, number, name)
        for part in path:
            value = value[part] if value else []
        return value or []

    def tokens(self, source: str) -> list[str]:
        """Return the branches of a step, or itself."""
        count = self.branches(source)
        return [source] if count is None else [self.branch(source, index) for index in range(count)]

    def branch(self, step: str, index: int | None) -> str:
        """Return the token of a branch; of the step when it is none."""
        name, _, number = self._flow.place(step)
        return in_round(name if index is None else f"{name}-{index}", number)

    def left_out(self, token: str) -> tuple[str, ...]:
        """Return why a step (a fan-out as a whole) is left out, any of these; empty when it is done."""
        step, _, number = self._flow.place(token)
        sources = self._course.sources(token)
        bases = [self._flow.base(source) for source in sources]
        if sources and all(self.is_left_out(source) for source in sources):
            listed = " and ".join(filter(None, (", ".join(bases[:-1]), bases[-1])))
            return (f"{listed} {'was' if len(bases) == 1 else 'were'} skipped",)
        return unmet(self._flow.conditions(step), functools.partial(self.read, step, number))

    def is_left_out(self, token: str) -> bool:
        """Say whether a step, or a fan-out as a whole, is left out."""
        step, index, number = self._flow.place(token)
        if self._flow.spreads(step):
            (source,) = self._course.sources(token)
            return index is None and self._ended(source) is not None and bool(self.left_out(in_round(step, number)))
        return isinstance(self._ended(token), Skipped)

    def wants_another_round(self, loop: Loop, number: int) -> bool:
        """Say whether what a loop goes on for holds after this round."""
        last = in_round(loop.last, number)
        after = functools.partial(self.read, loop.last, number, after=True)
        return isinstance(self._ended(last), Done) and not unmet(loop.when, after)
