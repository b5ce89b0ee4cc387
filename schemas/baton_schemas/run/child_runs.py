"""Runs that steps of other runs ask for, as pure functions: what each is called, and what its end answers.

The handoff of the child step says which run it is; the first handoff of the run says which step asked for it. Its id
follows from the step's, so that whoever asks again starts no second one.
"""

from __future__ import annotations

from msgspec.structs import replace

from baton_schemas.wire.messages import ASKING, FIRST, Answer, Asked, Handoff, Parent, Result, Started
from baton_schemas.wire.names import CHILD_MARK, TOKEN, child_run, short_hash
from baton_schemas.wire.outcomes import NULL, Done, Error, Failed, Outcome, Usage, Work
from baton_schemas.wire.values import clean_text

from .asking import answer_from
from .refs import key_of_child
from .state import RunState

_TYPES = {"failed": "RunFailed", "cancelled": "RunCancelled", "expired": "RunExpired"}
_MESSAGE_MAX = 2_000
"""Characters of an error that tells how a run ended: it travels with the run that asked."""


def run_of_child(run: str, child: str) -> str:
    """Return the id of the run that a child step is, which a step of `run` asked for."""
    return child_run(run, short_hash(run, child))


def runs_asked(state: RunState) -> dict[str, list[str]]:
    """Return the runs that a run asked for, by the step (or branch of one) that did, in the order of the log."""
    found: dict[str, list[str]] = {}
    for step in state.steps.values():
        if step.asked == "flow" and not step.reused:  # else the run that this one goes on from asked for it
            found.setdefault(step.source, []).append(run_of_child(state.run, step.name))
    return found


def may_be_child(run: str) -> bool:
    """Say whether a run of this id may be one that a step asked for; a stranger may have named another so."""
    return CHILD_MARK in run


def version_in(run: str) -> int:
    """Return the least version of the wire for what workers take in a run: handoffs and replies.

    Whoever plays a child run to its end has to tell who asked for it, which the first release does not know: it would
    do so with a flow that it knows from runs of their own, and give back only the handoff with which the run begins.
    """
    return ASKING if may_be_child(run) else FIRST


def has_to_be_followed(result: Result) -> bool:
    """Say whether anything beyond a run may follow from its end: an answer, or the end of what it asked for."""
    return not result.purged and (result.children or may_be_child(result.run))


def parent_in(child: Handoff, actor: str, start_seq: int) -> Parent:
    """Return who asks for the run that a child step is: the actor's step, in a run that begins at this sequence."""
    assert isinstance(child.cause, Asked)
    return Parent(
        run=child.run,
        flow=child.flow,
        digest=child.digest,
        start_seq=start_seq,
        actor=actor,
        step=child.cause.step,
        child=child.step,
    )


def parent_of(first: Handoff) -> Parent | None:
    """Return which step asked for the run that begins with this handoff; None when none did, or cannot have."""
    begins = first.cause.begins if isinstance(first.cause, Started) else None
    parent = begins.parent if begins is not None else None
    if parent is None or run_of_child(parent.run, parent.child) != first.run:
        return None
    names = (parent.run, parent.flow, parent.actor, parent.step, key_of_child(parent.child))
    return parent if all(map(TOKEN.match, names)) else None


def answer_of(parent: Parent, result: Result, state: RunState) -> Answer:
    """Return what the end of a run, which stands so, answers to the step that asked for it.

    What the run took is said with it, and whether it was rehearsed; it is counted by the run itself.
    """
    return answer_from(parent, _outcome_of(parent, result, _work_of(state)))


def _work_of(state: RunState) -> Work:
    """Return what a run took; without a price when some of it has none."""
    return Work(
        usage=state.usage if state.usage != Usage() else None,
        cost_usd=state.cost_usd if not state.unpriced else None,
        rehearsed=state.rehearsed,
    )


def _outcome_of(parent: Parent, result: Result, work: Work) -> Outcome:
    outcome = result.outcome
    if result.status == "done":
        return replace(outcome, work=work) if isinstance(outcome, Done) else Done(output=NULL, work=work)
    cause = result.reason
    if isinstance(outcome, Failed):
        error = outcome.error
        cause = f"step {error.step!r}: {error}" if error.step else str(error)
    said = f"run {result.run} of flow {result.flow!r} {result.status}: {cause or 'no reason was given'}"
    kind = _TYPES.get(result.status, "RunFailed")
    return Failed(error=Error(step=parent.child, type=kind, message=clean_text(said, _MESSAGE_MAX)), work=work)
