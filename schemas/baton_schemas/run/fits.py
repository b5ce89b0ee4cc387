"""Whether a message is one that the lifecycle could have written: anybody may publish, and some of it is odd."""

from __future__ import annotations

from collections.abc import Callable

from baton_schemas.errors import BadContent
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.wire.messages import After, Asked, Cause, Handoff, Joined, Reply, Started, Woken
from baton_schemas.wire.names import DEADLINE, TOKEN
from baton_schemas.wire.values import check_json

from .leaving_out import is_left_out
from .refs import INDEX_MAX, StepRef, base_of, ended_by, indices, key_of_child, parse, replied, whole
from .rounds import may_follow

_SEQ_MAX = 2**63 - 1
"""No stream gets there, and no server reads a larger number."""


def misfit(plan: Plan, message: Handoff | Reply) -> str:
    """Return what is wrong with a message of a run of this flow; empty when nothing is."""
    if not 0 <= message.start_seq <= _SEQ_MAX:
        return f"it says that its run began at sequence {message.start_seq}, which cannot be"
    if isinstance(message, Handoff):
        return _misfit_of_handoff(plan, message) or _misfit_of_cause(plan, message, message.cause)
    return _misfit_of_reply(plan, message)


def unreadable(message: Handoff | Reply, data: bytes) -> str:
    """Return what nobody could read in a message that begins a run, whose input came from outside; empty when nothing.

    What follows is made of what was read.
    """
    cause = message.cause if isinstance(message, Handoff) else None
    if not isinstance(cause, Started) or cause.begins is None:
        return ""
    try:
        check_json(data, "handoff")
    except BadContent as error:
        return str(error)
    return ""


def misplaced(message: Handoff | Reply, subject: str, subject_of: Callable[[], str]) -> str:
    """Return what is wrong with where a message stands; empty when nothing is."""
    if not TOKEN.match(message.run):
        return f"{message.run!r} is no id of a run"
    if subject == subject_of():
        return ""
    what = f"a handoff of step {message.step!r}" if isinstance(message, Handoff) else f"a reply of {replied(message)!r}"
    return f"the body is {what} of run {message.run!r}"


def _misfit_of_handoff(plan: Plan, handoff: Handoff) -> str:
    ref, branch = parse(handoff.step), handoff.branch
    base = ref.name
    if isinstance(handoff.cause, Asked) or ref.key:
        return _misfit_of_child(plan, handoff)
    if base not in plan.steps:
        return f"flow {plan.flow.name!r} has no step {handoff.step!r}"
    if isinstance(handoff.cause, Woken):
        return ""
    if (branch is None) == bool(plan.steps[base].each):
        return f"it says {branch} of step {base!r}, which cannot be"
    if (wrong := _misfit_of_round(plan, ref)) or (ref.round > 1 and not _comes_after(handoff)):
        return wrong or f"nothing is before {handoff.step!r}, which begins no run"
    if branch is not None and ref.index != branch.index:
        return f"it says {branch.index} is the index of {handoff.step!r}"
    if branch is not None and not 0 <= branch.index < branch.count <= INDEX_MAX:
        return f"it is branch {branch.index} of {branch.count}, which cannot be"
    return ""


def _misfit_of_child(plan: Plan, handoff: Handoff) -> str:
    name, cause = base_of(handoff), handoff.cause
    if name not in plan.flow.agents:
        return f"flow {plan.flow.name!r} has no agent {name!r}"
    if not key_of_child(handoff.step):
        return f"it is asked for, and {handoff.step!r} is no child"
    match cause:
        case Asked(kind="agent", step=step) if knows_step(plan, step):
            return ""
        case Woken():
            return ""
        case Asked(kind="agent", step=step):
            return f"flow {plan.flow.name!r} has no step {step!r}"
        case _:
            return f"{handoff.step!r} is a child that nobody asked for"


def knows_step(plan: Plan, step: str) -> bool:
    """Say whether a step, a branch or a child of this name can be in a run of this flow."""
    ref = parse(step)
    return ref.name in (plan.flow.agents if ref.key else plan.steps)


def _misfit_of_round(plan: Plan, ref: StepRef) -> str:
    if ref.round <= 1 or ref.round <= (most := plan.rounds_max(ref.name)):
        return ""
    return f"it is round {ref.round} of step {ref.name!r}, which has {most}"


def _comes_after(handoff: Handoff) -> bool:
    return isinstance(handoff.cause, After | Joined | Woken)


def _misfit_of_cause(plan: Plan, handoff: Handoff, cause: Cause) -> str:
    base = base_of(handoff)
    match cause:
        case After(step=step) if whole(handoff.step) not in may_follow(plan, step):
            return f"step {handoff.step!r} does not come after {step!r}"
        case Joined():
            return _misfit_of_closing(plan, base, cause)
        case Started(begins=begins, joined=joined):
            if begins is not None and not 0 <= begins.deadline_s <= DEADLINE_MAX_S:
                return f"a deadline of {begins.deadline_s:g} s; at most {DEADLINE_MAX_S:.0f} (a year)"
            return "" if joined is None else _misfit_of_closing(plan, base, joined)
        case _:
            return ""


def _misfit_of_closing(plan: Plan, base: str, closing: Joined) -> str:
    if base not in plan.joins:
        return f"step {base!r} of flow {plan.flow.name!r} joins nothing"
    for source in closing.left_out:
        if source not in plan.sources[base]:
            return f"step {base!r} waits for no branch {source!r}"
    for source, text in closing.branches.items():
        if source not in plan.sources[base]:
            return f"step {base!r} waits for no branch {source!r}"
        try:
            last = max(indices(text), default=0)
        except ValueError as error:
            return f"the branches of {source!r}: {error}"
        if last >= max(closing.counts.get(source, 1), 1):
            return f"it names branch {last} of {closing.counts.get(source, 1)} of {source!r}"
    return ""


def _misfit_of_reply(plan: Plan, reply: Reply) -> str:
    join, source = parse(reply.step), reply.source
    step = join.name
    if step not in plan.joins:
        return f"step {reply.step!r} of flow {plan.flow.name!r} joins nothing"
    if wrong := _misfit_of_round(plan, join):
        return wrong
    if source == DEADLINE:
        return ""
    if source not in plan.sources[step]:
        return f"step {step!r} waits for no branch {replied(reply)!r}"
    if reply.each != bool(plan.steps[source].each):
        return f"step {source!r} has no branch {replied(reply)!r}"
    token = ended_by(reply)
    if wrong := _misfit_of_round(plan, parse(token)):
        return wrong
    if reply.step not in may_follow(plan, token):
        return f"step {reply.step!r} does not wait for {token!r}"
    if not 0 <= reply.index < max(reply.count, 1) <= INDEX_MAX:
        return f"it is branch {reply.index} of {reply.count}, which cannot be"
    if is_left_out(reply.outcome) and (source not in plan.skippable or (reply.each and reply.count)):
        return f"it says that {replied(reply)!r} was left out, which cannot be"
    return ""
