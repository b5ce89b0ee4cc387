"""Waiting for results: what is heard needs no read, what was missed is found, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from baton_bus import Settings, connect
from baton_bus.client import results
from baton_bus.errors import ClientClosed
from baton_schemas.flow.flow import Field, Step

from .servers import NatsServer
from .team import flow_of, team

ONE = flow_of({"a": Step(agent="a")}, {"text": Field()})


async def repeat(text: str) -> str:
    return text


async def test_who_waits_when_the_client_is_closed_is_told(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}, start=False) as t:
        async with connect(Settings(url=server.url, namespace=namespace)) as client:
            run = await client.start(t.plan, {"text": "x"})
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0)
        with pytest.raises(ClientClosed, match=run.id):
            await waiting


async def test_two_wait_for_one_run_and_one_gives_up(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}, start=False) as t:
        run = await t.client.start(t.plan, {"text": "x"})
        other = asyncio.create_task(run.result())
        with pytest.raises(TimeoutError):
            await run.result(timeout_s=0.01)
        async with t.process():
            assert await other == "x"


async def test_result_whose_word_was_lost_is_found_by_a_look(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_LOOK_AGAIN_S", 0.05)
    async with team(server.url, namespace, ONE, {"a": repeat}) as t, connect(t.bus.settings) as deaf:
        deaf.results._take = lambda *_: None  # type: ignore[method-assign]
        run = await deaf.start(t.plan, {"text": "x"})
        assert await run.result() == "x"
