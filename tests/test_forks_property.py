"""Forks of any run of any flow, from any place in its log, by workers that crash: they end, and redo nothing."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import Flow, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import copied_into, copies, forked_start, going_on, origin_of, told_by
from baton_schemas.run.lifecycle import Create, Recorded, Submitted, spreads
from baton_schemas.run.past import Logged
from baton_schemas.run.refs import name_of, replied, source_token
from baton_schemas.wire.messages import Handoff, Origin, OutcomeRecord, Reply
from baton_schemas.wire.outcomes import Done, Failed, Outcome, Skipped

from .logs import closing, done, first, handoff, outcome, reply, woken
from .simulator import RUN, Held, Simulator
from .strategies import flows
from .test_lifecycle import leaves_branches, outcomes_in
from .test_lifecycle_events import SPREAD, plan_of

MANY = settings(max_examples=100, deadline=None)


class Fork(Simulator):
    """A run that goes on from another, with the copying that its first handoff asks for."""

    def __init__(self, flow: Flow, origin: Simulator, until_seq: int, choose: Random, *, failed: bool = False) -> None:
        super().__init__(flow, choose)
        self.input = origin.input
        entries = [Logged(*stored) for stored in origin.log]
        begun = origin.log[0]
        assert isinstance(begun.message, Handoff)
        start = Create(begun.actor, forked_start(begun.message, RUN, until_seq, failed=failed))
        if self.plan.digest != origin.plan.digest:
            spread = self._spread(spreads(self.plan, None), self.input)
            (made,) = self._decide(Submitted(RUN, self.input), spread)
            assert isinstance(made, Create)
            assert isinstance(made.message, Handoff)
            start = Create(made.actor, going_on(made.message, Origin(run=RUN, until_seq=until_seq, failed=failed)))
        assert isinstance(start.message, Handoff)
        self.first, self.redoes_failed = start.message, failed
        origin_named = origin_of(self.first)
        assert origin_named is not None
        self.copied = copied_into(self.plan, entries, self.first, origin_named, 1)
        self.taken_over = told_by(self.copied)
        self._create(start)

    def run(self) -> None:
        """Deliver until everything is acked."""
        self._work()

    def _take(self, batch: list[Held], *, look_first: bool = False) -> None:
        message = batch[0].message
        if isinstance(message, Handoff):
            forks = origin_of(message) is not None
            if forks:
                for create in self.copied:
                    self._create(create)
                for create in self.copied:
                    if isinstance(create.message, Reply) and isinstance(create.message.outcome, Failed):
                        self._apply(Recorded(create.message))
            look_first = look_first or message.copied or forks
        super()._take(batch, look_first=look_first)

    @property
    def finished(self) -> dict[str, Outcome]:
        """The steps whose records were copied, and how they had ended."""
        assert all(isinstance(create.message, Handoff | Reply | OutcomeRecord) for create in self.copied)
        return dict(pair for create in self.copied for pair in outcomes_in(create.message))


@st.composite
def forks(draw: st.DrawFn) -> tuple[Simulator, Fork]:
    flow, choose = draw(flows()), draw(st.randoms(use_true_random=False))
    origin = Simulator(flow, choose, stops=draw(st.booleans()))
    origin.run()
    until_seq = draw(st.one_of(st.just(0), st.integers(1, len(origin.log))))
    fork = Fork(flow, origin, until_seq, choose)
    fork.run()
    return origin, fork


@MANY
@given(forks())
def test_fork_ends_in_exactly_one_result(runs: tuple[Simulator, Fork]) -> None:
    origin, fork = runs
    assert len(fork.results) == 1
    assert fork.results[0].status in ("failed", "expired") or name_of(fork.results[0].step) == origin.plan.final


@MANY
@given(forks())
def test_finished_steps_keep_their_outcome_and_are_not_done_again(runs: tuple[Simulator, Fork]) -> None:
    _, fork = runs
    told = dict(fork.finished)
    for stored in fork.log:
        for step, ended in outcomes_in(stored.message):
            assert told.setdefault(step, ended) == ended
    # A join of the first few may close with other branches before its copies come: then its handler is called in vain.
    few = {name for name in fork.plan.joins if leaves_branches(fork, name)}
    again = {call.handoff.step for call in fork.calls} & fork.finished.keys()
    assert not {step for step in again if name_of(step) not in few}


@MANY
@given(forks())
def test_all_that_is_copied_points_to_the_fork(runs: tuple[Simulator, Fork]) -> None:
    _, fork = runs
    begun, *others = [stored.message for stored in fork.log]
    assert isinstance(begun, Handoff)
    named = origin_of(begun)
    assert named is not None
    assert named.run == RUN
    assert all(getattr(message, "start_seq", 1) == 1 for message in others)
    subjects = [(type(create.message).__name__, create.message.step, source_of(create)) for create in fork.copied]
    assert len(subjects) == len(set(subjects))


def source_of(create: Create) -> str:
    match create.message:
        case Handoff() as message:
            return source_token(message)
        case Reply() as message:
            return replied(message)
        case _:
            return ""


@MANY
@given(forks())
def test_steps_that_are_said_to_be_reused_are_those_whose_outcome_is_copied(runs: tuple[Simulator, Fork]) -> None:
    _, fork = runs
    assert fork.finished.keys() <= fork.taken_over


# ---- what is copied --------------------------------------------------------------------------------


def test_handoffs_that_close_joins_or_wake_steps_or_begin_the_run_are_not_copied() -> None:
    plan = plan_of(
        {"plan": Step(agent="x"), "part": Step(agent="x", each="plan"), "merge": Step(agent="x", after=["part"])}
    )
    log = [
        first("plan"),
        outcome("plan", Done(output=Raw(b"[1]"))),
        handoff("plan", "part-0", of=1),
        woken("part-0", 3),
        reply("part-0", "merge", done("x"), of=1),
        reply("deadline", "merge", Skipped(reason="the deadline of 1 s")),
        closing("merge", {"part": "0"}),
    ]
    made = copies(plan, [Logged(seq, "a", of_plan(plan, each)) for seq, each in enumerate(log, start=1)], "new", 9)
    assert [create.message for create in made] == [
        replace(of_plan(plan, log[place]), run="new", start_seq=9, copied=True) for place in (1, 4, 2)
    ]


def test_messages_of_strangers_are_not_copied() -> None:
    plan = plan_of(SPREAD)
    strange = [
        of_plan(plan, outcome("nobody", done("x"))),
        of_plan(plan, reply("split-0", "nobody", done("x"), of=1)),
        of_plan(plan, reply("nobody", "merge", done("x"))),
        of_plan(plan, handoff("nobody", "merge", done("x"))),
        outcome("split-0", done("x"), of=1),
    ]
    assert copies(plan, [Logged(seq, "a", each) for seq, each in enumerate(strange, start=1)], "new", 9) == []


def of_plan(plan: Plan, message: Any) -> Any:
    return replace(message, flow=plan.flow.name, digest=plan.digest)
