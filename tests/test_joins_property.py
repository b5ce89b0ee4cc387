"""Joins by several processes at once: whatever comes, in whatever order, each closes once with what it names."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.json import decode

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, JoinPolicy, OnFailedBranch, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import state_of_join
from baton_schemas.run.joins import arrive, closing, done_count
from baton_schemas.wire.messages import VERSION, Done, Error, Failed, Handoff, Join, Outcome, Reply, Skipped
from baton_schemas.wire.names import DEADLINE, branch_name

from .team import flow_of

LISTS = {"xs": Field(type="list"), "ys": Field(type="list")}
BRANCHES_MAX = 4


class Case(NamedTuple):
    """A join, and the replies that come to it; the sequence of each is its place, from 1."""

    plan: Plan
    replies: list[Reply]
    choose: Random


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A join of a single step and two lists, any of them absent; every policy; perhaps a deadline."""
    names = sorted(draw(st.sets(st.sampled_from(["a", "x", "y"]), min_size=1).filter(lambda names: names != {"a"})))
    most = BRANCHES_MAX if set(names) & {"x", "y"} else len(names)
    wait = draw(st.sampled_from(["all", *range(1, most + 1)]))
    policy = JoinPolicy(
        wait=wait,
        min_done=draw(st.integers(0, wait if isinstance(wait, int) else most)),
        failed=draw(st.sampled_from([None, "fail", "skip", "pass"])),
        deadline_s=1.0,
    )
    steps = {name: Step(agent="h", each=f"{name}s" if name != "a" else "") for name in names}
    steps["merge"] = Step(agent="h", after=names, join=policy)
    plan = check_flow(flow_of(steps, LISTS, on_error=draw(st.sampled_from(["fail", "continue"]))))
    replies = [reply for name in names for reply in _replies(draw, plan, name)]
    if draw(st.booleans()):
        replies.append(_reply(plan, DEADLINE, 0, 0, Skipped(reason="the deadline")))
    return Case(plan, draw(st.permutations(replies)), draw(st.randoms(use_true_random=False)))


def _replies(draw: st.DrawFn, plan: Plan, name: str) -> list[Reply]:
    if not plan.step(name).each:
        return [_reply(plan, name, 0, 1, _outcome(draw, name))]
    count = draw(st.integers(0, BRANCHES_MAX))
    if not count:
        return [_reply(plan, name, 0, 0, Skipped(reason="empty"))]
    branches = [(branch_name(name, index), index) for index in range(count)]
    return [_reply(plan, branch, index, count, _outcome(draw, branch)) for branch, index in branches]


def _outcome(draw: st.DrawFn, branch: str) -> Outcome:
    if draw(st.integers(0, 3)) == 0:
        return Failed(error=Error(step=branch, type="Oops", message=branch))
    return Done(output=Raw(f'"{branch}"'.encode()))


def _reply(plan: Plan, branch: str, index: int, count: int, outcome: Outcome) -> Reply:
    return Reply(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run="r",
        step="merge",
        branch=branch,
        index=index,
        count=count,
        outcome=outcome,
        start_seq=1,
    )


class Broker:
    """The join's subject with its compare-and-swap, the create-only handoff, and the replies not acked."""

    def __init__(self, case: Case) -> None:
        self.plan, self.choose = case.plan, case.choose
        self.replies = dict(enumerate(case.replies, start=1))
        self.unacked = set(self.replies)
        self.versions: list[Join] = []
        self.handoffs: list[Handoff] = []
        """What was stored; at most one, as it is create-only."""
        self.closings: list[Handoff] = []
        """What anybody tried to store."""

    def update(self, join: Join, last: int) -> bool:
        if last != len(self.versions):
            return False
        self.versions.append(join)
        return True

    def create(self, handoff: Handoff) -> None:
        self.closings.append(handoff)
        self.handoffs = self.handoffs or [handoff]


def merger(broker: Broker, crashes: bool) -> Iterator[None]:
    """A merger process: it takes batches of replies in the steps of `Joiner`, and others come between any two.

    One that `crashes` may die at any of them; its replies then come again, to others.
    """
    known: Join | None = None
    last = 0
    while broker.unacked:
        wanted = sorted(broker.replies if crashes else broker.unacked)
        batch = broker.choose.sample(wanted, broker.choose.randint(1, len(wanted)))
        replies = [(seq, broker.replies[seq]) for seq in batch]
        yield
        while (join := arrive(broker.plan, known, replies)) != known:
            yield
            if broker.update(join, last):
                last = len(broker.versions)
                break
            known, last = broker.versions[-1], len(broker.versions)
        known = join
        yield
        if join.closed and any(reply.branch in join.arrived for _, reply in replies):
            broker.create(closing(broker.plan, join))
        yield
        broker.unacked.difference_update(batch)


def interleaved(case: Case) -> Broker:
    """Run up to four merger processes, one step of one of them at a time; those that crash are replaced."""
    broker = Broker(case)
    processes = [merger(broker, crashes=True) for _ in range(case.choose.randint(0, 3))]
    survivor = merger(broker, crashes=False)
    while broker.unacked:
        process = case.choose.choice([survivor, *processes])
        next(process, None)
        if process is not survivor and case.choose.randint(0, 9) == 0:
            processes[processes.index(process)] = merger(broker, crashes=True)
    return broker


MANY = settings(max_examples=150, deadline=None)


def closed(case: Case) -> Broker:
    """The same, of a join that did close: no branch failed so that it ended the run."""
    broker = interleaved(case)
    assume(broker.versions[-1].closed)
    return broker


@MANY
@given(cases())
def test_join_that_a_failed_branch_ends_is_left_open_and_any_other_closes(case: Case) -> None:
    broker = interleaved(case)
    record = broker.versions[-1]
    fatal = [name for name in record.failed if case.plan.on_failed_branch("merge", name) == "fail"]
    assert record.closed == (not fatal) == bool(broker.handoffs)


@MANY
@given(cases())
def test_join_closes_once_whatever_order_its_replies_come_in(case: Case) -> None:
    broker = closed(case)

    assert [join.closed for join in broker.versions] == [False] * (len(broker.versions) - 1) + [True]
    assert broker.closings
    assert all(handoff == broker.handoffs[0] for handoff in broker.closings)


@MANY
@given(cases())
def test_closing_handoff_names_exactly_what_is_in_the_record_in_the_order_of_the_flow(case: Case) -> None:
    broker = closed(case)
    record, (handoff,) = broker.versions[-1], broker.handoffs

    assert {branch.name: branch.seq for branch in handoff.branches} == record.arrived
    assert len(handoff.branches) == len(record.arrived)
    order = [broker.replies[branch.seq] for branch in handoff.branches]
    sources = [*case.plan.sources["merge"], DEADLINE]
    places = [(sources.index(case.plan.name_of(reply.branch)), reply.index) for reply in order]
    assert places == sorted(places)
    assert all(reply.branch == branch.name for reply, branch in zip(order, handoff.branches, strict=True))


@MANY
@given(cases())
def test_merger_gets_the_named_branches_that_ended_well_and_the_errors_that_pass(case: Case) -> None:
    broker = closed(case)
    (handoff,) = broker.handoffs
    named = [broker.replies[branch.seq] for branch in handoff.branches]
    state = state_of_join(case.plan, handoff, named)

    for source in case.plan.sources["merge"]:
        values = [
            expected
            for reply in named
            if case.plan.name_of(reply.branch) == source
            for expected in _expected(case.plan.on_failed_branch("merge", reply.branch), reply)
        ]
        if case.plan.step(source).each:
            assert decode(state.outputs[source]) == values
        else:
            assert [decode(state.outputs[source])] if source in state.outputs else values == []
    failed = [reply.branch for reply in named if isinstance(reply.outcome, Failed)]
    assert [error.step for error in state.errors] == failed


def _expected(on_failed: OnFailedBranch, reply: Reply) -> list[Any]:
    match reply.outcome:
        case Done():
            return [reply.branch]
        case Failed() if on_failed == "pass":
            return [{"error": {"step": reply.branch, "type": "Oops", "message": reply.branch}}]
        case _:
            return []


@MANY
@given(cases())
def test_join_waits_for_what_its_policy_says(case: Case) -> None:
    broker = closed(case)
    policy, record, (handoff,) = case.plan.join_policy("merge"), broker.versions[-1], broker.handoffs
    done = [branch for branch in record.arrived if isinstance(_by_name(broker)[branch].outcome, Done)]

    assert done_count(record) == len(done)
    enough = isinstance(policy.wait, int) and len(done) >= policy.wait
    assert enough or DEADLINE in record.arrived or len(record.arrived) == len(set(_by_name(broker)) - {DEADLINE})
    assert (handoff.error.type if handoff.error else None) == ("JoinShort" if len(done) < policy.min_done else None)


def _by_name(broker: Broker) -> dict[str, Reply]:
    return {reply.branch: reply for reply in broker.replies.values()}
