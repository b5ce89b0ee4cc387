"""Forks of any run of any flow, from any place in its log, by workers that crash: they end, and redo nothing."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from baton_schemas.flow.flow import Flow
from baton_schemas.run.fork import Logged, copies, forked_start
from baton_schemas.run.lifecycle import Routed
from baton_schemas.wire.messages import Handoff, Outcome, OutcomeRecord, Reply

from .simulator import RUN, Held, Simulator
from .strategies import flows
from .test_routing import outcomes_in

MANY = settings(max_examples=150, deadline=None)


class Fork(Simulator):
    """A run that goes on from another, with the copying that its first handoff asks for."""

    def __init__(self, flow: Flow, origin: Simulator, until_seq: int, choose: Random) -> None:
        super().__init__(flow, choose)
        self.input = origin.input
        entries = [Logged(*stored) for stored in origin.log]
        self.copied = copies(self.plan, entries, RUN, 1, until_seq)
        first = origin.log[0]
        assert isinstance(first.message, Handoff)
        self._create(Routed(first.actor, forked_start(first.message, RUN, until_seq)))

    def run(self) -> None:
        """Deliver until everything is acked."""
        while self._pending:
            self._deliver(self._batch(self.choose.choice(self._pending)))

    def _take(self, batch: list[Held], *, look_first: bool = False) -> None:
        message = batch[0].message
        if isinstance(message, Handoff):
            if message.forked_from:
                self._create_all(self.copied)
            look_first = look_first or message.copied or bool(message.forked_from)
        super()._take(batch, look_first=look_first)

    @property
    def finished(self) -> dict[str, Outcome]:
        """The steps whose records were copied, and how they had ended."""
        records = [message for _, message in self.copied if not isinstance(message, Handoff) or message.outcome]
        assert all(isinstance(message, Handoff | Reply | OutcomeRecord) for message in records)
        return dict(pair for message in records for pair in outcomes_in(message))


@st.composite
def forks(draw: st.DrawFn) -> tuple[Simulator, Fork]:
    flow, choose = draw(flows()), draw(st.randoms(use_true_random=False))
    origin = Simulator(flow, choose)
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
    assert fork.results[0].status == "failed" or fork.results[0].step == origin.plan.final


@MANY
@given(forks())
def test_finished_steps_keep_their_outcome_and_are_not_done_again(runs: tuple[Simulator, Fork]) -> None:
    _, fork = runs
    told = dict(fork.finished)
    for stored in fork.log:
        for step, outcome in outcomes_in(stored.message):
            assert told.setdefault(step, outcome) == outcome
    # A join of the first few may close with other branches before its copies come: then its handler is called in vain.
    few = {name for name in fork.plan.joins if fork.plan.join_policy(name).wait != "all"}
    assert not {call.handoff.step for call in fork.calls} & fork.finished.keys() - few


@MANY
@given(forks())
def test_all_that_is_copied_points_to_the_fork(runs: tuple[Simulator, Fork]) -> None:
    _, fork = runs
    first, *others = [stored.message for stored in fork.log]
    assert isinstance(first, Handoff)
    assert first.forked_from == RUN
    assert all(getattr(message, "start_seq", 1) == 1 for message in others)
    subjects = [(type(m).__name__, m.step, getattr(m, "source", ""), getattr(m, "branch", "")) for _, m in fork.copied]
    assert len(subjects) == len(set(subjects))
