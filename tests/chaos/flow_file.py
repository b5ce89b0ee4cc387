"""A flow file as the checker reads it: with the standard library, and no code of Baton's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

_BRANCH = re.compile(r"(.+)-(\d+)")
_CHILD = re.compile(r"(.+)--k[0-9A-Za-z_-]+")


class Policy(NamedTuple):
    """What a join waits for."""

    wait: int | None
    """So many that ended well; None for all that there are."""
    min_done: int
    failed: str | None
    deadline_s: float | None


class FlowFile:
    """A flow: who comes after whom, and what a failure means."""

    def __init__(self, path: Path) -> None:
        data = tomllib.loads(path.read_text("utf-8"))
        self.name: str = data["name"]
        self.agents: dict[str, dict[str, Any]] = data["agents"]
        self.steps: dict[str, dict[str, Any]] = data["steps"]
        self._on_error: str = data.get("on_error", "fail")
        self.sources = {step: self._sources(step) for step in self.steps}
        self.successors = {step: [other for other in self.steps if step in self.sources[other]] for step in self.steps}
        self.first = [step for step in self.steps if not self.sources[step]]
        (self.final,) = [step for step in self.steps if not self.successors[step]]
        self.order = self._order()

    def spreads(self, step: str) -> str:
        """Return which list a step fans out over; empty when it does not."""
        return str(self.steps[step].get("each", ""))

    def joins(self, step: str) -> bool:
        return len(self.sources[step]) > 1 or any(self.spreads(source) for source in self.sources[step])

    def policy(self, join: str) -> Policy:
        said = self.steps[join].get("join", {})
        wait = said.get("wait", "all")
        return Policy(
            None if wait == "all" else wait, said.get("min_done", 0), said.get("failed"), said.get("deadline_s")
        )

    def fails_run(self, step: str, successor: str | None = None) -> bool:
        """Say whether the run fails when this step does, before that successor begins."""
        stops = self.steps[step].get("on_error", self._on_error) == "fail"
        if successor is not None and self.joins(successor):
            return (self.policy(successor).failed or ("fail" if stops else "skip")) == "fail"
        return successor is None or stops

    def base(self, token: str) -> str:
        """Return the step that a token is, or is a branch of; for what a handler asked for who was asked."""
        return token if token in self.steps else self.asked(token) or self.place(token)[0]

    def asked(self, token: str) -> str:
        """Return who was asked for this, an agent or a kind of waiting; empty for a step of the flow."""
        match = _CHILD.fullmatch(token)
        return match[1] if match is not None and token not in self.steps else ""

    def place(self, token: str) -> tuple[str, int | None]:
        """Return the step of a token, and which branch of it."""
        match = _BRANCH.fullmatch(token)
        if token in self.steps or match is None:
            return token, None
        return match[1], int(match[2])

    def agent(self, token: str) -> str:
        return self.asked(token) or str(self.steps[self.base(token)].get("agent", self.base(token)))

    def actor(self, token: str) -> str:
        return f"{self.name}--{self.agent(token)}"

    def max_attempts(self, token: str) -> int:
        return int(self.agents[self.agent(token)].get("max_attempts", 3))

    def all_after(self, step: str) -> set[str]:
        """Return every step that comes after a step, at any distance."""
        return {each for after in self.successors[step] for each in {after, *self.all_after(after)}}

    def _sources(self, step: str) -> list[str]:
        after = self.steps[step].get("after", [])
        after = [after] if isinstance(after, str) else list(after)
        listed = self.spreads(step).split(".")[0]
        return [listed] if not after and listed in self.steps else after

    def _order(self) -> list[str]:
        order: list[str] = []
        while len(order) < len(self.steps):
            order += [s for s in self.steps if s not in order and all(each in order for each in self.sources[s])]
        return order


def indices(text: str) -> list[int | None]:
    """Return which branches a text such as `0-4,7` names; `*` is a step that is no fan-out."""
    if text == "*":
        return [None]
    found: list[int | None] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found
