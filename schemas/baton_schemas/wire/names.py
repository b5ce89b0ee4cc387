"""Names that may stand in subjects, run ids, and how the branches of a step are called."""

from __future__ import annotations

import os
import re
import time

from baton_schemas.errors import BadToken

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
BRANCH = re.compile(r"(.+)-(\d+)\Z")

START = "start"
"""Source of a handoff that nobody handed on: the first steps of a run."""
JOIN = "join"
"""Source of the handoff that closes a join."""
DEADLINE = "deadline"
"""Branch name of the reply that a broker timer sends to a join."""
END = "end"
"""Last token of a result, and the step of the timer of a run's deadline."""

RESERVED = frozenset({START, JOIN, DEADLINE, END, "input", "errors", "item", "index"})
"""Names that no step and no input field may have: prompts and subjects use them for something else."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


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
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


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


def branch_name(step: str, index: int) -> str:
    """Return the name of one branch of a fan-out, `{step}-{index}`; the index starts at 0."""
    return f"{step}-{index}"


def step_of(branch: str) -> str:
    """Return the step that a branch belongs to; a step that is no branch belongs to itself.

    It is unambiguous because a step's own name may not end in a hyphen and digits.
    """
    match = BRANCH.match(branch)
    return match[1] if match else branch
