"""Names that may stand in subjects, and run ids."""

from __future__ import annotations

import os
import re
import time

from baton_schemas.errors import BadToken

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")

START = "start"
"""Last token of a handoff that nobody handed on: the first steps of a run."""
JOIN = "join"
"""Last token of the handoff that closes a join."""
DEADLINE = "deadline"
"""Source of the reply that a broker timer sends to a join."""
END = "end"
"""Last token of a result, and the step of the timer of a run's deadline."""

REJECTED = "rejected"
"""In place of the step in the subjects of notes about rejected messages, whose step may be nonsense."""

RESERVED = frozenset({START, JOIN, DEADLINE, END, REJECTED, "input", "errors", "item", "index"})
"""Names that no step and no input field may have: prompts and subjects use them for something else."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def check_token(what: str, value: str) -> str:
    """Return `value`, or raise `BadToken` when it could not stand in a subject."""
    if not TOKEN.match(value):
        raise BadToken(what, value)
    return value


def sortable_id(now_s: float | None = None) -> str:
    """Make an id that sorts by time: a lower-case ULID (48 bits of milliseconds, 80 random bits).

    Source: https://github.com/ulid/spec
    """
    ms = time.time_ns() // 1_000_000 if now_s is None else int(now_s * 1000)
    number = (ms << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def run_of_task(sequence: int) -> str:
    """Return the run id of a task published without one: it follows from the task's stream sequence.

    A sender can work it out from the broker's PubAck, and a redelivered task has the same id.
    """
    return f"task-{sequence:012d}"


def run_of_firing(fired_at_ns: int, sequence: int) -> str:
    """Return the run id of a scheduled task: it follows from when the broker fired it, and as which message.

    A firing that is taken twice has the same id. The time (Unix, in nanoseconds) keeps ids apart when the stream
    of timers is made anew and its sequences begin again.
    """
    return f"due-{fired_at_ns // 1_000_000:013d}-{sequence}"


def actor_name(flow: str, agent: str) -> str:
    """Return what the workers of an agent listen on. Names have no double hyphen, so no two agents share one."""
    return f"{flow}--{agent}"
