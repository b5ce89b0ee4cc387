"""Names that may stand in subjects, and run ids."""

from __future__ import annotations

import hashlib
import os
import re
import time

from baton_schemas.errors import BadToken

TOKEN_MAX = 64
"""Characters of a token."""
TOKEN = re.compile(rf"[A-Za-z0-9_-]{{1,{TOKEN_MAX}}}\Z")

START = "start"
"""Last token of a handoff that nobody handed on: the first steps of a run."""
JOIN = "join"
"""Last token of the handoff that closes a join."""
LIST = "list"
"""End of the token of the step that puts out the list of what the branches of a last fan-out did."""
DEADLINE = "deadline"
"""Source of the reply that a broker timer sends to a join."""
END = "end"
"""Last token of a result, and the step of the timer of a run's deadline."""

STOPPED = "end--stopped"
"""The step of the timer that ends a run for a client which may not get to the end of doing so itself."""

REJECTED = "rejected"
"""In place of the step in the subjects of notes about rejected messages, whose step may be nonsense."""

TIMER, FLOW, PERSON, EVENT = "-timer", "-flow", "-person", "-event"
"""In place of an actor in the handoff of what no worker does. No actor is called so: their names begin otherwise."""
BATCH = "-batch"
"""What a step asks for whose model is asked in a batch: the name of that child, and the beginning of who takes it."""
ASKED_BESIDES = (TIMER, FLOW, PERSON, EVENT)

MORE = "-budget"
"""In place of a role in the subject of a word that allows a run to spend more."""

WHOLE_RUN = "-"
"""In place of a step in the subject of a word that is no answer to a question: an event that the run may wait for."""

CHILD_MARK = "--k"
"""In the ids of runs that steps of other runs ask for."""

RESERVED = frozenset({START, JOIN, DEADLINE, END, REJECTED, "input", "errors", "item", "index"})
"""Names that no step and no input field may have: prompts and subjects use them for something else."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]


def check_token(what: str, value: str) -> str:
    """Return `value`, or raise `BadToken` when it could not stand in a subject."""
    if not TOKEN.match(value):
        raise BadToken(what, value)
    return value


def may_stand_in_subject(token: str) -> bool:
    """Say whether this may be one of ours in a subject: that of a child is longer than a name may be."""
    return bool(token) and all(TOKEN.match(token[at : at + TOKEN_MAX]) for at in range(0, len(token), TOKEN_MAX))


def sortable_id(now_s: float | None = None) -> str:
    """Make an id that sorts by time: a lower-case ULID (48 bits of milliseconds, 80 random bits).

    Source: https://github.com/ulid/spec
    """
    ms = time.time_ns() // 1_000_000 if now_s is None else int(now_s * 1000)
    number = (ms << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def short_hash(*parts: str) -> str:
    """Return 100 bits of a SHA-256 of these texts as 20 characters: they name what was asked or recorded."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    number = int.from_bytes(digest[:13], "big") >> 4
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(90, -1, -10)])


def child_run(run: str, key: str) -> str:
    """Return the id of a run that a step of another asks for: it sorts beside that one; `--k` says what it is."""
    return f"{run[:40].rstrip('-')}{CHILD_MARK}{key}"


def retry_run(run: str) -> str:
    """Return the id of the run that goes on from one that broke: it follows from that one's, so that asking for it
    twice, or by two people, starts one."""
    return f"retry-{short_hash(run)}"


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


def gatherer_of(actor: str) -> str:
    """Return who gathers the model calls of an actor into batches, in place of an actor in their handoffs."""
    return f"{BATCH}-{actor}"


def sender_of(actor: str) -> str:
    """Return who sends the batches that were gathered for an actor, in place of an actor in their subjects."""
    return f"-batches-{actor}"
