"""Tasks become runs: from any NATS client, whoever is down, once each, and a bad one is told why."""

from __future__ import annotations

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.processes.hosting import hosting
from baton_actors.services import steward as steward_module
from baton_actors.services.steward import Steward
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.messages import Handoff, Result
from baton_schemas.wire.names import run_of_task
from baton_schemas.wire.outcomes import Failed

from .clients import result_of, start_run
from .handlers_for_tests import flow_of
from .servers import WAIT_S, NatsServer


class BareClient:
    """A client of NATS in a few lines of its protocol, as any language could have it: no library, none of ours.

    Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, subject: str, payload: bytes = b"") -> tuple[str, bytes]:
        """Publish with a reply inbox; return the headers and the body of the answer."""
        self._writer.write(b"SUB _INBOX.bare 1\r\nUNSUB 1 1\r\n")
        self._writer.write(b"PUB %s _INBOX.bare %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        while True:
            word, *rest = (await self._reader.readline()).decode().split()
            if word == "MSG":
                return "", (await self._reader.readexactly(int(rest[-1]) + 2))[:-2]
            if word == "HMSG":
                head, total = int(rest[-2]), int(rest[-1])
                data = await self._reader.readexactly(total + 2)
                return data[:head].decode(), data[head:-2]
            assert word in ("INFO", "PING"), f"the server said {word} {rest}"


@asynccontextmanager
async def bare_client(server: NatsServer) -> AsyncIterator[BareClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n')
    try:
        yield BareClient(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus


@pytest.fixture
def shout(tmp_path: Path) -> FoundFlow:
    """A flow of two steps: upper case, then an exclamation mark."""
    return written(tmp_path, "shout")


def written(folder: Path, name: str) -> FoundFlow:
    path = folder / f"{name}.toml"
    path.write_text(flow_of("upper", "exclaim", name=name, field="text"), "utf-8")
    return find_flow(str(path))


def steward(bus: Bus, *flows: FoundFlow, answers_unknown: bool = True) -> Steward:
    return Steward(Engine(bus), {found.name: found.plan for found in flows}, answers_unknown=answers_unknown)


def actors(bus: Bus, found: FoundFlow) -> Any:
    return hosting(Engine(bus), found, list(found.flow.agents))


async def publish(bus: Bus, flow: str, **task: Any) -> int:
    return await bus.publisher.append(bus.subjects.task(flow), json.dumps(task).encode())


async def ended(bus: Bus, flow: str, run: str) -> Result:
    return await result_of(bus, run, flow=flow, timeout_s=WAIT_S)


async def starts(bus: Bus) -> list[Handoff]:
    entries = [entry async for entry in bus.log.read(bus.subjects.starts())]
    return [entry.message for entry in entries if isinstance(entry.message, Handoff)]


async def settled(bus: Bus, consumer: str, seq: int) -> None:
    """Wait until a consumer is done with the message of this sequence."""
    async with asyncio.timeout(WAIT_S):
        while True:
            info = await bus.js.consumer_info(bus.settings.namespace, consumer)
            if info.ack_floor is not None and info.ack_floor.stream_seq >= seq:
                return
            await asyncio.sleep(0.01)


async def test_task_of_a_bare_socket_is_run_though_every_actor_was_down(
    bus: Bus, server: NatsServer, namespace: str, shout: FoundFlow
) -> None:
    async with bare_client(server) as client:
        _, receipt = await client.ask(f"{namespace}.task.shout", b'{"input": {"text": "hello"}}')
        run = f"task-{json.loads(receipt)['seq']:012d}"
        result = f"$JS.API.DIRECT.GET.{namespace}.{namespace}.result.shout.{run}.end"
        headers, _ = await client.ask(result)
        assert headers.startswith("NATS/1.0 404")

        async with steward(bus, shout).working(), actors(bus, shout), asyncio.timeout(WAIT_S):
            body = b""
            while not body:
                _, body = await client.ask(result)
    message = json.loads(body)
    assert message["status"] == "done"
    assert message["outcome"]["output"] == "HELLO!"


async def test_task_that_names_its_run_gets_that_id(bus: Bus, shout: FoundFlow) -> None:
    await publish(bus, "shout", input={"text": "a"}, run="order-7")
    async with steward(bus, shout).working(), actors(bus, shout):
        assert (await ended(bus, "shout", "order-7")).status == "done"


async def test_redelivered_task_starts_no_second_run(bus: Bus, shout: FoundFlow) -> None:
    seq = await publish(bus, "shout", input={"text": "a"})
    # Another steward started the run, and died before its ack.
    await start_run(bus, shout.plan, {"text": "a"}, run=run_of_task(seq))
    async with steward(bus, shout).working():
        await settled(bus, "steward-shout", seq)
    assert [handoff.run for handoff in await starts(bus)] == [run_of_task(seq)]
    assert await bus.log.last(bus.subjects.result("shout", run_of_task(seq))) is None


async def test_task_sent_twice_with_one_run_id_is_one_run(bus: Bus, shout: FoundFlow) -> None:
    for _ in range(2):
        seq = await publish(bus, "shout", input={"text": "a"}, run="twice")
    async with steward(bus, shout).working(), actors(bus, shout):
        assert (await ended(bus, "shout", "twice")).status == "done"
        await settled(bus, "steward-shout", seq)
    assert len(await starts(bus)) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "task: no JSON"),
        (b"[]", "no task"),
        (b'{"input": {}}', "input 'text': missing; expected str"),
        (b'{"input": {"text": 1}}', "found the number 1; expected str"),
        (b'{"input": {"text": "a", "txt": "b"}}', "the flow has no such input. Did you mean 'text'?"),
        (b'{"input": {"text": "a"}, "run": "no spaces"}', "run id 'no spaces' cannot be used in a subject"),
    ],
)
async def test_bad_task_gets_its_reason_as_its_result_and_blocks_nobody(
    bus: Bus, shout: FoundFlow, body: bytes, reason: str
) -> None:
    seq = await bus.publisher.append(bus.subjects.task("shout"), body)
    good = await publish(bus, "shout", input={"text": "a"})
    async with steward(bus, shout).working(), actors(bus, shout):
        bad = await ended(bus, "shout", run_of_task(seq))
        assert (await ended(bus, "shout", run_of_task(good))).status == "done"
        await settled(bus, "steward-shout", good)
    assert bad.status == "failed"
    assert reason in bad.reason
    assert isinstance(bad.outcome, Failed)
    assert bad.outcome.error.message == bad.reason


@pytest.mark.parametrize("given", [{"text": "other"}, {"wrong": 1}])
async def test_bad_task_with_the_id_of_another_run_does_not_end_that_run(
    bus: Bus, shout: FoundFlow, given: dict[str, Any]
) -> None:
    run = await start_run(bus, shout.plan, {"text": "mine"}, run="mine")
    seq = await publish(bus, "shout", input=given, run=run)
    async with steward(bus, shout).working():
        await settled(bus, "steward-shout", seq)
    assert await bus.log.last(bus.subjects.result("shout", run)) is None
    async with actors(bus, shout):
        assert (await ended(bus, "shout", run)).status == "done"


async def test_task_of_a_flow_that_nobody_knows_is_answered_with_the_nearest_name(
    bus: Bus, shout: FoundFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steward_module, "UNKNOWN_DELAYS_S", (0.01, 0.02))
    seq = await publish(bus, "shuot", input={"text": "a"})
    async with steward(bus, shout).working():
        result = await ended(bus, "shuot", run_of_task(seq))
        await settled(bus, "steward", seq)
    assert result.status == "failed"
    assert "no steward here knows a flow 'shuot'. Did you mean 'shout'?" in result.reason


async def test_task_of_a_flow_whose_steward_is_down_waits_for_it(
    bus: Bus, shout: FoundFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steward_module, "UNKNOWN_DELAYS_S", ())
    other = written(tmp_path, "other")
    async with steward(bus, other).working():
        pass
    seq = await publish(bus, "other", input={"text": "a"})
    async with steward(bus, shout).working():
        await settled(bus, "steward", seq)
    assert await bus.log.last(bus.subjects.result("other", run_of_task(seq))) is None
    async with steward(bus, other).working(), actors(bus, other):
        assert (await ended(bus, "other", run_of_task(seq))).status == "done"


async def test_steward_of_a_single_run_leaves_unknown_flows_to_others(bus: Bus, shout: FoundFlow) -> None:
    await publish(bus, "shuot", input={"text": "a"})
    known = await publish(bus, "shout", input={"text": "a"})
    async with steward(bus, shout, answers_unknown=False).working():
        await settled(bus, "steward-shout", known)
    consumers = await bus.js.consumers_info(bus.settings.namespace)
    assert [info.name for info in consumers] == ["steward-shout"]


async def test_refused_task_is_not_run_when_its_flow_comes_later(
    bus: Bus, shout: FoundFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steward_module, "UNKNOWN_DELAYS_S", ())
    seq = await publish(bus, "other", input={"text": "a"})
    async with steward(bus, shout).working():
        await settled(bus, "steward", seq)
    async with steward(bus, written(tmp_path, "other")).working():
        await settled(bus, "steward-other", seq)
    assert await starts(bus) == []


async def test_tasks_by_the_hundred_are_started_once_each_by_two_stewards(bus: Bus, shout: FoundFlow) -> None:
    seqs = [await publish(bus, "shout", input={"text": str(n)}) for n in range(200)]
    async with steward(bus, shout).working(), steward(bus, shout).working():
        await settled(bus, "steward-shout", seqs[-1])
    assert sorted(handoff.run for handoff in await starts(bus)) == [run_of_task(seq) for seq in seqs]
