"""The records of what a run keeps that goes on from another under a changed flow, or with its failures done again.

They are made anew by the lifecycle, as the new flow has them: to whom they go, and what they carry. They rest on the
log of the other run and on the flow alone, so that whoever makes them makes the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Branch, Handoff, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Blob, Done, Error, Skipped, State, Value

from .carry import ERRORS, select, state_of_join, with_outcome
from .handoffs import handoff_to
from .keeping import CUT, FAILED, Keeping, keeping, needed_of, places
from .lifecycle import Action, Begun, Create, Ended, Recorded, View, decide, next_branch
from .past import Past
from .refs import ended_by, named, parse, replied, whole
from .rounds import after, in_round, next_first, next_state, round_of

Texts = Mapping[Blob, Raw]
"""Values that are kept beside the log, as far as they were read."""
_UNKNOWN = Branch(index=0, count=0)


def remade(
    past: Past, plan: Plan, first: Handoff, start_seq: int, *, failed: bool = False, texts: Texts | None = None
) -> list[Create]:
    """Return the messages that tell the run which `first` begins (stored at `start_seq`) what it keeps.

    As `fork.copies`: in the order in which to write them. A join that rests on values which are not in `texts` is done
    again.
    """
    kept = keeping(past, plan, first.state, failed=failed)
    return in_order(plan, _Remaking(past, plan, kept, first, start_seq, texts or {}).all())


def in_order(plan: Plan, creates: Iterable[Create]) -> list[Create]:
    """Return messages that are written before their run begins in their order: what goes to the last steps first.

    So the record of a step comes before whatever could start it, and what a join had before whatever could bring it
    more. Outcome records start nothing, and are read by steps after theirs (for the list that was fanned out over):
    they come before all else.
    """
    found_at = {step: place for place, step in enumerate(reversed(plan.order))}

    def place(create: Create) -> tuple[bool, int, int, int]:
        # A loop has the place of its last step, and its last round comes first.
        message, step = create.message, plan.name_of(create.message.step)
        loop = found_at[plan.loop_of.get(step, step)]
        return not isinstance(message, OutcomeRecord), loop, -round_of(message.step), found_at[step]

    return sorted(creates, key=place)


class _Remaking:
    """Walks the new flow from its beginning, with what each step sees, as far as that is known."""

    def __init__(self, past: Past, plan: Plan, kept: Keeping, first: Handoff, start_seq: int, texts: Texts) -> None:
        self._past, self._plan, self._kept, self._texts = past, plan, kept, texts
        self._first, self._start_seq = first, start_seq
        self._sees: dict[str, State] = {}
        self._replies: dict[str, dict[str, Reply]] = {}
        """By join: what its branches say, by their tokens."""

    def all(self) -> list[Create]:
        """Return all messages, in no order that matters."""
        begun = decide(self._view(self._plan.first), Begun(self._first, self._start_seq, 0.0))
        # The handoffs among them are written by whoever begins the run, as copies too.
        found = [create for create in self._known(_creates(begun)) if isinstance(create.message, Reply)]
        for step, place in places(self._past, self._plan):
            state = self._state(step, place)
            if state is not None:
                self._sees[place] = state
                for token in self._past.tokens(place):
                    if token in self._kept.steps:
                        found += self._record(step, place, token, state)
        return found

    def _record(self, step: str, place: str, token: str, state: State) -> list[Create]:
        """Return the record of how a step, or a branch, ended, and what follows from it; `place` is its whole token."""
        plan, index = self._plan, parse(token).index if token != place else None
        branch = None if index is None else Branch(index=index, count=self._past.counts[place])
        before = self._before(step, place)
        cause = After(step=before) if before else Started()
        handoff = handoff_to(plan, self._first.run, token, cause, state, self._start_seq)
        handoff = replace(handoff, branch=branch)
        (create,) = decide(View(plan), Ended(handoff, state, self._past.outcomes[token], self._start_seq))
        assert isinstance(create, Create)
        made = [create]
        led, view = self._past.led_to(token), View(plan)
        is_record = isinstance(create.message, OutcomeRecord) and (led is not None or step not in plan.loops)
        if is_record:
            to = (
                [next_first(plan, place)]
                if led == "again"
                else [after(plan, place, name) for name in plan.successors[step]]
            )
            view = replace(self._view(to), again=led == "again")
        index = next_branch(plan, handoff) if self._is_same(step) else None
        if index is not None:
            later = self._past.branches.get(replace(parse(token), index=index).token, _UNKNOWN)
            view = replace(view, item=later.blob or later.item)
        if is_record or index is not None:
            made += _creates(decide(view, Recorded(create.message, handoff)))
        return self._known(made)

    def _known(self, creates: Iterable[Create]) -> list[Create]:
        """Return those of the messages that are sure, as copies: where a list was not known, none of its branches."""
        found: list[Create] = []
        for actor, message in creates:
            match message:
                case Handoff(branch=Branch()) if message.step not in self._past.branches:
                    continue
                case Reply(source=source, count=0) if not self._is_same(source):
                    continue
                case Reply(count=0) if self._past.counts.get(whole(ended_by(message))) != 0:
                    continue
                case Reply():
                    self._replies.setdefault(message.step, {})[replied(message)] = message
                case Result():
                    continue
            found.append(Create(actor, replace(message, copied=True)))
        return found

    def _view(self, steps: Iterable[str]) -> View:
        """Return what is known of the fan-outs among these steps, which have their rounds.

        That are the lists of those that are as they were; of a branch that is not known, nothing.
        """
        lists: dict[str, Sequence[Value]] = {}
        left_out: dict[str, str] = {}
        for place in steps:
            step, ref = self._plan.name_of(place), parse(place)
            if not self._plan.step(step).each or not self._is_same(step):
                continue
            if place in self._past.left_out:
                left_out[step] = self._past.left_out[place]
            elif place in self._past.counts:
                tokens = [replace(ref, index=index).token for index in range(self._past.counts[place])]
                branches = [self._past.branches.get(token, _UNKNOWN) for token in tokens]
                lists[step] = [branch.blob or branch.item for branch in branches]
        return View(self._plan, lists=lists, left_out=left_out)

    def _is_same(self, fan_out: str) -> bool:
        """Say whether a fan-out is over the list that it was over."""
        return self._kept.again.get(fan_out, FAILED) in (FAILED, CUT)

    # ---- what a step sees --------------------------------------------------------------------------

    def _state(self, step: str, place: str) -> State | None:
        """Return what a step sees; None when it is not known, as what comes before it is still to be done.

        `place` is its token.
        """
        plan, before = self._plan, self._before(step, place)
        if round_of(place) > 1 and step == plan.first_of_loop(plan.loop_of[step]):
            state = self._after(before) if self._past.led_to(before) == "again" else None
            return next_state(plan, plan.loop_of[step], state) if state is not None else None
        if not plan.sources[step]:
            return self._first.state
        if step in plan.joins:
            return self._joined(step, place) if place in self._kept.steps else None
        return self._after(before)

    def _before(self, step: str, place: str) -> str:
        """Return the token of what comes right before a step, of a join the first; empty when that is not known."""
        plan = self._plan
        if round_of(place) > 1 and step == plan.first_of_loop(plan.loop_of[step]):
            return in_round(plan.loop_of[step], round_of(place) - 1)
        source = next(iter(plan.sources[step]), "")
        if source in plan.loops:
            return next((token for token in self._past.rounds(source) if self._past.led_to(token) == "on"), "")
        return in_round(source, round_of(place)) if source else ""

    def _after(self, place: str) -> State | None:
        """Return what there is after a step."""
        if place not in self._sees or place not in self._kept.steps:
            return None
        return with_outcome(self._sees[place], self._plan.name_of(place), self._past.outcomes[place])

    def _joined(self, step: str, place: str) -> State | None:
        """Return what a merger saw of the branches that its join closed with, or what a copied record says of it."""
        if place in self._past.told:
            return self._told(step, self._past.told[place])
        closing = self._past.closings.get(place)
        if closing is None:
            return None
        came = dict(self._replies.get(place, {}))
        try:
            if closing.deadline:
                came[DEADLINE] = self._deadline(step, place)
            replies = [came[name] for name in named(closing)]
        except (KeyError, ValueError, RecursionError):
            return None
        needed = self._plan.record_needs(step)
        whole = [self._whole(reply) if reply.source in needed else reply for reply in replies]
        if None in whole:
            return None
        state = self._first.state if not replies else State()  # the run began with it: it waited for empty lists only
        handoff = handoff_to(self._plan, self._first.run, place, closing, state, self._start_seq)
        return state_of_join(self._plan, handoff, [reply for reply in whole if reply is not None])

    def _told(self, step: str, told: State) -> State:
        """Return what a merger's record carries, with the input of this run: all that is to be carried from there."""
        given = select(self._first.state, needed_of(self._plan, step))
        return replace(
            told,
            input=given.input,
            blobs={key: blob for key, blob in told.blobs.items() if key not in self._plan.flow.input} | given.blobs,
        )

    def _deadline(self, step: str, place: str) -> Reply:
        """Return word of the deadline of a join, which carries what it did: what its first branch to be entered saw.

        What the other flow did not carry so far is taken from the first of its branches that is known. Raises
        `KeyError` when the log, or `texts`, does not have it, and what comes of errors that nobody can read.
        """
        told, new = self._past.deadlines[place], self._plan.carried[step] - self._past.plan.carried[step]
        sources = [in_round(source, round_of(place)) for source in self._plan.sources[step]]
        sees = next((self._sees[source] for source in sources if source in self._sees), State())
        given = select(self._first.state, self._plan.carried[step])
        blobs = {name: blob for name, blob in told.blobs.items() if name not in self._past.plan.flow.input}
        errors = told.errors
        if (beside := blobs.pop(ERRORS, None)) is not None:
            errors = [*msgspec.json.decode(self._texts[beside], type=list[Error]), *errors]
        return Reply(
            run=self._first.run,
            flow=self._plan.flow.name,
            step=place,
            source=DEADLINE,
            count=0,
            state=State(
                input=given.input,
                outputs={**told.outputs, **{name: value for name, value in sees.outputs.items() if name in new}},
                blobs={**blobs, **{name: blob for name, blob in sees.blobs.items() if name in new}, **given.blobs},
                errors=errors,
            ),
            outcome=Skipped(reason=""),
        )

    def _whole(self, reply: Reply) -> Reply | None:
        """Return a reply with its output inline; None when that is not known."""
        match reply.outcome:
            case Done(blob=Blob() as blob):
                text = self._texts.get(blob)
                return None if text is None else replace(reply, outcome=Done(output=text, work=reply.outcome.work))
            case _:
                return reply


def _creates(actions: Iterable[Action]) -> list[Create]:
    return [action for action in actions if isinstance(action, Create)]
