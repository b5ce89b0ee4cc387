"""Poison: a handoff of a stranger's that nobody could do is taken out of the way, whatever is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import After, Begins, Branch, Cause, Handoff, Joined, Started, Woken
from baton_schemas.wire.outcomes import Blob, Error, Failed, State

from .servers import NatsServer
from .team import Team, first_of, flow_of, team, value_of

FLOW = flow_of(
    {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"])},
    {"numbers": Field(type="list[int]")},
    {name: {"concurrency": 1, "max_in_flight": 1, "max_attempts": 1} for name in ("each", "merge")},
)
FAR = 10**30
"""A sequence that no server has, and that none can read."""


async def same(item: int) -> int:
    return item


async def merge(each: list[int]) -> list[int]:
    return each


HANDLERS = {"each": same, "merge": merge}


def of_each(t: Team, cause: Cause | None = None, **changed: Any) -> Handoff:
    """The first branch of a run, as `start` would write it, with fields changed."""
    first = first_of(t.plan, "bad", {"each": [1, 2, 3]}, numbers=[1, 2, 3]).message
    assert isinstance(first, Handoff)
    return replace(first, cause=cause or first.cause, **changed)


def of_merge(t: Team, cause: Cause, **changed: Any) -> Handoff:
    return Handoff(
        run="bad", flow=t.plan.flow.name, digest=t.plan.digest, start_seq=1, step="merge", cause=cause, **changed
    )


def begins(t: Team, **changed: Any) -> Started:
    return Started(begins=replace(Begins(flow_body=Raw(t.plan.body)), **changed))


def sha(name: str) -> State:
    return State(blobs={"numbers": Blob(sha256=name, size_bytes=5)})


FAILED = Failed(error=Error(step="x", type="X", message="x"))
POISON: dict[str, Callable[[Team], Handoff]] = {
    "the name of a step as long as a message": lambda t: of_each(t, step="\x01" * 100_000),
    "a first handoff at a sequence that nobody has": lambda t: of_each(t, Started(), digest="0" * 64, start_seq=FAR),
    "a first handoff before the log began": lambda t: of_each(t, Started(), digest="0" * 64, start_seq=-5),
    "a waking of a sequence that nobody has": lambda t: of_each(t, Woken(seq=FAR, number=1)),
    "a waking of a number that nobody counts to": lambda t: of_each(t, Woken(seq=FAR, number=FAR)),
    "a branch of a run that began nowhere": lambda t: of_each(t, Started(), start_seq=FAR),
    "a value under no hash": lambda t: of_merge(t, After(step="each"), state=sha("a b")),
    "a value under all hashes": lambda t: of_merge(t, After(step="each"), state=sha("*")),
    "an item under no hash": lambda t: of_each(
        t, branch=Branch(index=0, count=3, blob=Blob(sha256="a b", size_bytes=5))
    ),
    "a list under no hash": lambda t: of_each(t, state=sha("a b")),
    "errors under no hash": lambda t: of_merge(t, Joined(), state=State(blobs={"errors": sha("x").blobs["numbers"]})),
    "no list to fan out over": lambda t: of_each(t, state=State(input={"numbers": Raw(b"5")})),
    "a longer list than is allowed": lambda t: of_each(
        t, state=State(input={"numbers": Raw(b"[" + b",".join([b"1"] * 200) + b"]")})
    ),
    "a deadline after the end of time": lambda t: of_each(t, begins(t, deadline_s=1e300)),
    "a join with branches that never were": lambda t: of_merge(t, Joined(branches={"each": "0-2"}, counts={"each": 3})),
    "a join with a million branches": lambda t: of_merge(
        t, Joined(branches={"each": "0-999999"}, counts={"each": 1_000_000})
    ),
    "a join with branches of a strange step": lambda t: of_merge(
        t, Joined(branches={"nobody": "0-2"}, counts={"nobody": 3})
    ),
    "a join with branches that are no numbers": lambda t: of_merge(t, Joined(branches={"each": "x"})),
    "a step after one that the flow has not": lambda t: of_merge(t, After(step="nobody", outcome=FAILED)),
}


@pytest.mark.parametrize("what", POISON)
async def test_handoff_that_nobody_could_do_is_out_of_the_way(what: str, server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS, branches_max=100, start=False) as t:
        poison = POISON[what](t)
        actor = t.actor("merge" if poison.step == "merge" else "each")
        stands_as = replace(poison, step=poison.step[:20].replace("\x01", "x"))
        if isinstance(poison.cause, Woken):
            stands_as = replace(stands_as, cause=replace(poison.cause, number=1))
        await t.bus.publisher.append(t.bus.subjects.of(actor, stands_as), encode(poison))
        async with t.process(grace_s=0.5):
            assert value_of((await t.run(numbers=[1, 2, 3])).outcome) == [1, 2, 3]
            await t.until_settled("handoff", "each")
            await t.until_settled("handoff", "merge")


async def test_step_whose_errors_so_far_are_no_errors_fails_and_holds_no_place(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        state = State(blobs={"errors": await t.bus.blobs.put(b'"no list"')})
        poison = of_merge(t, Joined(), state=state)
        await t.bus.publisher.append(t.bus.subjects.of(t.actor("merge"), poison), encode(poison))
        await t.until_settled("handoff", "merge")
        assert value_of((await t.run(numbers=[1, 2, 3])).outcome) == [1, 2, 3]
        assert (await t.state("bad")).status == "failed"
