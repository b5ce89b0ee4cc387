"""Handlers that count their calls and break on demand, for the tests of forks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from baton_actors.errors import Fail
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import Error

from .clients import fork_run
from .team import Team, flow_of

TEXT = {"text": Field()}


class Calls:
    """Handlers that count their calls; one whose name (or item) is in `broken` fails."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.counts: Counter[str] = Counter()

    def take(self) -> dict[str, int]:
        """What was called since this was last asked."""
        taken, self.counts = dict(self.counts), Counter()
        return taken

    def note(self, name: str) -> None:
        self.counts[name] += 1
        if name in self.broken:
            raise Fail(f"{name} is broken")

    async def a(self, text: str) -> str:
        self.note("a")
        return f"{text}a"

    async def b(self, a: str) -> str:
        self.note("b")
        return f"{a}b"

    async def c(self, b: str) -> str:
        self.note("c")
        return f"{b}c"

    async def split(self, text: str) -> list[str]:
        self.note("split")
        return text.split()

    async def each(self, item: str) -> str:
        self.note(item)
        return item.upper()

    async def merge(self, each: list[str], errors: list[Error]) -> list[Any]:
        self.note("merge")
        return [*each, *(error.message for error in errors)]

    async def last(self, merge: list[Any]) -> list[Any]:
        self.note("last")
        return merge

    @property
    def all(self) -> dict[str, Any]:
        names = ("a", "b", "c", "split", "each", "merge", "last")
        return {name: getattr(self, name) for name in names}


def fan_out(join: JoinPolicy | None = None, **options: Any) -> Flow:
    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="each", each="split"),
        "merge": Step(agent="merge", after=["each"], join=join),
        "last": Step(agent="last", after=["merge"]),
    }
    return flow_of(steps, TEXT, **options)


async def fork_of(t: Team, run: str, **given: Any) -> Result:
    return await t.result(await fork_run(t.client, run, **given))
