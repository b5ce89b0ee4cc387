"""A run without a bus: the log as a list, the worker's steps of DESIGN §5, and everything that may go wrong.

Messages are delivered in any order; timers fire at any time; workers crash between two writes, and what they held
comes again; every event is decided twice, as a worker that was restarted would; handlers answer differently each time
they are asked. All choices are made by the `Random` that is given, so that hypothesis (`st.randoms`) or a seed decides
them.
"""

from __future__ import annotations

import contextlib
from random import Random
from typing import Generic, NamedTuple, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.conditions import roots_of, unmet
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, encode_input, items_of
from baton_schemas.run.branches import list_comes_from
from baton_schemas.run.carry import state_at, state_of_join, with_outcome
from baton_schemas.run.joins import Chain
from baton_schemas.run.leaving_out import left_out_before
from baton_schemas.run.lifecycle import (
    Action,
    Begun,
    CancelTimer,
    Create,
    Ended,
    Entered,
    Event,
    Gathered,
    Lists,
    Recorded,
    SetTimer,
    Stopped,
    Submitted,
    View,
    decide,
    decisive_of,
    ends_run,
    next_branch,
    spreads,
    spreads_again,
)
from baton_schemas.run.refs import base_of, joined, named, replied, source_token, whole
from baton_schemas.run.rounds import after, follows, in_round, next_state, round_of
from baton_schemas.wire.messages import (
    Answer,
    Decisive,
    Handoff,
    Join,
    Message,
    OutcomeRecord,
    Reply,
    Result,
    Started,
    Woken,
)
from baton_schemas.wire.names import END, JOIN
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Skipped, State, Value
from tests.strategies import output_shape

RUN = "run"
DEADLINE_S = 100.0
"""Of each run that has one: its timer fires at any time, or never."""

M_co = TypeVar("M_co", bound=Message, covariant=True)


class Stored(NamedTuple, Generic[M_co]):
    """A message of the log, with its sequence (from 1) and the actor in its subject."""

    seq: int
    actor: str
    message: M_co


Held = Stored[Handoff | Reply]
"""A message that is delivered to a worker."""


class Spread(NamedTuple):
    """What fan-outs are handed: their lists, and which of them are left out, and why."""

    lists: Lists
    left_out: dict[str, str]
    again: bool = False
    """Whether the condition of a loop holds."""


NOTHING = Spread({}, {})


class Call(NamedTuple):
    """A handler was called: with which handoff, seeing which state."""

    handoff: Handoff
    state: State


class Crash(Exception):
    """The worker died; what it held is delivered again."""


def simulate(flow: Flow, choose: Random) -> list[Stored[Message]]:
    """Return the log of a run of the flow, in stored order, from its first handoff to when all is acked."""
    simulator = Simulator(flow, choose)
    simulator.run()
    return simulator.log


class Simulator:
    """One run of a flow whose input is `topic`, `topics` and `conf` (see `strategies`)."""

    def __init__(self, flow: Flow, choose: Random, *, stops: bool = False) -> None:
        """With `stops` the run may expire, and somebody may cancel it."""
        self.plan: Plan = check_flow(flow)
        self.choose = choose
        self.log: list[Stored[Message]] = []
        self.calls: list[Call] = []
        self.acked: list[Held] = []
        """What was worked through."""
        self.dropped: list[Held] = []
        """What was acked unseen, because the run had ended."""
        self.timers: dict[tuple[str, str, str], SetTimer] = {}
        """Those that are set and have not fired."""
        self._stops = stops
        self._subjects: dict[str, Stored[Decisive]] = {}
        self._seen_closed: set[str] = set()
        """Branches that ended when the joins after them were seen to have closed: the next lane gets none."""
        self._links: dict[tuple[str, int], Join] = {}
        """The chains of the joins, by step and number."""
        self._chains: dict[str, list[Chain]] = {}
        """What workers have of them in hand, by step: some a little old."""
        self._pending: list[Held] = []
        self._deliveries: dict[int, int] = {}
        self._crash_after = -1
        self._now_s = 0.0
        texts = ["x", "y", "z"]
        values = {
            "topic": "t",
            "topics": texts[: choose.randint(0, 3)],
            "conf": {"items": texts[: choose.randint(0, 3)]},
        }
        self.input = State(input=encode_input({name: values[name] for name in flow.input}))

    @property
    def results(self) -> list[Result]:
        """The results in the log."""
        return [stored.message for stored in self.log if isinstance(stored.message, Result)]

    def chain_of(self, step: str) -> Chain | None:
        """Return the whole chain of a join, if anything has come to it."""
        links = [link for (name, _), link in sorted(self._links.items()) if name == step]
        if not links:
            return None
        chain = Chain(self.plan, links[0])
        for link in links:
            chain.apply(link)
        return chain

    def run(self) -> None:
        """Submit, and deliver until everything is acked."""
        self._submit()
        self._work()

    def redeliver(self, held: Held) -> None:
        """Work through an acked message again, by a worker that looks at nothing first."""
        self._crash_after = -1
        self._take([held])

    def _submit(self) -> None:
        spread = self._spread(spreads(self.plan, None), self.input)
        deadline_s = DEADLINE_S if self._stops and self.choose.randint(0, 1) else 0.0
        self._start(self._decide(Submitted(RUN, self.input, deadline_s), spread))

    def _start(self, actions: list[Action]) -> None:
        (first,) = actions
        assert isinstance(first, Create)
        self._create(first)

    def _work(self) -> None:
        while self._pending:
            self._now_s += 1.0
            if self.timers and self.choose.randint(0, 9) == 0:
                self._fire(self.timers.pop(self.choose.choice(sorted(self.timers))))
            if self._stops and self.choose.randint(0, 15) == 0:
                self._crash_after = -1
                self._apply(Stopped(RUN, "cancelled", "no longer needed", 1))
            self._deliver(self._batch(self.choose.choice(self._pending)))
            if self.acked and self.choose.randint(0, 7) == 0:
                self.redeliver(self.choose.choice(self.acked))

    def _batch(self, held: Held) -> list[Held]:
        """Return a handoff alone; a reply with any of the others to the same step."""
        if isinstance(held.message, Handoff):
            return [held]
        step = held.message.step
        others = [other for other in self._pending if other.message.step == step and other is not held]
        replies = [other for other in others if isinstance(other.message, Reply)]
        return [held, *self.choose.sample(replies, self.choose.randint(0, len(replies)))]

    def _deliver(self, batch: list[Held]) -> None:
        seq = batch[0].seq
        self._deliveries[seq] = self._deliveries.get(seq, 0) + 1
        again = self._deliveries[seq] > 1
        # One in four deliveries crashes after 0 to 3 writes; the third of a message does not.
        crashes = self._deliveries[seq] < 3 and self.choose.randint(0, 3) == 0
        self._crash_after = self.choose.randint(0, 3) if crashes else -1
        if self.results and (again or self.choose.randint(0, 1)):
            self.dropped += batch
        else:
            try:
                self._take(batch, look_first=again)
            except Crash:
                return
            self.acked += batch
        self._pending = [held for held in self._pending if held not in batch]

    def _fire(self, timer: SetTimer) -> None:
        """The broker publishes what a timer holds, where nothing is yet."""
        self._crash_after = -1
        self._create(Create("" if timer.step == END else timer.who, timer.message))

    def _take(self, batch: list[Held], *, look_first: bool = False) -> None:
        (seq, _, message), *_ = batch
        if isinstance(message, Handoff):
            self._take_handoff(seq, message, look_first)
        else:
            self._take_replies(message.step, [held.message for held in batch if isinstance(held.message, Reply)])

    def _take_handoff(self, seq: int, handoff: Handoff, look_first: bool) -> None:
        plan = self.plan
        if isinstance(handoff.cause, Woken):
            original = self.log[handoff.cause.seq - 1].message
            assert isinstance(original, Handoff)
            seq, handoff, look_first = handoff.cause.seq, original, True
        start_seq = handoff.start_seq or seq
        if isinstance(handoff.cause, Started) and handoff.cause.begins is not None:
            begun = self._apply(Begun(handoff, seq, 0.0), self._spread(spreads(plan, None), handoff.state))
            if any(isinstance(action, Create) and isinstance(action.message, Result) for action in begun):
                return  # it has expired
        if ends_run(plan, handoff):
            self._apply(Recorded(handoff))
            return
        known = self._subjects.get(subject_of(decisive_of(plan, handoff)))
        if known is None or not look_first:
            known = self._do(seq, handoff, start_seq, parks=known is None)
        if known is None:
            return
        record, spread = known.message, NOTHING
        if isinstance(record, OutcomeRecord):
            spread = self._spread_after(record)
        self._apply(Recorded(record, handoff), spread, self._item(handoff, record))

    def _item(self, handoff: Handoff, record: Decisive) -> Value | None:
        """Return the item of the branch that follows, from the record that has the list; now and then, a join that has
        closed is seen to be."""
        index = next_branch(self.plan, handoff)
        if index is None or isinstance(record, Result):
            return None
        base = base_of(handoff)
        joins = [after(self.plan, whole(handoff.step), join) for join in self.plan.successors[base]]
        closed = [f"handoff.{self.plan.actor(join)}.{handoff.run}.{join}.{JOIN}" in self._subjects for join in joins]
        if all(closed) and (handoff.step in self._seen_closed or self.choose.randint(0, 1)):
            self._seen_closed.add(handoff.step)  # who looks again cannot see less
            return None
        step, _ = list_comes_from(self.plan, base, round_of(handoff.step))
        if step:
            stored = self._last(handoff, step).message
            assert isinstance(stored, OutcomeRecord)
            state = with_outcome(stored.state, self.plan.name_of(step), stored.outcome)
        else:
            first = self.log[record.start_seq - 1].message
            assert isinstance(first, Handoff)
            state = first.state
        return self._spread({base: self.plan.step(base).each}, state).lists[base][index]

    def _last(self, fan_out: Handoff, step: str) -> Stored[Message]:
        """Return the record of what comes right before a fan-out: of a loop that ends there, that of its last round."""
        plan, name = self.plan, self.plan.name_of(step)
        rounds = [step]
        if name in plan.loops and plan.loop_of.get(base_of(fan_out)) != name:
            rounds = [in_round(name, number) for number in range(1, plan.rounds_max(name) + 1)]
        subjects = [f"outcome.{plan.actor(token)}.{fan_out.run}.{token}" for token in rounds]
        return next(self._subjects[subject] for subject in reversed(subjects) if subject in self._subjects)

    def _do(self, seq: int, handoff: Handoff, start_seq: int, *, parks: bool) -> Stored[Decisive] | None:
        """Do the step of a handoff and record how it ended; None when it was parked, which it is once at the most."""
        closing = joined(handoff)
        state = state_at(handoff) if closing is None else self._joined(handoff)
        self._apply(Entered(handoff, state, start_seq))
        if closing is not None and closing.error is not None:
            outcome: Outcome = Failed(error=closing.error)
        elif why := left_out_before(self.plan, handoff) or self._unmet(handoff, state):
            outcome = Skipped(reason=why, left_out=True)
        elif parks and self.choose.randint(0, 9) == 0 and self._park(seq, handoff, start_seq):
            return None
        else:
            outcome = self._handle(handoff, state)
        event = Ended(handoff, state, outcome, start_seq)
        (create,) = self._decide(event)
        assert isinstance(create, Create)
        return self._create(create)

    def _joined(self, handoff: Handoff) -> State:
        """Return what a merger sees of the replies that its handoff names."""
        closing = joined(handoff)
        assert closing is not None
        subject = f"reply.{self.plan.actor(handoff.step)}.{handoff.run}.{handoff.step}"
        found = [self._subjects[f"{subject}.{name}"].message for name in named(closing)]
        return state_of_join(self.plan, handoff, [reply for reply in found if isinstance(reply, Reply)])

    def _park(self, seq: int, handoff: Handoff, start_seq: int) -> bool:
        """Wake the step later; False when it has been woken already."""
        cause = Woken(seq=seq, number=1, why="its retry")
        woken = replace(handoff, cause=cause, start_seq=start_seq, state=State(), branch=None)
        create = Create(self.plan.actor(handoff.step), woken)
        if subject_of(create) in self._subjects:
            return False
        self._create(create)
        return True

    def _take_replies(self, step: str, replies: list[Reply]) -> None:
        chain = self._record(step, replies)
        for reply in replies:
            self._apply(Recorded(reply))
        if chain.closed and any(chain.has(reply) for reply in replies):
            self._apply(Gathered(chain))

    def _record(self, step: str, replies: list[Reply]) -> Chain:
        """Have these replies in the chain, by a worker that has all of it in hand, or some, or nothing."""
        in_hand = self._chains.setdefault(step, [])
        chain = self.choose.choice(in_hand) if in_hand and self.choose.randint(0, 2) else Chain(self.plan, replies[0])
        if chain not in in_hand:
            in_hand.append(chain)
        while (link := chain.link(replies)) is not None:
            taken = self._links.get((step, link.number))
            if taken is None:
                self._store(self.plan.actor(step), link)
                self._links[step, link.number] = taken = link
            chain.apply(taken)
        return chain

    def _handle(self, handoff: Handoff, state: State) -> Outcome:
        if base_of(handoff) in self.plan.implied:
            values = {**state.input, **state.outputs}
            return Done(output=next((values[name] for name in self.plan.reads[base_of(handoff)]), Raw(b"{}")))
        self.calls.append(Call(handoff, state))
        if self.choose.randint(0, 4) == 0:
            message = f"call {len(self.calls)}"
            return Failed(error=Error(step=handoff.step, type="Oops", message=message))
        items = [f"call {len(self.calls)}"] * self.choose.randint(0, 3)
        shape = output_shape(self.plan.flow, base_of(handoff))
        value = {"list": items, "items": {"items": items}, "any": f"call {len(self.calls)}"}[shape]
        return Done(output=encode_input({"value": value})["value"])

    def _unmet(self, handoff: Handoff, state: State) -> str:
        """Why the `when` of a step does not hold; of a fan-out, who hands it on has seen to it."""
        return "" if handoff.branch else self.unmet(base_of(handoff), state)

    def unmet(self, step: str, state: State) -> str:
        """Why the `when` of a step does not hold in a state."""
        when, values = self.plan.step(step).when, {**state.input, **state.outputs}
        keys = {root: self.plan.key(step, root) for root in roots_of(when)}
        return unmet(when, {root: values[key] for root, key in keys.items() if key in values})

    def _spread_after(self, record: OutcomeRecord) -> Spread:
        plan, base = self.plan, base_of(record)
        state = record.state if record.branch else with_outcome(record.state, base, record.outcome)
        again = plan.step(base).again
        holds = again is not None and not unmet(again.when, {**state.input, **state.outputs})
        match follows(plan, record, holds):
            case "again":
                to_spread, state = spreads_again(plan, base), next_state(plan, base, state)
            case "fail":
                to_spread = {}
            case _:
                to_spread = spreads(plan, base)
        return self._spread(to_spread, state)._replace(again=holds)

    def _spread(self, each: dict[str, str], state: State) -> Spread:
        values = {**state.input, **state.outputs}
        lists: dict[str, list[Raw]] = {}
        left_out: dict[str, str] = {}
        for step, name in each.items():
            if why := self.unmet(step, state):
                left_out[step] = why
                continue
            # Where a join was to `pass` a failed branch, its error stands in the place of a list.
            with contextlib.suppress(KeyError, NotAList):
                lists[step] = items_of(name, values[name.split(".")[0]])
        return Spread(lists, left_out)

    def _decide(self, event: Event, spread: Spread | None = None, item: Value | None = None) -> list[Action]:
        """Decide, and once more, as somebody would who comes after a crash: what is to be written is the same."""
        view = View(self.plan, self._now_s, *(spread or NOTHING), item)
        actions = decide(view, event)
        assert decide(view, event) == actions
        return actions

    def _apply(self, event: Event, spread: Spread | None = None, item: Value | None = None) -> list[Action]:
        """Do all that follows from an event, in the order of the engine."""
        actions = self._decide(event, spread, item)
        for timer in actions:
            # The first counts; one that has fired is not set again (the log has what it held).
            if isinstance(timer, SetTimer) and subject_of(Create(timer.who, timer.message)) not in self._subjects:
                self.timers.setdefault((timer.who, timer.run, timer.step), timer)
        creates = [action for action in actions if isinstance(action, Create)]
        for create in creates:
            self._create(create)
        for _, message in creates:
            if isinstance(message, Result) or (isinstance(message, Reply) and isinstance(message.outcome, Failed)):
                self._apply(Recorded(message))
        for done in actions:
            if isinstance(done, CancelTimer):
                self.timers.pop((done.who, done.run, done.step), None)
        return actions

    def _create(self, create: Create) -> Stored[Decisive]:
        """Store a message unless its subject is taken; return what is stored there."""
        subject = subject_of(create)
        if subject not in self._subjects:
            seq = self._store(*create)
            self._subjects[subject] = Stored(seq, *create)
            if isinstance(create.message, Handoff | Reply):
                self._pending.append(Stored(seq, create.actor, create.message))
        return self._subjects[subject]

    def _store(self, actor: str, message: Message) -> int:
        if self._crash_after == 0:
            raise Crash
        self._crash_after -= 1
        self.log.append(Stored(len(self.log) + 1, actor, message))
        return len(self.log)


def subject_of(create: Create) -> str:
    """Return the subject of a message that is written create-only."""
    actor, message = create
    match message:
        case Handoff():
            return f"handoff.{actor}.{message.run}.{message.step}.{source_token(message)}"
        case Reply():
            return f"reply.{actor}.{message.run}.{message.step}.{replied(message)}"
        case OutcomeRecord():
            return f"outcome.{actor}.{message.run}.{message.step}"
        case Answer():
            return f"answer.{actor}.{message.run}.{message.step}.{message.child.rpartition('--k')[2]}"
        case Result():
            return f"result.{message.flow}.{message.run}.end"
