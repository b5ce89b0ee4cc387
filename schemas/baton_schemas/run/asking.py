"""Asking, as pure functions: what a child step is called, its handoff, the answer that decides it, and what that wakes.

A child is named by what is asked, not by when: a step that is done again finds what it asked before, in whatever order
it comes to it (DESIGN §9). Its one outcome is an answer, on a subject that belongs to the step which asked.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import ASKING, Answer, Asked, AskedKind, Handoff, Parent, Parked, Wakes, Woken
from baton_schemas.wire.names import BATCH, EVENT, FLOW, PERSON, TIMER, gatherer_of, short_hash
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, State

from .refs import StepRef, asked_name

TIME_IS_UP = "DeadlinePassed"
"""The type of the error with which a child fails that nobody answered in time."""
WITHDRAWN = "Withdrawn"
"""The type of the error with which a question fails that is not to be answered any more."""
A_BATCH = "a batch"
"""What a step waits for whose model is asked in one."""
_NOBODY: Mapping[AskedKind, str] = {"sleep": TIMER, "flow": FLOW, "person": PERSON, "event": EVENT}
_encoder = msgspec.json.Encoder(order="sorted")


def child_of(asker: str, kind: AskedKind, name: str, asked: object, number: int) -> str:
    """Return the token of the `number`-th child of a step that is asked just this.

    `name` is the agent's, the flow's, the role's or the event's; `asked` is whatever else makes it what it is.
    """
    return StepRef(name, key=short_hash(asker, kind, name, _encoder.encode(asked).decode(), str(number))).token


def who_is_asked(plan: Plan, child: Handoff) -> str:
    """Return the actor in the subject of a child's handoff; a word that no actor is called by where no worker does it.

    Raises KeyError when the flow has no such agent.
    """
    assert isinstance(child.cause, Asked)
    if child.cause.kind == "batch":
        return gatherer_of(plan.actor(child.cause.step))
    return _NOBODY.get(child.cause.kind) or plan.actor(child.step)


def child_handoff(asker: Handoff, start_seq: int, child: str, cause: Asked, state: State) -> Handoff:
    """Return the handoff of a child of the step that `asker` is the handoff of."""
    return Handoff(
        v=ASKING,
        flow=asker.flow,
        digest=asker.digest,
        run=asker.run,
        start_seq=start_seq,
        step=child,
        cause=cause,
        state=state,
    )


def answer_to(child: Handoff, outcome: Outcome, start_seq: int) -> Answer:
    """Return what decides a child step: the answer to the step that asked."""
    assert isinstance(child.cause, Asked)
    return Answer(
        flow=child.flow,
        digest=child.digest,
        run=child.run,
        start_seq=start_seq,
        step=child.cause.step,
        child=child.step,
        outcome=outcome,
    )


def answer_from(parent: Parent, outcome: Outcome) -> Answer:
    """Return what the result of a child run answers to the step that asked for the run."""
    return Answer(
        flow=parent.flow,
        digest=parent.digest,
        run=parent.run,
        start_seq=parent.start_seq,
        step=parent.step,
        child=parent.child,
        outcome=outcome,
    )


def by_itself(child: Handoff, start_seq: int) -> Answer:
    """Return the answer of a child that nobody answered in its time: its default, or an error."""
    assert isinstance(child.cause, Asked)
    outcome: Outcome
    if child.cause.kind == "sleep":
        outcome = Done()
    elif bytes(child.cause.default):
        outcome = Done(output=child.cause.default)
    else:
        name = asked_name(child.step)
        outcome = Failed(error=Error(step=child.step, type=TIME_IS_UP, message=f"no answer of {name} in its time"))
    return answer_to(child, outcome, start_seq)


def answers_parked(answer: Answer, parked: Parked, parked_seq: int) -> Answer:
    """Return an answer that comes when its step has been parked: it wakes it, as any other of that parking would."""
    return msgspec.structs.replace(answer, wakes=_wakes(parked, parked.first or parked_seq))


def _wakes(parked: Parked, first_seq: int) -> Wakes:
    return Wakes(parked=first_seq, seq=parked.seq, number=parked.number, strays=parked.strays)


def woken_by(answer: Answer) -> Handoff | None:
    """Return the handoff that brings back the step which an answer wakes; None when it wakes none."""
    return _woken(answer, answer.wakes) if answer.wakes is not None else None


def woken_at_once(parked: Parked, first_seq: int) -> Handoff:
    """Return the same handoff for a step that something came for while it was being parked.

    `first_seq` is where the first `Parked` of its parking is.
    """
    return _woken(parked, _wakes(parked, first_seq))


def _woken(of: Answer | Parked, wakes: Wakes) -> Handoff:
    return Handoff(
        v=ASKING,
        flow=of.flow,
        digest=of.digest,
        run=of.run,
        start_seq=of.start_seq,
        step=of.step,
        cause=Woken(
            seq=wakes.seq,
            number=wakes.number,
            why=waits_for(of.child),
            parked=wakes.parked,
            strays=wakes.strays,
        ),
    )


def waits_for(child: str) -> str:
    """Return what a step waits for that is parked until a child has answered."""
    if asked_name(child) == BATCH:
        return A_BATCH
    return f"an answer of {asked_name(child)}"
