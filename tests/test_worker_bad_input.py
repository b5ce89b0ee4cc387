"""Bad bytes and foreign messages: each is kept, noted with its place, and blocks nobody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.lifecycle import Routed
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import VERSION, Done, Error, Failed, Handoff, Note, Reply

from .servers import NatsServer
from .team import Team, flow_of, team, value_of

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


async def until_noted(t: Team, seq: int) -> Note:
    """Wait for the note on the rejected message with this sequence, and return it."""
    async for entry in t.bus.log.follow([f"{t.bus.settings.namespace}.note.>"]):
        if isinstance(entry.message, Note) and entry.message.type == "rejected" and entry.message.seq == seq:
            return entry.message
    raise AssertionError("the log ended")


async def first_handoff(t: Team, run: str, **changed: Any) -> Handoff:
    """What `submit` would write for a run, with fields changed."""
    first = (await t.bus.first_handoff(t.plan, {"numbers": Raw(b"[1,2,3]")}, run)).message
    assert isinstance(first, Handoff)
    return replace(first, **changed)


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
        (b'{"kind":"note","v":1,"run":"r","step":"each-0","type":"retry"}', "expected a handoff"),
        (b'{"kind":"handoff","v":99,"flow":"of the future"}', "schema version 99"),
    ],
)
async def test_bytes_that_are_no_handoff_are_kept_noted_and_passed(
    body: bytes, reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        seq = await publish(t, await first_handoff(t, "bad"), body)
        note = await until_noted(t, seq)
        await t.until_settled("handoff", "each")

        assert reason in note.message.lower()
        assert note.error is not None
        assert (note.run, note.step, note.error.type) == ("bad", "each-0", "BadMessage")
        kept = await t.bus.log.at(seq)
        assert kept is not None
        assert kept.data == body
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"step": "other-0"}, "has no step 'other-0'"),
        ({"digest": "0" * 32}, "digest"),
        ({"digest": "0" * 32, "flow_body": Raw(b'{"name":"x"}')}, "flow"),
        ({"digest": "0" * 32, "flow_body": Raw(b"null"), "start_seq": 987_654}, "no first handoff"),
        ({"count": 0, "step": "each"}, "count"),
    ],
)
async def test_handoff_that_fits_no_flow_is_rejected(
    changed: dict[str, Any], reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        seq = await publish(t, await first_handoff(t, "bad", **changed))

        assert reason in (await until_noted(t, seq)).message
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]


async def test_handoff_on_the_subject_of_another_run_is_rejected(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        theirs = await first_handoff(t, "theirs")
        seq = await publish(t, await first_handoff(t, "ours"), encode(theirs))

        assert "run 'theirs'" in (await until_noted(t, seq)).message
        assert await t.kinds("theirs") == []


async def reply_to_merge(t: Team, run: str, branch: str = "each-1", **changed: Any) -> int:
    """Write a reply by hand beside those of the run's own branches, and return its sequence."""
    reply = Reply(
        v=VERSION,
        flow="flow",
        digest=t.plan.digest,
        run=run,
        step="merge",
        branch=branch,
        count=2,
        outcome=Done(output=Raw(b"7")),
        start_seq=1,
    )
    body = changed.pop("body", None) or encode(replace(reply, **changed))
    subject = t.bus.subjects.of(t.actor("merge"), reply)
    return await t.bus.publisher.append(subject, body)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"branch": "stranger", "body": b"no json"}, "malformed"),
        ({"branch": "stranger", "digest": "0" * 32}, "digest"),
        ({"branch": "stranger"}, "waits for no branch 'stranger'"),
        ({"branch": "stranger", "outcome": Failed(error=Error(step="stranger", type="X", message="x"))}, "'stranger'"),
    ],
)
async def test_reply_that_fits_no_join_is_rejected_and_the_others_are_joined(
    changed: dict[str, Any], reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS, start=False) as t:
        run = await t.submit(numbers=[1, 2])
        branch = changed.pop("branch")
        seq = await reply_to_merge(t, run, branch, **changed)
        async with t.process("each"):
            await t.until_settled("handoff", "each")
        async with t.process("merge"):  # takes the bad reply and the good ones in one update
            assert value_of((await t.result(run)).outcome) == [1, 2]
            assert reason in (await until_noted(t, seq)).message.lower()
            await t.until_settled("reply", "merge")


async def test_reply_to_a_step_that_joins_nothing_is_rejected(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        run = await t.submit(numbers=[1])
        reply = Reply(
            v=VERSION,
            flow="flow",
            digest=t.plan.digest,
            run=run,
            step="each",
            branch="stranger",
            outcome=Done(),
            start_seq=1,
        )
        subject = t.bus.subjects.of(*Routed(t.actor("merge"), reply))
        seq = await t.bus.publisher.append(subject, encode(reply))

        assert "joins nothing" in (await until_noted(t, seq)).message
        assert value_of((await t.result(run)).outcome) == [1]
