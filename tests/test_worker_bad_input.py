"""Bad bytes and foreign messages: each is kept, noted with its place, and blocks nobody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.messages import Begins, Handoff, Note, Reply, Started
from baton_schemas.wire.outcomes import Done, Error, Failed

from .servers import NatsServer
from .team import Team, first_of, flow_of, team, value_of

FLOW = flow_of(
    {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"])},
    {"numbers": Field(type="list[int]")},
    {"each": {"concurrency": 1}},
)


async def same(item: int) -> int:
    return item


async def merge(each: list[int]) -> list[int]:
    return each


HANDLERS = {"each": same, "merge": merge}


async def until_rejected(t: Team, seq: int) -> tuple[str, Rejected]:
    """Wait for the note on the rejected message with this sequence; return its run, and what it says."""
    async for entry in t.bus.log.follow([f"{t.bus.settings.namespace}.note.>"]):
        note = entry.message
        if isinstance(note, Note) and isinstance(note.fact, Rejected) and note.fact.seq == seq:
            return note.run, note.fact
    raise AssertionError("the log ended")


def first_handoff(t: Team, run: str, **changed: Any) -> Handoff:
    """What `start` would write for a run, with fields changed."""
    first = first_of(t.plan, run, {"each": [1, 2, 3]}, numbers=[1, 2, 3]).message
    assert isinstance(first, Handoff)
    return replace(first, **changed)


def with_body(body: bytes) -> Started:
    return Started(begins=Begins(flow_body=Raw(body)))


async def publish(t: Team, handoff: Handoff, body: bytes | None = None) -> int:
    """Write bytes on the subject of a handoff to the first step's actor, and return their sequence."""
    subject = t.bus.subjects.of(t.actor("each"), handoff)
    return await t.bus.publisher.append(subject, encode(handoff) if body is None else body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "invalid"),
        (b"[" * 5_000, "expected `object`"),
        (b'{"kind":"handoff","v":1}', "missing required field"),
        (b'{"kind":"task","v":1}', "expected a handoff"),
    ],
)
async def test_bytes_that_are_no_handoff_are_kept_noted_and_passed(
    body: bytes, reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        seq = await publish(t, first_handoff(t, "bad"), body)
        run, rejected = await until_rejected(t, seq)
        await t.until_settled("handoff", "each")

        assert reason in rejected.reason.lower()
        assert (run, rejected.subject) == ("bad", f"{namespace}.handoff.{t.actor('each')}.bad.each-0.start")
        kept = await t.bus.log.at(seq)
        assert kept is not None
        assert kept.data == body
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"step": "other-0"}, "has no step 'other-0'"),
        ({"digest": "0" * 32}, "digest"),
        ({"digest": "0" * 32, "cause": with_body(b'{"name":"x"}')}, "flow"),
        ({"digest": "0" * 32, "cause": Started(), "start_seq": 987_654}, "no first handoff"),
        ({"branch": None, "step": "each"}, "cannot be"),
    ],
)
async def test_handoff_that_fits_no_flow_is_rejected(
    changed: dict[str, Any], reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        seq = await publish(t, first_handoff(t, "bad", **changed))

        assert reason in (await until_rejected(t, seq))[1].reason
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]


async def test_handoff_on_the_subject_of_another_run_is_rejected(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        theirs = first_handoff(t, "theirs")
        seq = await publish(t, first_handoff(t, "ours"), encode(theirs))

        assert "run 'theirs'" in (await until_rejected(t, seq))[1].reason
        assert await t.kinds("theirs") == []


async def reply_to_merge(t: Team, run: str, source: str, **changed: Any) -> int:
    """Write a reply by hand beside those of the run's own branches, and return its sequence."""
    reply = Reply(
        flow="flow",
        digest=t.plan.digest,
        run=run,
        step="merge",
        source=source,
        outcome=Done(output=Raw(b"7")),
        start_seq=1,
    )
    body = changed.pop("body", None) or encode(replace(reply, **changed))
    subject = t.bus.subjects.of(t.actor("merge"), reply)
    return await t.bus.publisher.append(subject, body)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"source": "stranger", "body": b"no json"}, "malformed"),
        ({"source": "stranger", "digest": "0" * 32}, "digest"),
        ({"source": "stranger"}, "waits for no branch 'stranger'"),
        ({"source": "stranger", "outcome": Failed(error=Error(step="stranger", type="X", message="x"))}, "'stranger'"),
        ({"source": "each"}, "no branch 'each'"),
    ],
)
async def test_reply_that_fits_no_join_is_rejected_and_the_others_are_joined(
    changed: dict[str, Any], reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS, start=False) as t:
        run = await t.submit(numbers=[1, 2])
        seq = await reply_to_merge(t, run, **changed)
        async with t.process("each"):
            await t.until_settled("handoff", "each")
        async with t.process("merge"):  # takes the bad reply and the good ones in one update
            assert value_of((await t.result(run)).outcome) == [1, 2]
            assert reason in (await until_rejected(t, seq))[1].reason.lower()
            await t.until_settled("reply", "merge")


async def test_reply_to_a_step_that_joins_nothing_is_rejected(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        run = await t.submit(numbers=[1])
        head: dict[str, Any] = {"flow": "flow", "digest": t.plan.digest, "run": run, "start_seq": 1}
        reply = Reply(**head, step="each", source="stranger", outcome=Done())
        seq = await t.bus.publisher.append(t.bus.subjects.of(t.actor("merge"), reply), encode(reply))

        assert "joins nothing" in (await until_rejected(t, seq))[1].reason
        assert value_of((await t.result(run)).outcome) == [1]
