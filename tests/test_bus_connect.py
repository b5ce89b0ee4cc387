"""Connecting: each thing that can be wrong with a server has an error that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from baton_bus import Settings
from baton_bus.errors import JetStreamOff, NoServer, ServerTooOld, StreamMismatch
from baton_bus.store.bus import open_bus

from .servers import NatsServer, nats_server, peer


@contextlib.asynccontextmanager
async def greeting(**info: object) -> AsyncIterator[str]:
    """A peer that greets as a NATS server of our choice does, and answers pings; yields its URL."""

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = {"server_id": "x", "max_payload": 1048576, "proto": 1, "headers": True, **info}
        writer.write(b"INFO " + json.dumps(hello).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async with peer(on_client) as address:
        yield f"nats://{address}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_nobody_at_the_url_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(NoServer, match="the connection was refused"):
        async with open_bus(Settings(url=f"nats://127.0.0.1:{free_port()}")):
            pass
    assert time.monotonic() - started < 2.0


async def test_peer_that_says_nothing_is_given_up_after_the_time_allowed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = Settings(url=f"nats://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=0.3)
        with pytest.raises(NoServer, match="no NATS server at"):
            async with open_bus(settings):
                pass


async def test_one_server_of_several_is_enough(server: NatsServer, namespace: str) -> None:
    urls = f"nats://127.0.0.1:{free_port()}, {server.url}"
    async with open_bus(Settings(url=urls, namespace=namespace)) as bus:
        assert bus.nc.is_connected
        await bus.js.delete_stream(namespace)


async def test_server_that_is_too_old_is_refused_by_version() -> None:
    async with greeting(version="2.11.0", jetstream=True) as url:
        with pytest.raises(ServerTooOld, match=r"2\.11\.0 is too old: Baton needs 2\.12"):
            async with open_bus(Settings(url=url)):
                pass


async def test_server_without_jetstream_is_refused_with_the_option_that_is_missing() -> None:
    async with greeting(version="2.15.1") as url:
        with pytest.raises(JetStreamOff, match="start it with `-js`"):
            async with open_bus(Settings(url=url)):
                pass


async def test_account_without_jetstream_is_refused(tmp_path: Path) -> None:
    accounts = {"PLAIN": {"users": [{"user": "u", "password": "p"}]}}
    async with nats_server(tmp_path, accounts=accounts, no_auth_user="u") as server:
        with pytest.raises(JetStreamOff):
            async with open_bus(Settings(url=server.url)):
                pass


async def test_wrong_password_is_told_as_such(tmp_path: Path) -> None:
    async with nats_server(tmp_path, authorization={"user": "u", "password": "p"}) as server:
        with pytest.raises(NoServer, match="Authorization Violation"):
            async with open_bus(Settings(url=server.url)):
                pass


async def test_stream_of_our_name_that_is_no_log_is_left_alone(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=f"{namespace}-x")) as bus:
        theirs = StreamConfig(name=namespace, subjects=[f"{namespace}.>"], retention=RetentionPolicy.WORK_QUEUE)
        await bus.js.add_stream(theirs)
        with pytest.raises(StreamMismatch, match="retention"):
            async with open_bus(Settings(url=server.url, namespace=namespace)):
                pass
        assert (await bus.js.stream_info(namespace)).config.retention == RetentionPolicy.WORK_QUEUE
        await bus.js.delete_stream(namespace)
        await bus.js.delete_stream(f"{namespace}-x")


async def test_connecting_twice_changes_nothing_in_the_stream(server: NatsServer, namespace: str) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with open_bus(settings) as first:
        before = (await first.js.stream_info(namespace)).config
        async with open_bus(settings):
            assert (await first.js.stream_info(namespace)).config == before
        await first.js.delete_stream(namespace)
