"""What a later release wrote into the log is waited for: it is never taken for absent, or for wrong.

So it is in an upgrade: of the messages of one run some are the later release's, and a worker of this one is handed some
that it can read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from baton_actors.steps import joiner as joiner_module
from baton_schemas.errors import NewerMessage
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.facts import Retry as Retried
from baton_schemas.wire.messages import After, Handoff, Join, Joined, Note, Reply, Result
from baton_schemas.wire.outcomes import Done, Error

from .servers import WAIT_S, NatsServer
from .team import Team, first_of, flow_of, kind_of, team, value_of
from .test_newer_messages import of_the_future, until_given_back

FLOW = flow_of(
    {
        "each": Step(agent="each", each="numbers"),
        "merge": Step(agent="merge", after=["each"]),
        "last": Step(agent="last", after=["merge"]),
    },
    {"numbers": Field(type="list[int]")},
    {name: {"max_attempts": 2} for name in ("each", "merge", "last")},
)
RUN = "upgraded"


class Handlers:
    """Handlers that say what they were called with."""

    def __init__(self) -> None:
        self.called: list[object] = []
        self.fails = False

    async def each(self, item: int) -> int:
        self.called.append(item)
        if self.fails:
            raise ValueError("no")
        return item

    async def merge(self, each: list[int]) -> list[int]:
        self.called.append(each)
        return each

    async def last(self, merge: list[int]) -> list[int]:
        return merge

    @property
    def all(self) -> dict[str, Any]:
        return {"each": self.each, "merge": self.merge, "last": self.last}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton_actors.processes.worker.NEWER_RETRY_S", 0.05)
    monkeypatch.setattr(joiner_module, "NEWER_RETRY_S", 0.05)


async def write(t: Team, subject: str, message: Any, *, newer: bool = True) -> int:
    body = encode(message)
    return await t.bus.publisher.append(subject, of_the_future(body) if newer else body)


def head(t: Team) -> dict[str, Any]:
    return {"run": RUN, "flow": t.plan.flow.name, "digest": t.plan.digest, "start_seq": 1}


async def note(t: Team) -> None:
    retry = Note(run=RUN, step="each-0", fact=Retried(attempt=1, error=Error(step="each-0", type="X", message="x")))
    await write(t, t.bus.subjects.note(t.actor("each"), RUN, "each-0", "retry-1"), retry)


async def record(t: Team) -> None:
    reply = Reply(**head(t), step="merge", source="each", each=True, count=1, outcome=Done())
    await write(t, t.bus.subjects.of(t.actor("merge"), reply), reply)


async def result(t: Team) -> None:
    end = Result(**head(t), status="cancelled")
    await write(t, t.bus.subjects.of("", end), end)


async def link(t: Team) -> None:
    first = Join(**head(t), step="merge", number=1, came={"each": "0"}, counts={"each": 1})
    await write(t, t.bus.subjects.join(t.actor("merge"), RUN, "merge", 1), first)


BEFORE: dict[str, tuple[Callable[[Team], Awaitable[None]], str]] = {
    "a note on the attempt": (note, "handoff-flow--each"),
    "the record that decides the step": (record, "handoff-flow--each"),
}


@pytest.mark.parametrize("what", BEFORE)
async def test_message_of_a_later_version_that_stands_where_ours_belongs_is_waited_for(
    what: str, server: NatsServer, namespace: str
) -> None:
    handlers = Handlers()
    handlers.fails = what == "a note on the attempt"
    writes, consumer = BEFORE[what]
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        async with t.process(grace_s=0.5):
            await writes(t)
            await t.client.start(t.plan, {"numbers": [1]}, run_id=RUN)
            await until_given_back(t, namespace, consumer, 1_000)
            handlers.fails = False
            assert value_of((await t.run(numbers=[2, 3])).outcome) == [2, 3]
        assert handlers.called.count(1) <= 1
        assert await rejections(t) == []
        assert "result" not in await t.kinds(RUN)


async def test_join_with_a_link_of_a_later_version_is_waited_for(server: NatsServer, namespace: str) -> None:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        await t.client.start(t.plan, {"numbers": [1]}, run_id=RUN)
        async with t.process("each", grace_s=0.5):
            await t.until_settled("handoff", "each")
        await link(t)
        async with t.process(grace_s=0.5):
            await until_given_back(t, namespace, "reply-flow--merge", 1_000)
            assert value_of((await t.run(numbers=[2, 3])).outcome) == [2, 3]
        assert "result" not in await t.kinds(RUN)


async def test_join_whose_first_link_stood_there_before_its_run_began_ends_the_run(
    server: NatsServer, namespace: str
) -> None:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        await link(t)
        run = await t.client.start(t.plan, {"numbers": [1]}, run_id=RUN)
        async with t.process(grace_s=0.5):
            end = await run.ended(WAIT_S)
        assert (end.status, "is no link of the join" in end.reason) == ("failed", True)


async def test_step_of_a_run_whose_end_a_later_version_wrote_is_not_begun(server: NatsServer, namespace: str) -> None:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        await t.client.start(t.plan, {"numbers": [1]}, run_id=RUN)
        await result(t)
        async with t.process(grace_s=0.5):
            await until_given_back(t, namespace, "handoff-flow--each", 1_000)
            assert value_of((await t.run(numbers=[2])).outcome) == [2]
        assert 1 not in handlers.called


async def test_handoff_of_a_flow_that_a_later_version_began_is_waited_for(server: NatsServer, namespace: str) -> None:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        first = first_of(t.plan, RUN, {"each": [1]}, numbers=[1])
        seq = await write(t, t.bus.subjects.of(*first), first.message)
        ours = Handoff(**head(t) | {"digest": "0" * 64, "start_seq": seq}, step="last", cause=After(step="merge"))
        await write(t, t.bus.subjects.of(t.actor("last"), ours), ours, newer=False)
        async with t.process(grace_s=0.5):
            await until_given_back(t, namespace, "handoff-flow--last", seq + 1)
            assert value_of((await t.run(numbers=[2])).outcome) == [2]
        assert await rejections(t) == []


async def test_join_with_a_branch_of_a_later_version_is_waited_for(server: NatsServer, namespace: str) -> None:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.all, start=False) as t:
        first = first_of(t.plan, RUN, {"each": [1]}, numbers=[1])
        await write(t, t.bus.subjects.of(*first), first.message)
        await record(t)
        closing = Handoff(**head(t), step="merge", cause=Joined(branches={"each": "0"}, counts={"each": 1}))
        seq = await write(t, t.bus.subjects.of(t.actor("merge"), closing), closing, newer=False)
        async with t.process(grace_s=0.5):
            await until_given_back(t, namespace, "handoff-flow--merge", seq)
            assert value_of((await t.run(numbers=[2])).outcome) == [2]
        assert [kind for kind in await t.kinds(RUN) if kind in ("outcome", "result")] == []


async def test_client_says_that_a_later_version_wrote_the_result(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, Handlers().all, start=False) as t:
        await result(t)
        for flow in (FLOW.name, "*"):
            with pytest.raises(NewerMessage, match="99"):
                await t.client.run(RUN, flow).result(WAIT_S)


async def rejections(t: Team) -> list[Rejected]:
    """What was rejected, of any run."""
    pattern = t.bus.subjects.rejected("*", "*", "*")
    entries = [entry async for entry in t.bus.log.read([pattern]) if kind_of(entry) == "note"]
    return [e.message.fact for e in entries if isinstance(e.message, Note) and isinstance(e.message.fact, Rejected)]
