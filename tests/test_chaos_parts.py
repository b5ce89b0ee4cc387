"""What the chaos driver is made of does what it says: the disk, the links, the model and the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import nats
import nats.errors
import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from baton_actors.agents.loading import find_flow
from baton_bus import Settings
from baton_bus.store.bus import open_bus

from .chaos import answered
from .chaos.cluster import ClusterFaults
from .chaos.disk import NoDisk, SmallDisk, small_disk
from .chaos.driver import ALL_FLOWS, busy_with, unended
from .chaos.history import History
from .chaos.ledger import Ledger
from .chaos.matrix import RUNS
from .chaos.model import Model, RateLimit
from .chaos.proxy import Proxy
from .chaos.raw import Record, record
from .chaos.run_log import parking_of
from .chaos.worker import FLOWS
from .clients import cancel_run, start_run
from .clusters import cluster
from .servers import WAIT_S, NatsServer, nats_server, subscribed, until

DISK_BYTES = 32 * 1024 * 1024
STREAM = "log"
PROMPT = "<facts>run</facts>"


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.jsonl")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", DISK_BYTES) as mounted:
            yield mounted
    except NoDisk as error:
        pytest.skip(str(error))


def test_every_flow_is_played_by_a_chaos_run_and_by_the_matrix_where_it_kills_nobody() -> None:
    flows = {path.stem for path in FLOWS.glob("*.toml")}
    assert set(ALL_FLOWS) == flows - {"inner", "leaf"}  # which are played within another
    assert set(RUNS) == set(ALL_FLOWS) - {"hazard", "panel"}  # whose handlers kill their workers


async def test_run_that_was_accepted_is_waited_for_until_the_log_has_its_result(
    server: NatsServer, namespace: str, history: History
) -> None:
    """Whatever its client was told, by whomever, and though nobody has anything of it in hand."""
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        run = await start_run(bus, find_flow(str(FLOWS / "park.toml")).plan, {"key": "k"})
        history.say("submit.acknowledged", run=run)
        history.say("client.got", run=run, status="cancelled")
        assert await unended(bus, history.events()) == [run]
        await cancel_run(bus, run)
        assert await unended(bus, history.events()) == []


def test_process_is_busy_with_the_runs_whose_handlers_have_not_ended_in_it(history: History) -> None:
    history.say("step.began", attempt="1-0", run="dear", step="s")
    history.say("step.began", attempt="1-1", run="cheap", step="s")
    history.say("step.ended", attempt="1-1", run="cheap", step="s", how="done")
    assert busy_with(history.events()) == busy_with(history.events(), {"dear"}) == {os.getpid()}
    assert busy_with(history.events(), {"cheap"}) == set()


def test_worker_whose_place_another_had_taken_before_its_first_mark_has_a_reason_to_wake_its_step() -> None:
    """Two park one step: the second had read the places, then came the other's mark on `j`, then its own on `q`."""

    def mark(seq: int, key: str, parking: int) -> Record:
        body = {"kind": "parked", "step": "run", "child": f"inner--k{key}", "first": parking}
        return record(seq, f"chaos.answer.nest--runner.r.run.{key}", json.dumps(body).encode(), float(seq))

    def has_a_reason(*marks: Record) -> bool:
        handed_on, woken = (record(seq, "chaos.handoff.nest--runner.r.run.x", b"{}", float(seq)) for seq in (5, 40))
        log = SimpleNamespace(answers={}, parked={"run": list(marks)}, handoffs={("run", "start"): handed_on})
        demands: Any = SimpleNamespace(log=log, asking=SimpleNamespace(children=SimpleNamespace(of={"run": {}})))
        return answered.has_a_reason(demands, "run", [each for each in marks if parking_of(each) == 30], woken)

    own, others = mark(30, "q", 30), [mark(10, "q", 10), mark(20, "j", 10)]
    assert has_a_reason(*others, own)
    assert not has_a_reason(*others, own, mark(31, "j", 30))
    assert not has_a_reason(others[0], own)
    assert not has_a_reason(mark(10, "j", 10), mark(20, "q", 10), own)


def test_ledger_says_whether_anything_is_held_in_the_end() -> None:
    held = record(1, "spend.run.r.usd", b'{"val":"%d"}' % 2**64, 1.0)
    assert Ledger([held]).is_held
    assert not Ledger([held, record(2, "spend.run.r.usd", b'{"val":"7"}', 2.0)]).is_held


async def test_server_on_a_full_disk_acknowledges_nothing_and_keeps_what_it_had(disk: SmallDisk) -> None:
    async with nats_server(disk.path) as server:
        nc = await nats.connect(server.url)
        js = nc.jetstream()
        await js.add_stream(name=STREAM, subjects=[f"{STREAM}.*"])
        await js.publish(f"{STREAM}.before", b"x" * 4096)
        disk.fill()
        assert disk.free_bytes == 0
        with pytest.raises(nats.errors.TimeoutError):
            await js.publish(f"{STREAM}.full", b"x" * 4096, timeout=1)
        assert (await js.get_last_msg(STREAM, f"{STREAM}.before")).data
        disk.free()
        assert disk.free_bytes > DISK_BYTES / 2
        await nc.close()
        await server.restart()
        nc = await nats.connect(server.url)
        assert (await nc.jetstream().publish(f"{STREAM}.after", b"")).seq == 2
        await nc.close()


async def test_answers_over_a_slow_link_take_as_long_as_it_says(server: NatsServer) -> None:
    proxy = Proxy(server.port)
    async with proxy.working():
        nc = await nats.connect(proxy.url)
        proxy.slow(delay_s=0.1)
        assert await _flush_s(nc) >= 0.2  # there and back
        proxy.slow(bytes_per_s=100_000)
        await nc.publish("large", bytes(20_000))
        assert await _flush_s(nc) >= 0.2
        await nc.close()


async def test_half_open_link_carries_what_clients_say_and_not_what_they_are_told(server: NatsServer) -> None:
    proxy = Proxy(server.port)
    async with proxy.working():
        near, far = await nats.connect(server.url), await nats.connect(proxy.url)
        heard: list[bytes] = []

        async def echo(msg: Msg) -> None:
            heard.append(msg.data)
            await msg.respond(msg.data)

        await subscribed(near, "said", cb=echo)
        holding = asyncio.create_task(proxy.hold(WAIT_S, ("to clients",)))
        await asyncio.sleep(0)
        with pytest.raises(nats.errors.TimeoutError):
            await far.request("said", b"held", timeout=1)
        assert heard == [b"held"]
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        assert (await far.request("said", b"let through", timeout=WAIT_S)).data == b"let through"
        await asyncio.gather(near.close(), far.close())


@pytest.mark.parametrize("says_when", [True, False])
async def test_model_refuses_what_is_over_its_rate_limit(history: History, says_when: bool) -> None:
    model = Model(history, random.Random(1), faults=False, limit=RateLimit(2, 60.0, says_when))
    async with model.serving(), httpx.AsyncClient() as http:
        answers = [await _ask(http, model) for _ in range(5)]
    assert [each.status_code for each in answers] == [200, 200, 429, 429, 429]
    assert ["retry-after" in each.headers for each in answers] == [False, False, *[says_when] * 3]
    assert model.counts == {"": 2, "limited": 3}


async def test_model_lets_in_again_when_its_window_has_passed(history: History) -> None:
    model = Model(history, random.Random(1), faults=False, limit=RateLimit(1, 0.3, says_when=False))
    async with model.serving(), httpx.AsyncClient() as http:
        assert [(await _ask(http, model)).status_code for _ in range(2)] == [200, 429]
        async with asyncio.timeout(WAIT_S):
            while (await _ask(http, model)).status_code != 200:
                pass


async def test_model_is_overloaded_slow_or_cut_as_its_weights_say(history: History) -> None:
    async with httpx.AsyncClient() as http:
        overloaded = Model(history, random.Random(1), faults=True, weights={"529": 1})
        async with overloaded.serving():
            assert json.loads((await _ask(http, overloaded)).text)["error"]["type"] == "overloaded_error"
        cut = Model(history, random.Random(1), faults=True, weights={"cut": 1})
        async with cut.serving():
            streamed = (await _ask(http, cut)).text
            assert "text_delta" in streamed
            assert "message_stop" not in streamed
            with pytest.raises(httpx.RemoteProtocolError):
                await _ask(http, cut, stream=False)
        slow = Model(history, random.Random(1), faults=True, weights={"slow": 1}, slow_s=(0.3, 0.3))
        async with slow.serving():
            started = time.monotonic()
            assert (await _ask(http, slow)).status_code == 200
            assert time.monotonic() - started >= 0.3
    assert [each.counts for each in (overloaded, cut, slow)] == [{"529": 1}, {"cut": 2}, {"slow": 1}]


async def test_cluster_goes_on_when_its_leader_is_stopped_and_a_follower_killed(
    tmp_path: Path, history: History
) -> None:
    async with cluster(tmp_path) as three:
        nc = await nats.connect(three.urls, max_reconnect_attempts=-1)
        await nc.jetstream().add_stream(name=STREAM, subjects=[f"{STREAM}.*"], num_replicas=3)
        await three.until_current(STREAM)
        faults = ClusterFaults(three, history)
        await faults.kill(await faults.follower(STREAM, random.Random(1)), away_s=0.0)
        await three.until_current(STREAM)
        leader = await faults.leader(STREAM)
        stopped = asyncio.create_task(faults.stop_for(leader, lasts_s=60.0))
        await until(lambda: any(event["what"] == "server.stopped" for event in history.events()))
        others = await nats.connect([url for index, url in enumerate(three.urls) if f"n{index}" != leader])
        async with asyncio.timeout(WAIT_S):
            while not await _stored(others):
                pass
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        await three.until_current(STREAM)
        await asyncio.gather(nc.close(), others.close())
    assert [event["what"] for event in history.events()][:3] == ["server.killed", "server.back", "server.stopped"]


async def _stored(nc: NatsClient) -> bool:
    try:
        await nc.jetstream().publish(f"{STREAM}.while-stopped", b"", timeout=1)
    except nats.errors.Error:  # no leader yet
        await asyncio.sleep(0.1)
        return False
    return True


async def _flush_s(nc: NatsClient) -> float:
    started = time.monotonic()
    await nc.flush(timeout=int(WAIT_S))
    return time.monotonic() - started


async def _ask(http: httpx.AsyncClient, model: Model, *, stream: bool = True) -> httpx.Response:
    body = {"model": "any", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
    return await http.post(f"{model.url}/v1/messages", json=body, timeout=WAIT_S)
