"""Messages of a later version are given back, not rejected: whoever can read them takes them, and others go on."""

from __future__ import annotations

import json

import pytest
import structlog

from baton_actors.services import clerk as clerk_module
from baton_actors.services import steward as steward_module
from baton_actors.services.steward import Steward
from baton_actors.steps import joiner as joiner_module
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Done

from .servers import WAIT_S, NatsServer, until
from .team import Team, first_of, flow_of, team, value_of
from .timed import TEXT, timed, until_so

FLOW = flow_of(
    {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"])},
    {"numbers": Field(type="list[int]")},
    {"each": {"concurrency": 1}, "merge": {"concurrency": 1}},
)
ONE = flow_of({"a": Step(agent="a")}, TEXT)


async def same(item: int) -> int:
    return item


async def merge(each: list[int]) -> list[int]:
    return each


async def echo(text: str) -> str:
    return text


HANDLERS = {"each": same, "merge": merge}


def of_the_future(body: bytes) -> bytes:
    return json.dumps(json.loads(body) | {"v": 99, "kind": "of the future", "unheard_of": [1]}).encode()


async def until_given_back(t: Team, stream: str, consumer: str, seq: int) -> None:
    """Wait until a message was handed out twice: it has come back once."""

    async def has_come_again() -> bool:
        info = await t.bus.js.consumer_info(stream, consumer)
        return bool(info.num_redelivered) and (info.ack_floor is None or info.ack_floor.stream_seq < seq)

    await until_so(has_come_again)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton_actors.processes.worker.NEWER_RETRY_S", 0.05)
    monkeypatch.setattr(joiner_module, "NEWER_RETRY_S", 0.05)
    monkeypatch.setattr(clerk_module, "_NEWER_RETRY_S", 0.05)
    monkeypatch.setattr(steward_module, "_NEWER_RETRY_S", 0.05)


async def test_handoff_of_a_later_version_stays_and_others_go_on(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        first = first_of(t.plan, "newer", {"each": [1, 2]}, numbers=[1, 2])
        seq = await t.bus.publisher.append(t.bus.subjects.of(*first), of_the_future(encode(first.message)))
        await until_given_back(t, namespace, f"handoff-{t.actor('each')}", seq)
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]
        assert await t.kinds("newer") == ["handoff"]


async def test_reply_of_a_later_version_stays_and_others_go_on(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, HANDLERS) as t:
        reply = Reply(flow="flow", run="newer", step="merge", source="each", each=True, outcome=Done())
        subject = t.bus.subjects.of(t.actor("merge"), reply)
        seq = await t.bus.publisher.append(subject, of_the_future(encode(reply)))
        await until_given_back(t, namespace, f"reply-{t.actor('merge')}", seq)
        assert value_of((await t.run(numbers=[1, 2])).outcome) == [1, 2]
        assert await t.kinds("newer") == ["reply"]


async def test_due_message_of_a_later_version_stays_and_others_go_on(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, ONE, {"a": echo}) as t:
        first = first_of(t.plan, "newer", text="x")
        due_s = t.bus.now_s()
        await t.bus.timers.at(t.actor("a"), "newer", "a", due_s, of_the_future(encode(first.message)))
        await until_given_back(t, t.bus.timers.stream, "due", 1)
        good = first_of(t.plan, "good", text="y")
        await t.bus.timers.at(t.actor("a"), "good", "a", due_s, encode(good.message))
        assert value_of((await t.result("good")).outcome) == "y"
        assert await t.kinds("newer") == []


async def test_task_of_a_later_version_stays_and_others_go_on(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": echo}) as t, Steward(Engine(t.bus), {"flow": t.plan}).working():
        body = b'{"v": 99, "input": {"text": "x"}, "run": "newer", "unheard_of": 1}'
        seq = await t.bus.publisher.append(t.bus.subjects.task("flow"), body)
        await until_given_back(t, namespace, "steward-flow", seq)
        await t.bus.publisher.append(t.bus.subjects.task("flow"), b'{"input": {"text": "y"}, "run": "good"}')
        assert value_of((await t.client.run("good", "flow").ended(WAIT_S)).outcome) == "y"
        assert await t.kinds("newer") == []


async def test_worker_says_of_a_later_version_what_it_can_read(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.processes.worker.logger", structlog.get_logger("baton.worker"))
    with structlog.testing.capture_logs() as logs:
        async with team(server.url, namespace, ONE, {"a": echo}) as t:
            first = first_of(t.plan, "newer", text="x")
            await t.bus.publisher.append(t.bus.subjects.of(*first), of_the_future(encode(first.message)))
            await until(lambda: [entry for entry in logs if entry["event"] == "message.newer"])
    (said, *_) = [entry for entry in logs if entry["event"] == "message.newer"]
    assert "99" in said["error"]
