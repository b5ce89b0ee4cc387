"""A flow file as the checker reads it: with the standard library, and no code of Baton's.

A token of the log is a step (`read`), or a branch of one (`read-0`), in its round if it is in a loop: `read-0--r2`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_BRANCH = re.compile(r"(.+)-(\d+)")
_ROUND = re.compile(r"(.+)--r(\d+)")
_CHILD = re.compile(r"(.+)--k[0-9A-Za-z_-]+")


class Policy(NamedTuple):
    """What a join waits for."""

    wait: int | None
    """So many that ended well; None for all that there are."""
    min_done: int
    failed: str | None
    deadline_s: float | None


class Place(NamedTuple):
    """What a token stands for."""

    step: str
    branch: int | None
    """Which one it is; None when it is none."""
    round: int
    """From 1."""


class Loop(NamedTuple):
    """What is done once more for as long as something holds."""

    first: str
    last: str
    steps: frozenset[str]
    """All of it, those two as well."""
    when: dict[str, Any]
    rounds: int
    """At most."""
    fails: bool
    """Whether the run fails when it holds after the last round."""


class FlowFile:
    """A flow: who comes after whom, and what a failure means. The steps that fan-outs imply are among its steps."""

    def __init__(self, path: Path) -> None:
        data = tomllib.loads(path.read_text("utf-8"))
        self.name: str = data["name"]
        self.agents: dict[str, dict[str, Any]] = data["agents"]
        self.steps: dict[str, dict[str, Any]] = data["steps"]
        self.budget: dict[str, float] = data.get("budget", {})
        self.parks: bool = data.get("on_budget", "fail") == "park"
        """Whether a step waits for which too little is left."""
        self._on_error: str = data.get("on_error", "fail")
        self.implied: dict[str, str] = {}
        """Steps that the file does not name: what each does, `join` or `list`."""
        self.steps = dict(self._with_implied())
        self.sources = {step: self._sources(step) for step in self.steps}
        self.successors = {step: [other for other in self.steps if step in self.sources[other]] for step in self.steps}
        self.first = [step for step in self.steps if not self.sources[step]]
        (self.final,) = [step for step in self.steps if not self.successors[step]]
        self.order = self._order()
        self.loops = [self._loop(step, said["again"]) for step, said in self.steps.items() if "again" in said]

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

    def conditions(self, step: str) -> dict[str, Any]:
        """Return what is to hold for a step to be done: values, or lists of values, by path."""
        found: dict[str, Any] = self.steps[step].get("when", {})
        return found

    def lanes(self, step: str) -> int | None:
        """Return how many branches of a step may be under way at once; None for all of them."""
        return self.steps[step].get("concurrency")

    def loop_of(self, step: str) -> Loop | None:
        return next((loop for loop in self.loops if step in loop.steps), None)

    def base(self, token: str) -> str:
        """Return the step that a token is, or is a branch of; for what a handler asked for who was asked."""
        return token if token in self.steps else self.asked(token) or self.place(token).step

    def asked(self, token: str) -> str:
        """Return who was asked for this, an agent or a kind of waiting; empty for a step of the flow."""
        match = _CHILD.fullmatch(token)
        return match[1] if match is not None and token not in self.steps else ""

    def place(self, token: str) -> Place:
        """Return the step of a token, which branch of it, and in which round."""
        if token in self.steps:
            return Place(token, None, 1)
        found = _ROUND.fullmatch(token)
        named, number = (found[1], int(found[2])) if found is not None else (token, 1)
        branch = _BRANCH.fullmatch(named)
        if named in self.steps or branch is None:
            return Place(named, None, number)
        return Place(branch[1], int(branch[2]), number)

    def agent(self, token: str) -> str:
        return self.asked(token) or self._agent(self.base(token))

    def has_tools(self, token: str) -> bool:
        """Say whether a step is of an agent whose model has tools."""
        return "tools" in self.agents.get(self.agent(token), {})

    def goes_in_batches(self, token: str) -> bool:
        """Say whether the calls of a step's model go in batches. Notes may be on what is no step: a message refused."""
        if not self.asked(token) and self.base(token) not in self.steps:
            return False
        return self.agents.get(self.agent(token), {}).get("delivery") == "batch"

    def batch_count(self, token: str) -> int:
        """Return how many calls of a step's agent go together at most."""
        return int(self.agents[self.agent(token)]["batch"]["count"])

    def timeout_s(self, token: str) -> float:
        """Return how long a call of a step's model may take, in seconds."""
        return float(self.agents[self.agent(token)]["timeout_s"])

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

    def _agent(self, step: str) -> str:
        return str(self.steps[step].get("agent", step))

    def _with_implied(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield all steps: one that merges before a fan-out that joins, and one after a fan-out that is the last."""
        read = {source for step in self.steps for source in self._sources(step)}
        for step, said in self.steps.items():
            if "each" not in said:
                yield step, said
                continue
            sources, more = self._sources(step), {"agent": self._agent(step)}
            if "on_error" in said:
                more["on_error"] = said["on_error"]
            policy = {"join": said["join"]} if "join" in said else {}
            if len(sources) > 1 or any(self.spreads(source) for source in sources):
                before = f"{step}--join"
                self.implied[before] = "join"
                yield before, {**more, **policy, "after": sources}
                said, policy = {**said, "after": before}, {}
            yield step, said
            if step not in read:
                self.implied[f"{step}--list"] = "list"
                yield f"{step}--list", {**more, **policy, "after": step}

    def _loop(self, last: str, said: dict[str, Any]) -> Loop:
        first = said["from"]
        steps = {step for step in self.steps if step == first or step in self.all_after(first)}
        within = frozenset(step for step in steps if step == last or last in self.all_after(step))
        return Loop(first, last, within, said["when"], said["max_rounds"], said.get("on_last") == "fail")

    def _order(self) -> list[str]:
        order: list[str] = []
        while len(order) < len(self.steps):
            order += [s for s in self.steps if s not in order and all(each in order for each in self.sources[s])]
        return order


def in_round(step: str, number: int) -> str:
    """Return the token of a step (or a branch) in a round."""
    return step if number == 1 else f"{step}--r{number}"


def indices(text: str) -> list[int | None]:
    """Return which branches a text such as `0-4,7` names; `*` is a step that is no fan-out."""
    if text == "*":
        return [None]
    found: list[int | None] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found
