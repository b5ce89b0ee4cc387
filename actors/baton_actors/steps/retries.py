"""Whether a failed attempt is tried again, and how long to wait before it. Pure but for the dice."""

from __future__ import annotations

import math
import random

from baton_actors.agents.asks import AskFailed, AskRefused, NestedFailed
from baton_actors.agents.raising import describe
from baton_actors.agents.tracebacks import place_of, traceback_of
from baton_actors.errors import (
    BadHandler,
    BadOutput,
    BadValue,
    Fail,
    FileRefused,
    MissingValue,
    OverBudget,
    Retry,
    UnpricedModel,
)
from baton_actors.models import ModelError
from baton_bus.errors import FileGone
from baton_schemas.errors import BadFile
from baton_schemas.flow.flow import Agent
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.wire.money import OVER_BUDGET, UNPRICED
from baton_schemas.wire.outcomes import Error

WAIT_MAX_S = DEADLINE_MAX_S
"""A year, as for deadlines: what asks for more has mistaken the unit, and timers end with the year 9999."""
_FINAL = (
    *(AskFailed, AskRefused, Fail, BadOutput, BadValue, BadHandler, MissingValue, FileRefused, BadFile, FileGone),
    *(OverBudget, UnpricedModel),
)


def is_final(error: BaseException) -> bool:
    """Say whether trying again would be of no use."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_final, error.exceptions))
    return isinstance(error, _FINAL) or (isinstance(error, ModelError) and not error.retryable)


def delay_s(agent: Agent, attempt: int, error: BaseException, dice: random.Random) -> float:
    """Return the wait before the next attempt: exponential, half of it jitter, and no less than a provider asked for.

    What a handler asked for is what it gets.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("equal jitter").
    """
    backoff = min(agent.retry_max_s, agent.retry_base_s * 2.0 ** min(attempt - 1, 30))
    wait = backoff / 2 + dice.uniform(0, backoff / 2)
    if isinstance(error, Retry) and error.after_s is not None and not math.isnan(error.after_s):
        wait = max(error.after_s, 0.0)
    elif isinstance(error, ModelError) and error.retry_after_s is not None:
        wait = max(wait, error.retry_after_s)
    return min(wait, WAIT_MAX_S)


def as_error(step: str, attempt: int, error: BaseException) -> Error:
    """Return an exception as it is recorded: bounded, valid texts, with the lines of the user's code it came from."""
    kind, message = describe(error)
    request_id = ""
    if isinstance(error, ModelError):
        kind, request_id = error.type, error.request_id
    elif isinstance(error, NestedFailed):
        kind, message = error.error.type, error.error.message
    elif isinstance(error, OverBudget):
        kind = OVER_BUDGET
    elif isinstance(error, UnpricedModel):
        kind = UNPRICED
    elif isinstance(error, TimeoutError):
        kind = "Timeout"
    return Error(
        step=step,
        type=kind,
        message=message,
        attempts=attempt,
        request_id=request_id,
        at=place_of(error),
        traceback=traceback_of(error),
    )
