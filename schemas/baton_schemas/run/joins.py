"""A join as pure functions: who has arrived, whether that is enough, and the handoff that closes it."""

from __future__ import annotations

from collections.abc import Iterable

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import VERSION, Branch, Error, Failed, Handoff, Join, Reply
from baton_schemas.wire.names import DEADLINE, JOIN, branch_name


def arrive(plan: Plan, join: Join | None, replies: Iterable[tuple[int, Reply]]) -> Join:
    """Return the join record after these replies (each with its stream sequence) have arrived.

    A branch that is in the record already changes nothing; a closed record never changes. The reply named
    `deadline`, which a timer sends, closes the join with what is there. `replies` are of one run and one
    step, and at least one.
    """
    if join is not None and join.closed:
        return join
    expected = dict(join.expected) if join else {}
    arrived = dict(join.arrived) if join else {}
    failed = list(join.failed) if join else []
    copied = join.copied if join else False
    head: Reply | Join | None = join
    for seq, reply in replies:
        head = head or reply
        copied = copied or reply.copied
        if reply.branch != DEADLINE:
            expected[plan.name_of(reply.branch)] = reply.count
        if reply.branch in arrived:
            continue
        arrived[reply.branch] = seq
        if isinstance(reply.outcome, Failed):
            failed.append(reply.branch)
    assert head is not None
    return Join(
        v=VERSION,
        flow=plan.flow.name,
        digest=plan.digest,
        run=head.run,
        step=head.step,
        start_seq=head.start_seq,
        expected=expected,
        arrived=arrived,
        failed=failed,
        closed=_enough(plan, head.step, expected, arrived, failed),
        copied=copied,
    )


def closing(plan: Plan, join: Join) -> Handoff:
    """Return the handoff that closes a join: it follows from the record alone, and names its branches."""
    branches = [Branch(name=name, seq=join.arrived[name]) for name in _in_flow_order(plan, join)]
    return Handoff(
        v=VERSION,
        flow=join.flow,
        digest=join.digest,
        run=join.run,
        step=join.step,
        source=JOIN,
        start_seq=join.start_seq,
        branches=branches,
        error=shortfall(plan, join.step, done_count(join), len(join.arrived)),
        copied=join.copied,
    )


def done_count(join: Join) -> int:
    """Return how many branches ended well: neither failed nor word of an empty list or of the deadline."""
    return _done_count(join.expected, join.arrived, join.failed)


def shortfall(plan: Plan, step: str, done: int, arrived: int) -> Error | None:
    """Return the error with which a step that joins fails when too few of its branches ended well."""
    needed = plan.join_policy(step).min_done
    if done >= needed:
        return None
    return Error(
        step=step,
        type="JoinShort",
        message=f"{done} of {arrived} branches ended well; min_done is {needed}",
    )


def _enough(plan: Plan, step: str, expected: dict[str, int], arrived: dict[str, int], failed: list[str]) -> bool:
    if any(plan.on_failed_branch(step, branch) == "fail" for branch in failed):
        return False  # the run has failed: nothing of it may start
    wait = plan.join_policy(step).wait
    if DEADLINE in arrived or (isinstance(wait, int) and _done_count(expected, arrived, failed) >= wait):
        return True
    if any(source not in expected for source in plan.sources[step]):
        return False
    return len(arrived) >= sum(max(count, 1) for count in expected.values())


def _done_count(expected: dict[str, int], arrived: dict[str, int], failed: list[str]) -> int:
    empty = sum(1 for count in expected.values() if count == 0)
    return len(arrived) - len(failed) - empty - (DEADLINE in arrived)


def _in_flow_order(plan: Plan, join: Join) -> list[str]:
    names: list[str] = []
    for source in plan.sources[join.step]:
        branches = (branch_name(source, index) for index in range(join.expected.get(source, 0)))
        names += [name for name in (source, *branches) if name in join.arrived]
    if DEADLINE in join.arrived:
        names.append(DEADLINE)
    return names
