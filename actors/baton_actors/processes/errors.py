"""What a supervisor says of workers that cannot go on."""

from __future__ import annotations

from collections.abc import Sequence

from baton_actors.errors import ActorError
from baton_actors.processes.deaths import told


class WorkerCannotStart(ActorError):
    """A worker said why it cannot take work."""

    def __init__(self, actor: str, reason: str) -> None:
        """`reason` is the worker's own error, which says what to do."""
        self.actor, self.reason = actor, reason
        super().__init__(f"the worker of {actor!r} cannot start: {reason}")


class WorkersKeepDying(ActorError):
    """A worker has died more often than it is worth trying."""

    def __init__(self, actor: str, deaths: int, exit_code: int, reason: str = "") -> None:
        """`exit_code` of the last one, negative for a signal; `reason` is what a worker last said of its start."""
        self.actor, self.deaths, self.exit_code, self.reason = actor, deaths, exit_code, reason
        why = (
            f"It cannot start any more: {reason}"
            if reason
            else "What it wrote to stderr says why; signal 9 without a word is mostly the kernel short of memory."
        )
        super().__init__(
            f"the worker of {actor!r} died {deaths} times, the last time with {told(exit_code)}. {why} "
            "What it held is kept in the log."
        )


class WorkersNotReady(ActorError):
    """Not all workers took work in time."""

    def __init__(self, actors: Sequence[str], waited_s: float) -> None:
        """`actors` are those that are missing."""
        self.actors, self.waited_s = tuple(actors), waited_s
        super().__init__(
            f"not ready after {waited_s:g} s: {', '.join(actors)}. "
            "Look for a handler module that is slow to import, or a machine short of memory."
        )
