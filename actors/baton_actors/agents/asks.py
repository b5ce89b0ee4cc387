"""What a step may ask for while it is done: other agents, whole flows, people, time and events. Knows no bus."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from msgspec import Raw

from baton_actors.agents.clock import Clock
from baton_actors.errors import ActorError
from baton_schemas.wire.messages import NO_DEFAULT, Note, Question
from baton_schemas.wire.outcomes import Error

together: ContextVar[object | None] = ContextVar("together", default=None)
"""Of what is asked for in one task: what it shares with others of which a handler needs every answer, or None."""


@contextlib.contextmanager
def all_needed() -> Iterator[None]:
    """What tasks ask for that are made in this context is needed to the last answer. They must run no code of users."""
    before = together.set(object())
    try:
        yield
    finally:
        together.reset(before)


class AskFailed(ActorError):
    """What was asked for failed. A handler may catch it and go on; one that does not fails with it, for good."""

    def __init__(self, who: str, error: Error) -> None:
        """`who` was asked; `error` is what its step failed with (`type`, `message`, `attempts`)."""
        self.who, self.error = who, error
        super().__init__(f"{who} failed with {error.type}: {error.message}")


class NestedFailed(AskFailed):
    """The run that a step is did not end well: the step's error is what became of the run."""


class AskRefused(ActorError):
    """What is asked for cannot be: an agent that is none of `workers`, arguments that do not fit, too much of it."""


class Asks(Protocol):
    """How a step asks. What was asked for before is found again by what it is, whatever happened in between."""

    def told(self, clock: Clock, *, in_thread: bool = False) -> None:
        """Take the clock of the step, which stands still while it waits, and whether a thread does the waiting."""

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Ask an agent of the flow, one of the `workers` of the agent that asks; return its output as JSON.

        `deadline_s` counts from when it is asked first. Raises `AskFailed`, `AskRefused`.
        """

    async def run(self, flow: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Have a flow run, and return its output as JSON.

        `flow` is one of the `workers` that is a flow, or the name of that; `""` for the flow that the agent itself is.
        After `deadline_s` seconds the run ends as expired. Raises `AskFailed`, `AskRefused`.
        """

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds after it was called first. Raises `AskRefused`."""

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        """Ask whoever has a role, and return the answer as JSON, which fits the question.

        Without an answer in `deadline_s` seconds from when it was asked first it is `default`, or `AskFailed`. Raises
        `AskFailed`, `AskRefused`.
        """

    async def event(self, name: str, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT) -> Raw:
        """Wait for an event from outside, and return what it brought, as JSON. Raises as `person`."""

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Return what `make` gave when it was first called under this name, as JSON. Raises what `make` raises."""

    def busy(self) -> AbstractContextManager[None]:
        """Do not park the step while the context is open: what is under way in it would be done again."""

    def knows(self, notes: Sequence[Note]) -> None:
        """Take the notes on the step as they are now."""

    def close(self) -> None:
        """The step is done with: whoever still waits is let go."""

    async def note_unasked(self) -> None:
        """The step is done: note what it asked before, and not this time."""


class NoAsks:
    """Those of a step that no worker does."""

    def told(self, clock: Clock, *, in_thread: bool = False) -> None:
        """It never waits."""

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Refuse."""
        raise _NO_WORKER

    async def run(self, flow: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Refuse."""
        raise _NO_WORKER

    async def sleep(self, seconds: float) -> None:
        """Refuse."""
        raise _NO_WORKER

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        """Refuse."""
        raise _NO_WORKER

    async def event(self, name: str, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT) -> Raw:
        """Refuse."""
        raise _NO_WORKER

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Refuse."""
        raise _NO_WORKER

    def busy(self) -> AbstractContextManager[None]:
        """It is never parked."""
        return contextlib.nullcontext()

    def knows(self, notes: Sequence[Note]) -> None:
        """Nothing was recorded."""

    def close(self) -> None:
        """Nobody waits."""

    async def note_unasked(self) -> None:
        """Nothing was asked."""


_NO_WORKER = AskRefused(
    "nobody does this step: a Context that a worker gives can ask. In a test of a handler, run it in a flow with "
    "Baton.local(), or give it a stand-in with the methods that it calls."
)
NO_ASKS = NoAsks()
