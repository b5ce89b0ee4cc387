"""A run without a bus: the log as a list, the worker's steps of DESIGN §5, and everything that may go wrong.

Messages are delivered in any order; workers crash between two writes, and what they held comes again;
handlers answer differently each time they are asked. All choices are made by the `Random` that is given,
so that hypothesis (`st.randoms`) or a seed decides them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from random import Random
from typing import Generic, NamedTuple, TypeVar

from msgspec import Raw

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, encode_input, items_of
from baton_schemas.run.carry import EMPTY, state_at, state_of_join, with_outcome
from baton_schemas.run.joins import arrive, closing
from baton_schemas.run.lifecycle import Routed, base_of, decide, follow, spreads, start
from baton_schemas.wire.messages import (
    NULL,
    Decisive,
    Done,
    Error,
    Failed,
    Handoff,
    Join,
    Message,
    Outcome,
    OutcomeRecord,
    Reply,
    Result,
    State,
)
from baton_schemas.wire.names import JOIN
from tests.strategies import output_shape

RUN = "run"


M_co = TypeVar("M_co", bound=Message, covariant=True)


class Stored(NamedTuple, Generic[M_co]):
    """A message of the log, with its sequence (from 1) and the actor in its subject."""

    seq: int
    actor: str
    message: M_co


Held = Stored[Handoff | Reply]
"""A message that is delivered to a worker."""


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

    def __init__(self, flow: Flow, choose: Random) -> None:
        self.plan: Plan = check_flow(flow)
        self.choose = choose
        self.log: list[Stored[Message]] = []
        self.calls: list[Call] = []
        self.acked: list[Held] = []
        """What was worked through."""
        self.dropped: list[Held] = []
        """What was acked unseen, because the run had ended."""
        self._subjects: dict[str, Stored[Decisive]] = {}
        self._joins: dict[str, Join] = {}
        self._pending: list[Held] = []
        self._deliveries: dict[int, int] = {}
        self._crash_after = -1
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

    def run(self) -> None:
        """Submit, and deliver until everything is acked."""
        lists = self._lists(spreads(self.plan, None), self.input)
        self._create(start(self.plan, RUN, self.input, lists)[0])
        while self._pending:
            self._deliver(self._batch(self.choose.choice(self._pending)))
            if self.acked and self.choose.randint(0, 7) == 0:
                self.redeliver(self.choose.choice(self.acked))

    def redeliver(self, held: Held) -> None:
        """Work through an acked message again, by a worker that looks at nothing first."""
        self._crash_after = -1
        self._take([held])

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

    def _take(self, batch: list[Held], *, look_first: bool = False) -> None:
        (seq, actor, message), *_ = batch
        if isinstance(message, Handoff):
            self._take_handoff(seq, message, look_first)
        else:
            replies = [(held.seq, held.message) for held in batch if isinstance(held.message, Reply)]
            self._take_replies(actor, message.step, replies)

    def _take_handoff(self, seq: int, handoff: Handoff, look_first: bool) -> None:
        plan, start_seq = self.plan, handoff.start_seq or seq
        if handoff.flow_body != NULL:
            lists = self._lists(spreads(plan, None), handoff.state)
            self._create_all(start(plan, RUN, handoff.state, lists, seq)[1:])
        if ends := follow(plan, handoff, {}):
            self._create_all(ends)
            return
        known = self._subjects.get(subject_of(decide(plan, handoff, EMPTY, Done(), start_seq)))
        if known is None or not look_first:
            replies = [self.log[branch.seq - 1].message for branch in handoff.branches]
            joined = [reply for reply in replies if isinstance(reply, Reply)]
            state = state_of_join(plan, handoff, joined) if handoff.source == JOIN else state_at(handoff)
            outcome: Outcome = Failed(error=handoff.error) if handoff.error else self._handle(handoff, state)
            known = self._create(decide(plan, handoff, state, outcome, start_seq))
        record = known.message
        if isinstance(record, OutcomeRecord):
            base = base_of(record)
            after = with_outcome(record.state, base, record.outcome)
            self._create_all(follow(plan, record, self._lists(spreads(plan, base), after)))
        else:
            self._create_all(follow(plan, record, {}))

    def _take_replies(self, actor: str, step: str, replies: list[tuple[int, Reply]]) -> None:
        for _, reply in replies:
            self._create_all(follow(self.plan, reply, {}))
        join = self._joins.get(step)
        updated = arrive(self.plan, join, replies)
        if updated != join:
            self._store(actor, updated)
            self._joins[step] = updated
        if updated.closed:
            self._create(Routed(actor, closing(self.plan, updated)))

    def _handle(self, handoff: Handoff, state: State) -> Outcome:
        self.calls.append(Call(handoff, state))
        if self.choose.randint(0, 4) == 0:
            message = f"call {len(self.calls)}"
            return Failed(error=Error(step=handoff.step, type="Oops", message=message))
        items = [f"call {len(self.calls)}"] * self.choose.randint(0, 3)
        shape = output_shape(self.plan.flow, base_of(handoff))
        value = {"list": items, "items": {"items": items}, "any": f"call {len(self.calls)}"}[shape]
        return Done(output=encode_input({"value": value})["value"])

    def _lists(self, each: dict[str, str], state: State) -> dict[str, list[Raw]]:
        values = {**state.input, **state.outputs}
        lists: dict[str, list[Raw]] = {}
        for step, name in each.items():
            # Where a join was to `pass` a failed branch, its error stands in the place of a list.
            with contextlib.suppress(KeyError, NotAList):
                lists[step] = items_of(name, values[name.split(".")[0]])
        return lists

    def _create_all(self, routed: Iterable[Routed]) -> None:
        for item in routed:
            self._create(item)

    def _create(self, routed: Routed) -> Stored[Decisive]:
        """Store a message unless its subject is taken; return what is stored there."""
        subject = subject_of(routed)
        if subject not in self._subjects:
            seq = self._store(*routed)
            self._subjects[subject] = Stored(seq, *routed)
            if isinstance(routed.message, Handoff | Reply):
                self._pending.append(Stored(seq, routed.actor, routed.message))
        return self._subjects[subject]

    def _store(self, actor: str, message: Message) -> int:
        if self._crash_after == 0:
            raise Crash
        self._crash_after -= 1
        self.log.append(Stored(len(self.log) + 1, actor, message))
        return len(self.log)


def subject_of(routed: Routed) -> str:
    """Return the subject of a message that is written create-only."""
    actor, message = routed
    match message:
        case Handoff():
            return f"handoff.{actor}.{message.run}.{message.step}.{message.source}"
        case Reply():
            return f"reply.{actor}.{message.run}.{message.step}.{message.branch}"
        case OutcomeRecord():
            return f"outcome.{actor}.{message.run}.{message.step}"
        case Result():
            return f"result.{message.flow}.{message.run}.end"
