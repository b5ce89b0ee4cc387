"""What a run keeps that goes on from another under a changed flow, or with its failures done again.

Each step of the new flow, in its order, is kept or done again. It is done again when it is another than it was (see
`changes`), when it failed and that is not to stand, and when any step before it is done again: what it read would be
another. The branches of a fan-out are kept one by one. A failure stands when it ended neither the other run nor would
end this one. Whatever had not ended is simply still to be done.

The records of what is kept are made anew in `remaking.py`.
"""

from __future__ import annotations

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.outcomes import Blob, Done, Failed, State

from .carry import ERRORS
from .changes import is_cut_otherwise, why_changed
from .past import Past
from .rounds import in_round, round_of

FAILED, CUT = "it failed", "another max_tokens"
"""Why some branches of a step are done again, and others kept."""
UNKNOWN = "it is not known what its join closed with"
"""A run that goes on copies the record of a join, and closes it once more: with other branches, it may be."""


class Keeping(Struct, frozen=True):
    """What is kept of a run, and why the rest is not."""

    steps: frozenset[str]
    """Steps and branches whose outcome is taken over."""
    again: dict[str, str]
    """Why a step of the flow is done again, or a part of its branches, in the order of the flow: `another prompt`."""


def keeping(past: Past, plan: Plan, given: State, *, failed: bool = False) -> Keeping:
    """Return what a run of this plan keeps that goes on from another and begins with the input `given`.

    With `failed`, failures that did not end the other run are done again too.
    """
    again: dict[str, str] = {}
    kept: set[str] = set()
    for step, place in places(past, plan):
        before = [source for source in plan.sources[step] if source in again]
        if round_of(place) > 1:  # what the round before came to
            before += [other for other in plan.flow.steps if other in again and _share_a_loop(plan, step, other)]
        why = why_changed(past, plan, given, step) or (f"after {before[0]}" if before else "")
        if why := why or (UNKNOWN if _is_unknown(past, plan, step, place) else ""):
            again.setdefault(step, why)
            continue
        ends = not plan.successors[step] and plan.step(step).again is None
        for token in () if ends else past.tokens(place):
            outcome = past.outcomes[token]
            ended_the_run = past.led_to(token) == "fail"
            if ended_the_run or (isinstance(outcome, Failed) and (failed or _ends_a_run(past, plan, step))):
                again[step] = FAILED
            elif is_cut_otherwise(past, plan, step, outcome):
                again.setdefault(step, CUT)
            else:
                kept.add(token)
    return Keeping(frozenset(kept), {step: again[step] for step in plan.steps if step in again})


def places(past: Past, plan: Plan) -> list[tuple[str, str]]:
    """Return the steps in the order in which they are done, each with its token; those of a loop round by round."""
    found: list[tuple[str, str]] = []
    for step in plan.order:
        last = plan.loop_of.get(step)
        if last is None:
            found.append((step, step))
        elif step == plan.first_of_loop(last):  # the others of the loop come after it
            loop = [other for other in plan.order if other in plan.loops[last]]
            rounds = max(len(past.rounds(other)) for other in loop)
            found += [(other, in_round(other, number)) for number in range(1, rounds + 1) for other in loop]
    return found


def _share_a_loop(plan: Plan, step: str, other: str) -> bool:
    return plan.loop_of.get(step) == plan.loop_of.get(other, "")


def texts_needed(past: Past, plan: Plan, kept: Keeping) -> list[Blob]:
    """Return the values beside the log that are needed to make the records of joins anew, each once."""
    found: dict[Blob, None] = {}
    for join in (token for token in kept.steps if plan.name_of(token) in plan.joins):
        step = plan.name_of(join)
        for source in plan.record_needs(step) & frozenset(plan.sources[step]):
            outcomes = [past.outcomes[token] for place in past.rounds(source) for token in past.tokens(place)]
            found.update((each.blob, None) for each in outcomes if isinstance(each, Done) and each.blob is not None)
        if join in past.deadlines and ERRORS in past.deadlines[join].blobs:
            found[past.deadlines[join].blobs[ERRORS]] = None
    return list(found)


def needed_of(plan: Plan, step: str) -> frozenset[str]:
    """Return the keys of the state that the record of a step carries, besides what the step itself came to."""
    return plan.record_needs(step) - {step}


def _is_unknown(past: Past, plan: Plan, step: str, place: str) -> bool:
    """Say whether a merger's state is to be carried on of which the log does not say what it was."""
    if place not in past.told:
        return False
    return bool(needed_of(plan, step) - needed_of(past.plan, step) - plan.flow.input.keys())


def _ends_a_run(past: Past, plan: Plan, step: str) -> bool:
    """Say whether a failure of this step ended the run, or would end the one that goes on."""
    return any(
        not version.successors[step] or any(version.ends_run(step, name) for name in version.successors[step])
        for version in (past.plan, plan)
    )
