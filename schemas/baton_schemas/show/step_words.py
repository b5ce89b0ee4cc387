"""What is said of a step wherever it is shown: who does it, whether its prompt is proved, what came of it. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .attempts import Attempt
from .errors import at
from .lines import seconds
from .step import StepSeen
from .tool_calls import ToolSeen

HASH_SHOWN = 12
"""Characters of a hash that people compare."""
_WHO = {
    None: "nobody that its flow names",
    "agent": "an agent that its flow has not",
    "flow": "a flow",
    "person": "a person",
    "sleep": "the clock",
    "event": "a word from outside",
}


class Said(Struct, frozen=True):
    """Something that is said, and whether it is good, bad, to be minded, or none of these."""

    text: str
    tone: Literal["good", "bad", "mind", ""] = ""


def who_does(seen: StepSeen) -> str:
    """Return of what a step is a branch, or who asked for it, and who does it: `branch 3 of 10 of digest, agent a`."""
    branch = f"branch {seen.index + 1:,} of {seen.count:,} of {seen.of}, " if seen.index is not None else ""
    if seen.kind:
        branch = f"asked by {seen.asked_by or 'nobody that the log names'}, "
    who = f"handler {seen.handler}" if seen.handler else f"agent {seen.agent}" if seen.agent else f"{_WHO[seen.kind]}"
    who = f"person {seen.person}" if seen.person else who
    who += f", a run of flow {seen.runs_flow}" if seen.runs_flow else ""
    model = f", {seen.asked.model}, at most {seen.asked.max_tokens:,} tokens" if seen.asked is not None else ""
    return branch + who + model


def has_prompt(seen: StepSeen) -> bool:
    """Say whether a model does the step, so that there is a prompt."""
    is_model = not (seen.handler or seen.runs_flow or seen.person) and seen.kind in (None, "agent")
    return is_model and bool(seen.values or seen.asked is not None)


def proof_of_prompt(seen: StepSeen) -> Said:
    """Say whether the prompt that is shown is the one that was sent, or why it cannot be shown."""
    if seen.asked is None:
        return Said("cannot be shown: something that it reads is not at hand", "mind")
    if seen.proof:
        return Said(f"as it was sent: its hash is the recorded one, {seen.proof[:HASH_SHOWN]}", "good")
    if seen.recorded:
        other = seen.recorded[0][:HASH_SHOWN]
        return Said(f"not what was sent, whose hash is {other}: by another release, say", "mind")
    if seen.status in ("done", "failed", "dropped"):
        return Said("not proved: no hash is recorded", "mind")
    return Said("no answer is recorded so far")


def said_of(attempt: Attempt) -> str:
    """Return what an attempt came to, and when the next was to follow."""
    again = f"; again after {seconds(attempt.retry_s)}" if attempt.retry_s else ""
    if attempt.error is not None:
        return f"{attempt.error.type}: {attempt.error.message}{at(attempt.error.at)}{again}"
    match attempt.came_to:
        case "died":
            return f"with its worker, {attempt.worker}"
        case "unknown":
            return f"begun by {attempt.worker}, which is at it, or died"
        case _:
            return attempt.reason


def came_of(call: ToolSeen) -> Said:
    """Return what came of a call of a tool, in short."""
    if call.is_open:
        times = f" {call.begun} times" if call.begun > 1 else ""
        return Said(f"begun{times}, and nothing is recorded of it: it may have run", "mind")
    cut = f", cut from {call.cut_bytes:,} bytes" if call.cut_bytes else ""
    if call.settled_by:
        return Said(f"it ran, as one of {call.settled_by} says{cut}", "good")
    if call.rehearsed:
        return Said(f"rehearsed: it was not called{cut}", "good")
    took = f"{seconds(call.elapsed_s)}{cut}"
    return Said(f"failed in {took}", "bad") if call.is_error else Said(took, "good")
