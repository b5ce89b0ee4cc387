"""The chain of a join: what it closes with follows from its links alone, and its messages stay small."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.joins import Chain
from baton_schemas.run.refs import indices, named
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Handoff, Join, Joined, Reply
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Skipped

from .team import flow_of

LONG = "x" * 57
"""The longest name of a step with ten thousand branches."""
OTHER = "y" * 57
DONE, EMPTY = Done(), Skipped(reason="empty")


def plan_of(*names: str, policy: JoinPolicy | None = None) -> Plan:
    """Fan-outs over the lists of the input, and the step `merge` that joins all of them."""
    steps = {name: Step(agent="h", each=f"in_{name}") for name in names}
    steps["merge"] = Step(agent="h", after=list(names), join=policy or JoinPolicy(failed="skip"))
    return check_flow(flow_of(steps, {f"in_{name}": Field(type="list") for name in names}))


def reply(plan: Plan, source: str, index: int = 0, count: int = 1, ended: Outcome = DONE) -> Reply:
    return Reply(
        flow=plan.flow.name,
        digest=plan.digest,
        run="r",
        step="merge",
        source=source,
        index=index,
        count=count,
        each=source != DEADLINE,
        outcome=ended,
        start_seq=1,
    )


def deadline(plan: Plan) -> Reply:
    return reply(plan, DEADLINE, 0, 0, Skipped(reason="the deadline of 1 s"))


def failed(source: str, index: int) -> Failed:
    return Failed(error=Error(step=f"{source}-{index}", type="Oops", message="no"))


def chain_of(plan: Plan, links: Iterable[Join]) -> Chain:
    chain = Chain(plan, reply(plan, plan.sources["merge"][0]))
    for link in links:
        chain.apply(link)
    return chain


def grown(plan: Plan, *batches: list[Reply]) -> tuple[Chain, list[Join]]:
    """The chain of these batches, one after the other, and its links."""
    chain, links = chain_of(plan, []), []
    for batch in batches:
        if (link := chain.link(batch)) is not None:
            links.append(link)
            chain.apply(link)
    return chain, links


def cause_of(handoff: Handoff) -> Joined:
    assert isinstance(handoff.cause, Joined)
    return handoff.cause


# ---- links -----------------------------------------------------------------------------------------


def test_link_has_what_is_new_and_nothing_of_what_the_chain_has() -> None:
    plan = plan_of("a", "b")
    first = [reply(plan, "a", 1, 3), reply(plan, "a", 0, 3, failed("a", 0))]
    chain, (one, two) = grown(plan, first, [*first, reply(plan, "a", 2, 3), reply(plan, "b", 0, 2)])

    assert (one.number, one.came, one.failed, one.counts) == (1, {"a": "0-1"}, {"a": "0"}, {"a": 3})
    assert (two.number, two.came, two.failed, two.counts) == (2, {"a": "2", "b": "0"}, {}, {"b": 2})
    assert (chain.number, chain.missing, chain.closed) == (2, 1, False)
    assert chain.link([*first, reply(plan, "b", 0, 2)]) is None


def test_reply_that_comes_twice_in_one_batch_is_named_once() -> None:
    plan = plan_of("a")
    _, (link,) = grown(plan, [reply(plan, "a", 1, 3)] * 2)

    assert link.came == {"a": "1"}


def test_reply_that_comes_late_changes_nothing() -> None:
    plan = plan_of("a", policy=JoinPolicy(wait=1, failed="skip"))
    chain, links = grown(plan, [reply(plan, "a", 2, 3)])
    handoff = chain.closing()

    assert chain.closed
    assert chain.link([reply(plan, "a", 0, 3), deadline(plan)]) is None
    assert not chain.has(reply(plan, "a", 0, 3))
    assert chain.closing() == handoff == chain_of(plan, links).closing()


def test_link_that_somebody_wrote_after_the_one_that_closed_changes_nothing() -> None:
    plan = plan_of("a", policy=JoinPolicy(wait=1, failed="skip"))
    chain, links = grown(plan, [reply(plan, "a", 2, 3)])
    handoff = chain.closing()
    chain.apply(Join(run="r", flow="flow", step="merge", number=2, came={"a": "0"}))

    assert chain.closing() == handoff
    assert chain.number == 2
    assert len(links) == 1


def test_deadline_closes_with_what_has_come_and_with_nothing() -> None:
    plan = plan_of("a", "b", policy=JoinPolicy(deadline_s=1.0, min_done=0, failed="skip"))
    nothing, _ = grown(plan, [deadline(plan)])
    some, _ = grown(plan, [reply(plan, "a", 1, 3), reply(plan, "b", 0, 0, EMPTY)], [deadline(plan)])

    assert nothing.closed
    assert cause_of(nothing.closing()) == Joined(deadline=True)
    assert named(cause_of(nothing.closing())) == [DEADLINE]
    assert cause_of(some.closing()) == Joined(branches={"a": "1", "b": "*"}, counts={"a": 3, "b": 0}, deadline=True)
    assert named(cause_of(some.closing())) == ["a-1", "b", DEADLINE]


def test_deadline_that_comes_with_the_last_reply_is_said() -> None:
    plan = plan_of("a", policy=JoinPolicy(deadline_s=1.0))
    chain, _ = grown(plan, [reply(plan, "a", 0, 1), deadline(plan)])

    assert cause_of(chain.closing()) == Joined(branches={"a": "0"}, counts={"a": 1}, deadline=True)


def test_join_of_empty_lists_closes_with_word_of_each() -> None:
    plan = plan_of("a", "b")
    chain, links = grown(plan, [reply(plan, "a", 0, 0, EMPTY)], [reply(plan, "b", 0, 0, EMPTY)])

    assert [link.came for link in links] == [{"a": "*"}, {"b": "*"}]
    assert cause_of(chain.closing()).branches == {"a": "*", "b": "*"}
    assert cause_of(chain.closing()).counts == {"a": 0, "b": 0}


def test_word_of_an_empty_list_is_no_branch_that_ended_well() -> None:
    plan = plan_of("a", "b", policy=JoinPolicy(min_done=2, failed="skip"))
    chain, _ = grown(plan, [reply(plan, "a", 0, 0, EMPTY), reply(plan, "b", 0, 1)])
    error = cause_of(chain.closing()).error

    assert chain.closed
    assert error is not None
    assert error.message == "1 of 1 branches ended well; min_done is 2"


def test_copied_reply_makes_the_closing_handoff_one_that_may_be_done_already() -> None:
    plan = plan_of("a")
    copied = Reply(**{**_fields(reply(plan, "a", 0, 2)), "copied": True})
    chain, links = grown(plan, [copied], [reply(plan, "a", 1, 2)])

    assert [link.copied for link in links] == [True, False]
    assert chain.closing().copied


def _fields(message: Reply) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


# ---- any number of writers ---------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(0, 12), st.booleans())
def test_writers_that_race_for_links_all_close_with_the_same_handoff(
    choose: Random, writers: int, count: int, timed: bool
) -> None:
    wait = choose.choice(["all", 1, 5])
    policy = JoinPolicy(wait=wait, min_done=0, failed="skip", deadline_s=1.0)  # type: ignore[arg-type]
    plan = plan_of("a", "b", policy=policy)
    ends: list[Outcome] = [failed("a", index) if choose.randint(0, 1) else DONE for index in range(count)]
    replies = [reply(plan, "a", index, count, ended) for index, ended in enumerate(ends)]
    replies += [reply(plan, "b", index, 3) for index in range(3)]
    replies += [deadline(plan)] if timed else []
    replies += [] if count else [reply(plan, "a", 0, 0, EMPTY)]
    stored: dict[int, Join] = {}
    chains = [chain_of(plan, []) for _ in range(writers)]
    waiting = [*replies, *choose.sample(replies, choose.randint(0, len(replies)))]  # some come twice
    choose.shuffle(waiting)
    closings: list[Handoff] = []
    while waiting:
        batch = [waiting.pop() for _ in range(choose.randint(1, min(4, len(waiting))))]
        chain = choose.choice(chains)
        while (link := chain.link(batch)) is not None:
            # The link of whoever was first counts; the others fold it and look again.
            chain.apply(stored.setdefault(link.number, link))
        if chain.closed:
            closings.append(chain.closing())

    assert closings
    whole = chain_of(plan, [stored[number] for number in sorted(stored)])
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert all(handoff == whole.closing() for handoff in closings)
    if wait == "all" and not timed:
        assert set(named(cause_of(whole.closing()))) == {
            f"{each.source}-{each.index}" if each.count else each.source for each in replies
        }


# ---- sizes -----------------------------------------------------------------------------------------


def test_ten_thousand_failed_branches_with_long_names_are_small_messages() -> None:
    plan = plan_of(LONG, policy=JoinPolicy(min_done=1, failed="skip"))
    replies = [reply(plan, LONG, index, 10_000, failed(LONG, index)) for index in range(10_000)]
    chain, (link,) = grown(plan, replies)

    assert len(encode(link)) < 1_000
    assert len(encode(chain.closing())) < 1_000
    assert decode(encode(chain.closing())) == chain.closing()
    assert cause_of(chain.closing()).error == Error(
        step="merge", type="JoinShort", message="0 of 10000 branches ended well; min_done is 1"
    )


@pytest.mark.parametrize("offset", [0, 1])
def test_indices_of_which_every_other_came_are_bounded(offset: int) -> None:
    plan = plan_of(LONG, OTHER, policy=JoinPolicy(deadline_s=1.0, failed="skip", min_done=0))
    replies = [
        reply(plan, source, index, 10_000, failed(source, index))
        for source in (LONG, OTHER)
        for index in range(offset, 10_000, 2)
    ]
    chain, (link, last) = grown(plan, replies, [deadline(plan)])

    # 25 kB for each list of indices: a link has those that came and those that failed, of two sources.
    assert len(encode(link)) < 101_000
    assert len(encode(last)) < 1_000
    assert len(encode(chain.closing())) < 51_000
    assert len(named(cause_of(chain.closing()))) == 10_001


def test_twice_ten_thousand_branches_that_come_in_any_order_close_with_two_ranges() -> None:
    plan = plan_of(LONG, OTHER)
    replies = [reply(plan, source, index, 10_000) for source in (LONG, OTHER) for index in range(10_000)]
    Random(6).shuffle(replies)
    chain, links = grown(plan, *(replies[start : start + 500] for start in range(0, len(replies), 500)))

    assert chain.closed
    assert cause_of(chain.closing()).branches == {LONG: "0-9999", OTHER: "0-9999"}
    assert len(links) == 40
    assert max(len(encode(link)) for link in links) < 4_000
    assert sum(len(indices(text)) for link in links for text in link.came.values()) == 20_000
    assert chain_of(plan, links).closing() == chain.closing()
