"""Errors of the actors: what a handler may raise to say how it failed, and what can be wrong with it."""

from __future__ import annotations


class ActorError(Exception):
    """Base of every error that `baton_actors` raises."""


class Retry(ActorError):
    """A handler raises it to be tried again, no sooner than after `after_s` seconds."""

    def __init__(self, message: str, *, after_s: float = 0.0) -> None:
        """`message` goes into the log's note of the attempt."""
        self.after_s = after_s
        super().__init__(message)


class Fail(ActorError):
    """A handler raises it when trying again would not help: the step fails at once."""


class HandlerNotFound(ActorError):
    """The `handler` of an agent cannot be imported."""

    def __init__(self, agent: str, handler: str, reason: str) -> None:
        """`agent` and `handler` as they are in the flow; `reason` says what was tried."""
        self.agent, self.handler, self.reason = agent, handler, reason
        super().__init__(
            f"agents.{agent}.handler: cannot load {handler!r}: {reason}. "
            "Expected 'module:name' of an importable module, or './file.py:name' relative to the flow file."
        )


class BadHandler(ActorError):
    """A handler's signature does not fit the step that it is to do."""

    def __init__(self, handler: str, reason: str, hint: str = "") -> None:
        """`reason` says what was found and what was expected."""
        self.handler, self.reason, self.hint = handler, reason, hint
        super().__init__(f"handler {handler!r}: {reason}" + (f" {hint}" if hint else ""))


class BadOutput(ActorError):
    """A handler returned what does not fit its own annotation, or what JSON cannot hold."""


class BadValue(ActorError):
    """A value that a handler reads does not fit the type that it asks for."""


class HandlerMissing(ActorError):
    """A run's flow names a handler that this worker was not started with."""

    def __init__(self, agent: str, handler: str) -> None:
        """Of the run's flow."""
        self.agent, self.handler = agent, handler
        super().__init__(
            f"this worker has no handler {handler!r} for agent {agent!r}: the run was submitted with another "
            "version of the flow. Start a worker with that version."
        )
