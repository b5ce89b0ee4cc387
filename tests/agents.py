"""What tests of agents give them: tasks of a flow of one step, and a journal that nobody may ask."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from baton_actors.agents.context import Context
from baton_actors.agents.kinds import StepTask
from baton_actors.models import ModelAnswer, ModelError, ModelRequest
from baton_actors.models.caching import Prefix
from baton_actors.models.types import Bound
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.wire.facts import Exchange, ToolBegun, ToolCall
from baton_schemas.wire.files import File, FileRef

T = TypeVar("T")
CONTEXT = Context(run="r1", step="a", attempt=1)


def plan_of(name: str = "flow", handler: str = "./h.py:f", *, fields: Mapping[str, str] | None = None) -> Plan:
    """Return a flow of one step, done by a handler, with these fields of input."""
    return Plan(
        Flow(
            name=name,
            input={field: Field(type=kind) for field, kind in (fields or {}).items()},
            agents={"a": Agent(handler=handler) if handler else Agent(model="m", prompt="p", max_tokens=10)},
            steps={"a": Step(agent="a")},
        )
    )


def task_of(plan: Plan | None = None, *, step: str = "a", timeout_s: float = 30.0, **values: Any) -> StepTask:
    """Return a task of a step of a flow (of one step unless `plan` says more), with these values."""
    plan = plan or plan_of(fields=dict.fromkeys(values, "str"))
    timed_step = msgspec.structs.replace(plan.flow.steps[step], timeout_s=timeout_s)
    timed = Plan(msgspec.structs.replace(plan.flow, steps={**plan.flow.steps, step: timed_step}))
    raw = {name: Raw(msgspec.json.encode(value)) for name, value in values.items()}
    return StepTask(plan=timed, step=step, values=raw, context=CONTEXT)


class ToolFacts:
    """What is recorded of tools, kept in memory as the log does."""

    def __init__(self) -> None:
        self.tools: list[OfferedTool] | None = None
        self.begins: dict[tuple[str, int], ToolBegun] = {}
        self.calls: dict[tuple[str, int], ToolCall] = {}

    def now_s(self) -> float:
        return time.time()

    async def offered(self) -> list[OfferedTool] | None:
        return self.tools

    async def offer(self, tools: Sequence[OfferedTool]) -> list[OfferedTool]:
        self.tools = list(tools)
        return self.tools

    async def called(self, digest: str, place: int, *, look: bool = False) -> ToolCall | None:
        return self.calls.get((digest, place))

    def begun(self, digest: str, place: int) -> ToolBegun | None:
        return self.begins.get((digest, place))

    async def begin(self, begun: ToolBegun) -> ToolBegun:
        there = self.begins.get((begun.request_sha256, begun.place))
        if there is None or there.number < begun.number:
            there = self.begins[begun.request_sha256, begun.place] = begun
        return there

    async def record(self, call: ToolCall) -> ToolCall:
        return self.calls.setdefault((call.request_sha256, call.place), call)


class NoJournal:
    """The journal of an agent that records nothing but what its tools give."""

    _tools: ToolFacts | None = None

    @property
    def tools(self) -> ToolFacts:
        if self._tools is None:
            self._tools = ToolFacts()
        return self._tools

    @property
    def by_batch(self) -> bool:
        return False

    async def batched(self, request: ModelRequest, digest: str, bound: Bound) -> ModelAnswer:
        raise AssertionError("its calls go in no batches")

    async def recall(self, digest: str) -> ModelAnswer | None:
        raise AssertionError("a handler asks no model")

    async def record(self, digest: str, answer: ModelAnswer) -> ModelAnswer:
        raise AssertionError("a handler asks no model")

    async def recalled(self, digest: str, number: int) -> Exchange | None:
        raise AssertionError("this handler has no client")

    async def recorded(self, exchange: Exchange) -> Exchange:
        raise AssertionError("this handler has no client")

    async def load(self, ref: FileRef) -> bytes:
        raise AssertionError("this step is given no files")

    async def keep(self, made: Sequence[File]) -> None:
        raise AssertionError("this step makes no files")

    def warmed(self, prefix: Prefix) -> AbstractAsyncContextManager[Callable[[], None]]:
        raise AssertionError("this step is not warm")

    async def in_turn(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        raise AssertionError("a handler asks no model")

    def spent(self, error: ModelError) -> None:
        raise AssertionError("a handler asks no model")
