"""Whether a failed attempt is tried again, and how long to wait before it. Pure but for the dice."""

from __future__ import annotations

import random

from baton_actors.errors import BadHandler, BadOutput, BadValue, Fail, Retry
from baton_actors.models import ModelError
from baton_schemas.flow.flow import Agent
from baton_schemas.wire.messages import Error

_FINAL = (Fail, BadOutput, BadValue, BadHandler)
_MESSAGE_MAX = 2_000
"""Characters of an error's message that are kept: errors travel with the run, and some quote whole documents."""


def is_final(error: BaseException) -> bool:
    """Say whether trying again would be of no use."""
    return isinstance(error, _FINAL) or (isinstance(error, ModelError) and not error.retryable)


def delay_s(agent: Agent, attempt: int, error: BaseException, dice: random.Random) -> float:
    """Return the wait before the next attempt: exponential, half of it jitter, and no less than was asked for.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("equal jitter").
    """
    backoff = min(agent.retry_max_s, agent.retry_base_s * 2.0 ** min(attempt - 1, 30))
    wait = backoff / 2 + dice.uniform(0, backoff / 2)
    if isinstance(error, Retry):
        return max(wait, error.after_s)
    if isinstance(error, ModelError) and error.retry_after_s is not None:
        return max(wait, error.retry_after_s)
    return wait


def as_error(step: str, attempt: int, error: BaseException) -> Error:
    """Return an exception as it is recorded."""
    if isinstance(error, ModelError):
        kind, request_id = error.type, error.request_id
    elif isinstance(error, TimeoutError):
        kind, request_id = "Timeout", ""
    else:
        kind, request_id = type(error).__name__, ""
    message = str(error) or kind
    if len(message) > _MESSAGE_MAX:
        message = message[:_MESSAGE_MAX] + "…"
    return Error(step=step, type=kind, message=message, attempts=attempt, request_id=request_id)
