"""What a step may ask for while it is done: other agents, whole flows, people, time and events. Knows no bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw

from baton_actors.errors import ActorError
from baton_schemas.wire.outcomes import Error


class AskFailed(ActorError):
    """What was asked for failed. A handler may catch it and go on; one that does not fails with it, for good."""

    def __init__(self, who: str, error: Error) -> None:
        """`who` was asked; `error` is what its step failed with (`type`, `message`, `attempts`)."""
        self.who, self.error = who, error
        super().__init__(f"{who} failed with {error.type}: {error.message}")


class AskRefused(ActorError):
    """What is asked for cannot be: an agent that is none of `workers`, arguments that do not fit, too many, too deep."""


class Asks(Protocol):
    """How a step asks. What was asked for before is found again by what it is, whatever happened in between."""

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Ask an agent of the flow, one of the `workers` of the agent that asks; return its output as JSON.

        `deadline_s` counts from when it is asked first. Raises `AskFailed`, `AskRefused`.
        """

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Return what `make` gave when it was first called under this name, as JSON. Raises what `make` raises."""
