"""Makes the log of a run from what happens in it, by the lifecycle itself, with the clock of a made-up worker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.subjects import Subjects
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.inputs import encode_input, items_of
from baton_schemas.run.asking import (
    answer_to,
    answers_parked,
    by_itself,
    child_handoff,
    child_of,
    who_is_asked,
    woken_by,
)
from baton_schemas.run.carry import state_at, with_outcome
from baton_schemas.run.fork import copies, forked_start
from baton_schemas.run.joins import Chain
from baton_schemas.run.lifecycle import (
    Begun,
    Create,
    Ended,
    Event,
    Gathered,
    Lists,
    Recorded,
    SetTimer,
    Stopped,
    Submitted,
    View,
    decide,
    spreads,
)
from baton_schemas.run.past import Logged
from baton_schemas.run.refs import base_of, key_of_child
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import BatchEnded, BatchSending, BatchSent, Exchange, Fact, InBatch, Unasked, key_of
from baton_schemas.wire.facts import Recorded as RecordedValue
from baton_schemas.wire.messages import (
    ASKING,
    FIRST,
    Asked,
    AskedKind,
    Batch,
    Handoff,
    Message,
    Note,
    OutcomeRecord,
    Parked,
    Question,
    Reply,
    Result,
    Say,
    Woken,
)
from baton_schemas.wire.names import gatherer_of, sender_of
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, ResultStatus, State, Usage, Work

_BEGIN = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
WORKER = "w-1"
PRICES = {"claude-haiku-4-5": 0.0031, "claude-sonnet-4-6": 0.0214}


def flow_of(name: str, steps: dict[str, Step], **more: Any) -> Flow:
    """A flow whose input is `topic` and `parts`, each step with an agent of its own."""
    agents = {step.agent: Agent(handler="agents:any") for step in steps.values()}
    inputs = {"topic": Field(), "parts": Field(type="list[str]", default=Raw(b"[]"))}
    return Flow(name=name, input=inputs, agents=agents, steps=steps, **more)


def done(value: Any, *, model: str = "", attempt: int = 1) -> Done:
    """How a step ended well: with this output, by a handler or by a model."""
    return Done(output=encode_input({"value": value})["value"], work=work(model=model, attempt=attempt))


def failed(step: str, message: str, *, attempt: int = 3) -> Failed:
    error = Error(step=step, type="Overloaded", message=message, attempts=attempt)
    return Failed(error=error, work=work(attempt=attempt))


def work(*, model: str = "", attempt: int = 1) -> Work:
    if not model:
        return Work(attempt=attempt, worker=WORKER, elapsed_s=0.25)
    return Work(
        attempt=attempt,
        worker=WORKER,
        elapsed_s=2.5,
        model=model,
        request_id="req_011CQ",
        usage=Usage(input_tokens=412, output_tokens=230, cache_read_tokens=1024),
        cost_usd=PRICES[model],
    )


class Recorder:
    """One run, and its log so far."""

    def __init__(self, flow: Flow, run: str) -> None:
        self.plan, self.run = check_flow(flow), run
        self.entries: list[Entry] = []
        self.at = _BEGIN
        self._subjects = Subjects("baton")
        self._taken: set[str] = set()
        self._chains: dict[str, Chain] = {}
        self._timers: dict[str, SetTimer] = {}

    # ---- what happens --------------------------------------------------------------------------------

    def start(self, given: dict[str, Any], *, deadline_s: float = 0.0) -> None:
        """A client submits the run, and a worker takes its first handoff."""
        state = State(input=encode_input({"topic": "tea", "parts": [], **given}))
        lists = self._lists(spreads(self.plan, None), state)
        self._do(Submitted(self.run, state, deadline_s), lists)
        self._do(Begun(self._first, 1, self.at.timestamp()), lists)

    def fork(self, origin: Recorder, until_seq: int = 0) -> None:
        """A client has this run go on from another, and a worker copies what that had finished."""
        first = forked_start(origin._first, self.run, until_seq)
        self._create(Create(self.plan.actor(first.step), first))
        split = self._subjects.split
        log = [Logged(each.seq, split(each.subject).who, each.message) for each in origin.entries if each.message]
        for create in copies(self.plan, log, self.run, 1, until_seq):
            self._create(create)
        self._do(Begun(self._first, 1, self.at.timestamp()), self._lists(spreads(self.plan, None), first.state))

    def note(self, step: str, fact: Fact) -> None:
        """A worker notes a fact about a step."""
        actor = self.plan.actor(step) if step in self.plan.flow.steps else "-"
        if isinstance(fact, InBatch):
            actor = gatherer_of(fact.actor)
        elif isinstance(fact, BatchSending | BatchSent | BatchEnded):
            actor = sender_of(next(each.message.actor for each in self.entries if isinstance(each.message, Batch)))
        subject = self._subjects.note(actor, self.run, step, key_of(fact))
        version = (
            ASKING
            if isinstance(fact, Exchange | RecordedValue | Unasked | InBatch | BatchSending | BatchSent | BatchEnded)
            else FIRST
        )
        self._store(subject, Note(v=version, run=self.run, step=step, fact=fact, worker=WORKER))

    def gather(self, actor: str, seqs: list[int]) -> None:
        """Calls of an actor are gathered: the batch has its own id in the place of the run's."""
        members = Raw(msgspec.json.encode(seqs))
        batch = Batch(run=self.run, actor=actor, count=len(seqs), members=members)
        self._store(self._subjects.batch(actor, self.run), batch)

    def ask(self, step: str, kind: AskedKind, name: str, number: int = 1, **given: Any) -> str:
        """A step asks for a child with these arguments; return the child's token."""
        child = child_of(step, kind, name, given, number)
        question = Question(text="Print it?", answers=["yes", "no"]) if kind == "person" else None
        due_s = self.at.timestamp() + 60.0 if kind in ("sleep", "event") else 0.0
        cause = Asked(step=step, kind=kind, number=number, due_s=due_s, question=question)
        handoff = child_handoff(self._handoff(step), 1, child, cause, State(input=encode_input(given)))
        self._create(Create(who_is_asked(self.plan, handoff), handoff))
        return child

    def answer(self, child: str, outcome: Outcome | None = None, **more: Any) -> None:
        """A child has answered, or (without an outcome) its time is up: its step is woken if it was parked upon it."""
        asked = self._handoff(child)
        answer = by_itself(asked, 1) if outcome is None else answer_to(asked, outcome, 1)
        actor = self.plan.actor(answer.step)
        subject = self._subjects.of(actor, answer)
        parked = next((each for each in self.entries if each.subject == subject), None)
        if parked is not None and isinstance(parked.message, Parked):
            answer = answers_parked(answer, parked.message, parked.seq)
        self._store(subject, replace(answer, **more))
        woken = woken_by(answer)
        if woken is not None:
            self._create(Create(actor, woken))

    def park(self, step: str, child: str) -> None:
        """A step waits for a child, and its worker lets go of it."""
        handoff = self._handoff(step)
        seq = next(entry.seq for entry in self.entries if entry.message is handoff)
        parked = Parked(
            run=self.run, flow=handoff.flow, digest=handoff.digest, start_seq=1, step=step, child=child, seq=seq
        )
        subject = self._subjects.answer(self.plan.actor(step), self.run, step, key_of_child(child))
        self._store(subject, parked)

    def say(self, who: str, step: str, said: Say) -> int:
        """Somebody says something from outside; return where it is in the log."""
        self._store(self._subjects.say(who, self.run, step), said)
        return self.entries[-1].seq

    def end(self, step: str, outcome: Outcome) -> None:
        """A worker has done a step: its record, and what follows."""
        handoff = self._handoff(step)
        self._do(Ended(handoff, state_at(handoff), outcome, 1))
        # The record is the last entry of its kind: what follows from it depends on it alone.
        record = self.entries[-1].message
        assert isinstance(record, Handoff | Reply | OutcomeRecord | Result)
        lists: Lists = {}
        if isinstance(record, OutcomeRecord):
            base = base_of(record)
            after = record.state if record.branch else with_outcome(record.state, base, record.outcome)
            lists = self._lists(spreads(self.plan, base), after)
        self._do(Recorded(record), lists)

    def wake(self, step: str, number: int, why: str) -> None:
        """The timer of a parked step fires."""
        handoff = self._handoff(step)
        seq = next(entry.seq for entry in self.entries if entry.message is handoff)
        cause = Woken(seq=seq, number=number, why=why)
        woken = replace(handoff, cause=cause, state=State(), branch=None, start_seq=1)
        self._create(Create(self.plan.actor(step), woken))

    def join(self, step: str) -> None:
        """The merger takes the replies that have come since, and closes the join when they are enough."""
        replies = [entry.message for entry in self.entries if isinstance(entry.message, Reply)]
        replies = [reply for reply in replies if reply.step == step]
        chain = self._chains.setdefault(step, Chain(self.plan, replies[0]))
        link = chain.link(replies)
        if link is not None:
            self._store(self._subjects.join(self.plan.actor(step), self.run, step, link.number), link)
            chain.apply(link)
        if chain.closed:
            self._do(Gathered(chain))

    def time_is_up(self, step: str) -> None:
        """The timer of a join or of the run (`end`) fires."""
        timer = self._timers[step]
        self._create(Create(timer.who, timer.message))

    def stop(self, status: ResultStatus, reason: str) -> None:
        """Somebody ends the run."""
        self._do(Stopped(self.run, status, reason, 1))

    # ---- how it is written ---------------------------------------------------------------------------

    @property
    def _first(self) -> Handoff:
        first = self.entries[0].message
        assert isinstance(first, Handoff)
        return first

    def _handoff(self, step: str) -> Handoff:
        found = (entry.message for entry in self.entries if isinstance(entry.message, Handoff))
        return next(each for each in found if each.step == step and not isinstance(each.cause, Woken))

    def _lists(self, to_spread: dict[str, str], state: State) -> Lists:
        values = {**state.input, **state.outputs}
        lists: dict[str, Sequence[Raw]] = {
            step: items_of(each, values[each]) for step, each in to_spread.items() if each in values
        }
        return lists

    def _do(self, event: Event, lists: Lists | None = None) -> None:
        for action in decide(View(self.plan, self.at.timestamp(), lists or {}), event):
            if isinstance(action, Create):
                self._create(action)
            elif isinstance(action, SetTimer):
                self._timers.setdefault(action.step, action)

    def _create(self, create: Create) -> None:
        subject = self._subjects.of(*create)
        if subject not in self._taken:
            self._taken.add(subject)
            self._store(subject, create.message)

    def _store(self, subject: str, message: Message) -> None:
        seq = len(self.entries) + 1
        self.at += timedelta(milliseconds=137 * (1 + seq % 5))
        self.entries.append(read_entry(seq, self.at, subject, encode(message)))
