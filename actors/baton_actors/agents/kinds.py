"""What a kind of agent is: given a step's task, it does the step. Python, prompt, orchestrator and person are such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from msgspec import Raw, Struct

from baton_actors.agents.asks import NO_ASKS, Asks
from baton_actors.agents.context import Context
from baton_actors.agents.tools.log import ToolLog
from baton_actors.models import ModelAnswer, ModelError, ModelRequest
from baton_actors.models.caching import Prefix
from baton_actors.models.sent import ExchangeLog
from baton_actors.models.types import Bound
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import BranchEnds
from baton_schemas.wire.files import File, FileRef
from baton_schemas.wire.outcomes import Usage

T = TypeVar("T")

WAITING = 100
"""Steps at once of an agent that waits most of the time: as many as the model API's SDK keeps connections open
(`DEFAULT_CONNECTION_LIMITS`), and a waiting step is some kilobytes. With 8, two hundred runs of three agents that take
200 ms needed 6.5 s, with 64 still 1.2 s. The provider's own limit is not this one's to keep: see `Pace`."""
COMPUTING = 8
"""Steps at once of an agent that computes: a thread each, and more of them starve the loop beside them. With 8 that
compute the loop is 0.2 s late at worst (p99), with 64 it is 2.4 s."""


class StepTask(Struct, frozen=True, kw_only=True):
    """What an agent is given: a step of a run's flow, and the values that it reads."""

    plan: Plan
    step: str
    """With the branch's index, if it has one."""
    values: Mapping[str, Raw]
    context: Context
    branches: Mapping[str, BranchEnds] = {}
    """How the branches of fan-outs ended that the step joins, by step: those that its agent `asks` for."""
    asks: Asks = NO_ASKS
    """What it may ask for."""
    items: Mapping[str, list[Raw]] = {}
    """By the same steps: the lists that they fanned out over, for a handler."""


class Performed(Struct, frozen=True, kw_only=True):
    """What doing a step gave: its output as JSON, and what the model calls took, if there were any."""

    output: bytes
    truncated: bool = False
    model: str = ""
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None


class Journal(ExchangeLog, Protocol):
    """What an agent may record while it does a step, so that no later attempt pays for it again."""

    @property
    def tools(self) -> ToolLog:
        """What is recorded of the tools that its model calls."""

    async def recall(self, digest: str) -> ModelAnswer | None:
        """Return the recorded answer to the request with this digest, or None."""

    @property
    def by_batch(self) -> bool:
        """Whether model calls are to be made by `batched`, and not at once."""

    async def batched(self, request: ModelRequest, digest: str, bound: Bound) -> ModelAnswer:
        """Have a call made in a batch, and return the answer that is recorded; meanwhile the step may be let go of."""

    async def record(self, digest: str, answer: ModelAnswer) -> ModelAnswer:
        """Record an answer before it is used; return the one that is stored, which may be another worker's."""

    async def load(self, ref: FileRef) -> bytes:
        """Return the bytes of a file. Raises `FileRefused` when they are not there any more."""

    async def keep(self, made: Sequence[File]) -> None:
        """Store the bytes of files that the step made, before anything names them."""

    def warmed(self, prefix: Prefix) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Wait until a call with this prefix is to be made, within, as it is in the cache or this one puts it there.

        What is given is to be called when its answer has begun.
        """

    def spent(self, error: ModelError) -> None:
        """Take what a call that gave no answer was paid all the same."""


class AgentKind(Protocol):
    """One way to do a step."""

    @property
    def concurrency(self) -> int:
        """How many steps one process does at once, unless the flow says."""

    @property
    def may_ask(self) -> bool:
        """Whether it may ask for anything while it does a step (`StepTask.asks`)."""

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """Return the fan-outs right before a step whose branches it is to be given each with its place."""

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Do a step. Raises `Exception`s only, and `CancelledError` when its own task was cancelled.

        `BadValue`, `MissingValue`, `BadOutput` and `Fail` will fail again; `TimeoutError` says that `timeout_s` ran
        out.
        """
