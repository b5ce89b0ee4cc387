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
from baton_schemas.run.joins import Chain
from baton_schemas.run.lifecycle import Create, Gathered, View, decide
from baton_schemas.run.refs import StepRef, joined, named, replied
from baton_schemas.wire.messages import Handoff, Join, Joined, Reply
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Skipped, State

from .team import flow_of

LISTS = {"xs": Field(type="list"), "ys": Field(type="list")}
BRANCHES_MAX = 4


class Case(NamedTuple):
    """A join, and the replies that come to it."""

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
        replies.append(_reply(plan, DEADLINE, None, 0, Skipped(reason="the deadline")))
    return Case(plan, draw(st.permutations(replies)), draw(st.randoms(use_true_random=False)))


def _replies(draw: st.DrawFn, plan: Plan, name: str) -> list[Reply]:
    if not plan.step(name).each:
        return [_reply(plan, name, None, 1, _outcome(draw, name))]
    count = draw(st.integers(0, BRANCHES_MAX))
    if not count:
        return [_reply(plan, name, 0, 0, Skipped(reason="empty"))]
    return [_reply(plan, name, index, count, _outcome(draw, StepRef(name, index).token)) for index in range(count)]


def _outcome(draw: st.DrawFn, branch: str) -> Outcome:
    if draw(st.integers(0, 3)) == 0:
        return Failed(error=Error(step=branch, type="Oops", message=branch))
    return Done(output=Raw(f'"{branch}"'.encode()))


def _reply(plan: Plan, source: str, index: int | None, count: int, outcome: Outcome) -> Reply:
    return Reply(
        flow=plan.flow.name,
        digest=plan.digest,
        run="r",
        step="merge",
        source=source,
        index=index or 0,
        count=count,
        each=index is not None,
        state=State(input={source: Raw(b"1")}),
        outcome=outcome,
        start_seq=1,
    )


class Broker:
    """The chain of the join and its closing handoff, both create-only, and the replies that are not acked."""

    def __init__(self, case: Case) -> None:
        self.plan, self.choose = case.plan, case.choose
        self.replies = dict(enumerate(case.replies, start=1))
        self.unacked = set(self.replies)
        self.links: list[Join] = []
        self.handoffs: list[Handoff] = []
        """What was stored; at most one, as it is create-only."""
        self.closings: list[Handoff] = []
        """What anybody tried to store."""

    @property
    def chain(self) -> Chain:
        """The chain as somebody reads it who knows nothing of it."""
        chain = Chain(self.plan, self.replies[1])
        for link in self.links:
            chain.apply(link)
        return chain

    def create_link(self, link: Join) -> bool:
        if link.number != len(self.links) + 1:
            return False
        self.links.append(link)
        return True

    def create(self, handoff: Handoff) -> None:
        self.closings.append(handoff)
        self.handoffs = self.handoffs or [handoff]


def merger(broker: Broker, crashes: bool) -> Iterator[None]:
    """A merger process: it takes batches of replies in the steps of `Joiner`, and others come between any two.

    One that `crashes` may die at any of them; its replies then come again, to others.
    """
    chain = Chain(broker.plan, broker.replies[1])
    while broker.unacked:
        wanted = sorted(broker.replies if crashes else broker.unacked)
        batch = broker.choose.sample(wanted, broker.choose.randint(1, len(wanted)))
        replies = [broker.replies[seq] for seq in batch]
        yield
        while (link := chain.link(replies)) is not None:
            yield
            if broker.create_link(link):
                chain.apply(link)
                break
            for other in broker.links[chain.number :]:
                chain.apply(other)
        yield
        if chain.closed and any(chain.has(reply) for reply in replies):
            create, *_ = decide(View(broker.plan), Gathered(chain))
            assert isinstance(create, Create)
            assert isinstance(create.message, Handoff)
            broker.create(create.message)
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


MANY = settings(max_examples=100, deadline=None)


def closed(case: Case) -> Broker:
    """The same, of a join that did close: no branch failed so that it ended the run."""
    broker = interleaved(case)
    assume(broker.chain.closed)
    return broker


def in_chain(broker: Broker) -> dict[str, Reply]:
    """The replies that the chain has, by branch."""
    chain = broker.chain
    return {replied(reply): reply for reply in broker.replies.values() if chain.has(reply)}


def cause_of(handoff: Handoff) -> Joined:
    cause = joined(handoff)
    assert cause is not None
    return cause


@MANY
@given(cases())
def test_join_that_a_failed_branch_ends_is_left_open_and_any_other_closes(case: Case) -> None:
    broker = interleaved(case)
    failed = [source for link in broker.links for source in link.failed]
    fatal = [source for source in failed if case.plan.on_failed_branch("merge", source) == "fail"]
    assert broker.chain.closed == (not fatal) == bool(broker.handoffs)


@MANY
@given(cases())
def test_join_closes_once_whatever_order_its_replies_come_in(case: Case) -> None:
    broker = closed(case)
    chain, closed_after = Chain(case.plan, broker.replies[1]), []
    for link in broker.links:
        chain.apply(link)
        closed_after.append(chain.closed)

    assert closed_after == [False] * (len(broker.links) - 1) + [True]
    assert broker.closings
    assert all(handoff == broker.handoffs[0] for handoff in broker.closings)
    assert broker.handoffs[0] == broker.chain.closing()


@MANY
@given(cases())
def test_each_link_names_only_what_no_link_before_it_does(case: Case) -> None:
    broker = interleaved(case)
    chain = Chain(case.plan, broker.replies[1])
    names: list[str] = []
    for number, link in enumerate(broker.links, start=1):
        assert link.number == number
        assert not chain.deadline or not link.deadline
        names += named(Joined(branches=link.came, deadline=link.deadline))
        assert set(link.failed) <= set(link.came)
        chain.apply(link)
    assert len(names) == len(set(names))
    assert set(names) <= {replied(reply) for reply in case.replies}


@MANY
@given(cases())
def test_closing_handoff_names_exactly_what_is_in_the_chain_in_the_order_of_the_flow(case: Case) -> None:
    broker = closed(case)
    (handoff,) = broker.handoffs
    names = named(cause_of(handoff))

    assert set(names) == set(in_chain(broker))
    assert len(names) == len(set(names))
    order = [in_chain(broker)[name] for name in names]
    sources = [*case.plan.sources["merge"], DEADLINE]
    places = [(sources.index(reply.source), reply.index) for reply in order]
    assert places == sorted(places)
    counts = {reply.source: reply.count for reply in order if reply.source != DEADLINE}
    assert cause_of(handoff).counts == counts


@MANY
@given(cases())
def test_merger_gets_the_named_branches_that_ended_well_and_the_errors_that_pass(case: Case) -> None:
    broker = closed(case)
    (handoff,) = broker.handoffs
    replies = [in_chain(broker)[name] for name in named(cause_of(handoff))]
    state = state_of_join(case.plan, handoff, replies)

    for source in case.plan.sources["merge"]:
        values = [
            expected
            for reply in replies
            if reply.source == source
            for expected in _expected(case.plan.on_failed_branch("merge", source), reply)
        ]
        if case.plan.step(source).each:
            assert decode(state.outputs[source]) == values
        else:
            assert [decode(state.outputs[source])] if source in state.outputs else values == []
    failed = [replied(reply) for reply in replies if isinstance(reply.outcome, Failed)]
    assert [error.step for error in state.errors] == failed


@MANY
@given(cases())
def test_merger_sees_what_each_reply_carries_also_word_of_an_empty_list_and_of_the_deadline(case: Case) -> None:
    broker = closed(case)
    (handoff,) = broker.handoffs
    replies = [in_chain(broker)[name] for name in named(cause_of(handoff))]

    assert set(state_of_join(case.plan, handoff, replies).input) == {reply.source for reply in replies}


def _expected(on_failed: OnFailedBranch, reply: Reply) -> list[Any]:
    match reply.outcome:
        case Done():
            return [replied(reply)]
        case Failed() if on_failed == "pass":
            return [{"error": {"step": replied(reply), "type": "Oops", "message": replied(reply)}}]
        case _:
            return []


@MANY
@given(cases())
def test_join_waits_for_what_its_policy_says(case: Case) -> None:
    broker = closed(case)
    policy, came, (handoff,) = case.plan.join_policy("merge"), in_chain(broker), broker.handoffs
    done = [branch for branch, reply in came.items() if isinstance(reply.outcome, Done)]

    enough = isinstance(policy.wait, int) and len(done) >= policy.wait
    everybody = {replied(reply) for reply in case.replies} - {DEADLINE}
    assert enough or DEADLINE in came or set(came) == everybody
    error = cause_of(handoff).error
    assert (error.type if error else None) == ("JoinShort" if len(done) < policy.min_done else None)
    if error:
        branches = [reply for reply in came.values() if reply.count]
        assert error.message == f"{len(done)} of {len(branches)} branches ended well; min_done is {policy.min_done}"
