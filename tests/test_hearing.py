"""Who waits for results: a server that stalls meanwhile, runs that nobody asks about, a client that is closed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from baton_bus import Settings, connect
from baton_bus.errors import BusUnavailable, ClientClosed
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step

from .servers import WAIT_S, NatsServer, nats_server, until
from .team import Team, flow_of, team

FLOW = flow_of({"a": Step(agent="a")}, {"text": Field()})
PLAN = check_flow(FLOW)


async def a(text: str) -> str:
    return text


def is_stopped(pid: int) -> bool:
    """Say whether all of a process stands still: a signal takes a moment to reach its threads."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return listed.stdout.startswith("T")


async def started(t: Team, *texts: str) -> list[str]:
    return [(await t.client.start(PLAN, text=text)).id for text in texts]


async def test_flow_that_was_first_asked_for_while_the_server_stood_still_is_heard_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.store.bus._LISTENS_S", 1)
    async with (
        nats_server(tmp_path) as server,
        team(server.url, "t", FLOW, {"a": a}),
        connect(Settings(url=server.url, namespace="t")) as client,
    ):
        os.kill(server.pid, signal.SIGSTOP)
        await until(lambda: is_stopped(server.pid))
        with pytest.raises(BusUnavailable):
            await client.start(PLAN, text="x")
        os.kill(server.pid, signal.SIGCONT)
        run = await client.start(PLAN, text="y")
        assert await run.result(WAIT_S) == "y"


async def test_client_that_is_closed_says_so_to_who_waits(server: NatsServer, namespace: str) -> None:
    async with connect(Settings(url=server.url, namespace=namespace)) as client:
        run = await client.start(PLAN, text="x")
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed, match=run.id):
        await waiting


async def test_results_that_nobody_asks_for_are_kept_within_bounds_and_found_in_the_log(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.client.results.KEPT_BYTES", 5_000)
    async with team(server.url, namespace, FLOW, {"a": a}) as t:
        texts = [f"{number}" * 1_000 for number in range(9)]
        runs = await started(t, *texts)
        await t.until_settled("handoff", "a")
        await t.bus.nc.flush()
        assert t.client.results.kept_bytes <= 5_000
        assert [await t.client.run(run, FLOW.name).result(WAIT_S) for run in runs] == texts
        assert t.client.results.kept_bytes == 0


async def test_one_who_gives_up_waiting_takes_nothing_from_another(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.client.results._LOOK_AGAIN_S", 3600.0)
    async with team(server.url, namespace, FLOW, {"a": a}, start=False) as t:
        (run,) = await started(t, "x")
        patient = asyncio.create_task(t.client.run(run, FLOW.name).result())
        with pytest.raises(TimeoutError):
            await t.client.run(run, FLOW.name).result(0.05)
        async with t.process():
            async with asyncio.timeout(WAIT_S):
                assert await patient == "x"


async def test_many_who_wait_look_into_the_log_at_a_bounded_rate(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_s = 0.05
    monkeypatch.setattr("baton_bus.client.results._LOOK_AGAIN_S", look_s)
    monkeypatch.setattr("baton_bus.client.results._LOOKS_A_SECOND", 100)
    async with connect(Settings(url=server.url, namespace=namespace)) as client:
        runs = [await client.start(PLAN, text="x") for _ in range(500)]
        waiting = [asyncio.create_task(run.result()) for run in runs]
        await asyncio.sleep(2 * look_s)
        began = asyncio.get_running_loop().time()
        looked = client.bus.requests._count
        await asyncio.sleep(20 * look_s)
        took_s = asyncio.get_running_loop().time() - began
        assert client.bus.requests._count - looked <= 100 * took_s + 600
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
