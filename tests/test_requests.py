"""Requests: nothing is sent again and again, and whatever breaks, the caller hears an error of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from baton_bus.errors import BusError, BusUnavailable
from baton_bus.jetstream import requests as requests_module
from baton_bus.jetstream.requests import NoAnswer, Requests

from .chaos.proxy import Proxy, Way
from .servers import NatsServer, nats_server, until
from .test_publisher import stopped
from .wired import wired

SIZE_BYTES = 50_000
COUNT = 40


class CountingProxy(Proxy):
    """Counts what it carries, and how often somebody tried to connect."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.carried_bytes = self.tries = 0

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tries += 1
        await super()._connect(reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        proxy, read = self, reader.read

        class Counted(asyncio.StreamReader):
            async def read(self, n: int = -1) -> bytes:
                data = await read(n)
                proxy.carried_bytes += len(data)
                return data

        await super()._pump(Counted(), writer, way)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no answer is sent again at once, so that a test sees in a second what else takes ten."""
    monkeypatch.setattr(requests_module, "AGAIN_AFTER_S", (0.2, 0.3))


@pytest.mark.usefixtures("soon")
async def test_publishes_without_a_connection_are_sent_once_when_it_is_back(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        proxy = CountingProxy(server.port)
        async with proxy.working(), wired(proxy.url, request_timeout_s=0.4) as t:
            await server.stop()
            await until(lambda: not t.nc.is_connected)
            body = b"x" * SIZE_BYTES
            waiting = [asyncio.create_task(t.publisher.create(f"s.{number}", body)) for number in range(COUNT)]
            tries = proxy.tries
            await until(lambda: proxy.tries > tries + 8)
            assert t.nc.pending_data_size == 0
            carried = proxy.carried_bytes
            await server.restart()
            assert None not in await asyncio.gather(*waiting)
            assert proxy.carried_bytes - carried < 1.1 * SIZE_BYTES * COUNT


@pytest.mark.usefixtures("soon")
async def test_server_that_stands_still_does_not_get_everything_many_times(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        proxy = CountingProxy(server.port)
        async with proxy.working(), wired(proxy.url, request_timeout_s=0.4) as t:
            body = b"x" * SIZE_BYTES
            with stopped(server):
                waiting = [
                    asyncio.create_task(t.publisher.create(f"s.{number}", body, patience_s=60))
                    for number in range(COUNT)
                ]
                with pytest.raises(BusUnavailable):
                    await t.publisher.create("s.other", b"x", patience_s=2)
            await asyncio.gather(*waiting)
            # Once, and once more at most if the machine is slow to answer; without the rule it is four times.
            assert proxy.carried_bytes < 2.5 * SIZE_BYTES * COUNT


@pytest.mark.usefixtures("soon")
async def test_request_whose_answer_was_lost_is_asked_again(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        asked: list[Msg] = []

        async def forgets_two(msg: Msg) -> None:
            asked.append(msg)
            if len(asked) == 3:
                await t.nc.publish(msg.reply, b"here")

        await t.nc.subscribe(f"{namespace}-forgets", cb=forgets_two)
        answer = await t.requests.ask(f"{namespace}-forgets", again=True)
        assert (answer.data, len(asked)) == (b"here", 3)


async def test_request_that_must_not_be_sent_twice_fails_with_the_connection(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        with stopped(server):
            asking = [
                asyncio.create_task(t.requests.ask("$JS.API.STREAM.INFO.s")),
                asyncio.create_task(t.requests.collect("$JS.API.DIRECT.GET.s", b'{"multi_last":["s.>"]}')),
            ]
            await asyncio.sleep(0)
            await t.nc.force_reconnect()
            for each in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(each, NoAnswer)


async def test_all_that_escapes_once_the_connection_is_closed_is_an_error_of_ours(
    server: NatsServer, namespace: str
) -> None:
    async with wired(server.url, namespace) as t:
        await t.nc.close()
        for call in (
            t.requests.ask("a"),
            t.requests.ask("a", again=True),
            t.requests.collect("a", b""),
            t.publisher.append(f"{namespace}.1", b""),
        ):
            with pytest.raises(BusError):
                await call
        with pytest.raises(NoAnswer):
            async with Requests(t.nc, 1.0).opened():
                raise AssertionError("opened on a closed connection")


async def test_one_deadline_is_for_all_of_a_request(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        await server.stop()
        loop = asyncio.get_running_loop()
        for again in (False, True):
            began = loop.time()
            with pytest.raises(NoAnswer):
                await t.requests.ask("$JS.API.INFO", again=again, within_s=0.5)
            assert loop.time() - began < 1.0


async def test_closing_never_hides_the_first_error(server: NatsServer, namespace: str) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise OSError("the second")

    with pytest.raises(ValueError, match="the first"):
        async with wired(server.url, namespace) as t:
            t.nc._send_unsubscribe = broken  # type: ignore[method-assign]
            t.nc.flush = broken  # type: ignore[method-assign]
            raise ValueError("the first")
