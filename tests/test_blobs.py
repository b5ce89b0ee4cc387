"""Blobs: one value under one name, whatever stops the server or the writer, and whoever else writes it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from baton_bus import Settings
from baton_bus.errors import BlobMissing, BlobWrong, BusUnavailable, LogFull
from baton_bus.store.blobs import CHUNK_BYTES
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.outcomes import Blob

from .servers import WAIT_S, NatsServer, nats_server, subscribed

LARGE = os.urandom(CHUNK_BYTES * 20 + 17)
SHORT_S = 0.5
"""Of a request, so that several of them time out while a server is stopped for two seconds."""


@contextlib.asynccontextmanager
async def bus_on(server: NatsServer, namespace: str = "t", patience_s: float = 2 * WAIT_S) -> AsyncIterator[Bus]:
    settings = Settings(url=server.url, namespace=namespace, request_timeout_s=SHORT_S, patience_s=patience_s)
    async with open_bus(settings) as bus:
        yield bus


@contextlib.asynccontextmanager
async def fresh(server: NatsServer, namespace: str = "t") -> AsyncIterator[Bus]:
    """Another process, as it were: it has nothing in its cache."""
    async with bus_on(server, namespace) as bus:
        yield bus


def blob_of(data: bytes) -> Blob:
    return Blob(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


async def messages(bus: Bus) -> int:
    return (await bus.js.stream_info(bus.blobs.stream)).state.messages


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 10 * 1024 * 1024])
async def test_what_was_put_is_got_whatever_its_size(size: int, server: NatsServer, namespace: str) -> None:
    data = os.urandom(size)
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as other:
        blob = await bus.blobs.put(data)
        assert blob == blob_of(data)
        assert await other.blobs.get(blob) == data


async def test_blob_that_is_there_is_not_written_again(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as other:
        await bus.blobs.put(LARGE)
        sent = other.nc.stats["out_bytes"]
        await other.blobs.put(LARGE)
        assert other.nc.stats["out_bytes"] - sent < 2_000


async def test_many_puts_of_one_value_upload_it_once(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus:
        blobs = await asyncio.gather(*(bus.blobs.put(LARGE) for _ in range(50)))
        assert set(blobs) == {blob_of(LARGE)}
        assert bus.nc.stats["out_bytes"] < 2 * len(LARGE)


async def test_two_writers_at_once_make_one_value(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as other, fresh(server, namespace) as reader:
        await asyncio.gather(bus.blobs.put(LARGE), other.blobs.put(LARGE))
        assert await messages(bus) == 1 + 21
        assert await reader.blobs.get(blob_of(LARGE)) == LARGE


async def test_half_of_a_blob_is_completed_by_the_next_put(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as reader:
        await bus.blobs.ensure()
        cut = 64 * 1024  # its writer made other chunks than we do
        for index in (1, 4):
            subject = bus.subjects.blob(blob_of(LARGE).sha256, index)
            await bus.nc.request(subject, LARGE[(index - 1) * cut : index * cut])
        with pytest.raises(BlobMissing):
            await reader.blobs.get(blob_of(LARGE))
        assert await reader.blobs.get(await bus.blobs.put(LARGE)) == LARGE


@pytest.mark.parametrize("planted", [0, 1, 3])
async def test_wrong_bytes_under_the_name_of_a_blob_are_reported_and_not_served(
    planted: int, server: NatsServer, namespace: str
) -> None:
    blob = blob_of(LARGE)
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as reader:
        await bus.blobs.ensure()
        await bus.nc.request(bus.subjects.blob(blob.sha256, planted), b"x" * CHUNK_BYTES)
        with contextlib.suppress(BlobWrong):
            await bus.blobs.put(LARGE)
        with pytest.raises(BlobMissing) as wrong:
            await reader.blobs.get(blob)
        assert isinstance(wrong.value, BlobWrong) or planted == 1  # whose writer found it, and gave up


async def test_blob_without_a_chunk_is_missing(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as reader:
        blob = await bus.blobs.put(LARGE)
        await bus.js.purge_stream(bus.blobs.stream, subject=bus.subjects.blob(blob.sha256, 7))
        with pytest.raises(BlobMissing, match="chunk 7"):
            await reader.blobs.get(blob)


async def test_stream_that_is_gone_is_made_again_by_a_put_and_not_by_a_get(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as reader:
        blob = await bus.blobs.put(LARGE)
        await bus.js.delete_stream(bus.blobs.stream)
        with pytest.raises(BlobMissing):
            await reader.blobs.get(blob)
        names = [info.config.name for info in await bus.js.streams_info()]
        assert bus.blobs.stream not in names
        await bus.blobs.put(LARGE)
        assert await reader.blobs.get(blob) == LARGE


async def test_rollup_of_a_blob_is_refused(server: NatsServer, namespace: str) -> None:
    async with bus_on(server, namespace) as bus, fresh(server, namespace) as reader:
        blob = await bus.blobs.put(LARGE)
        subject = bus.subjects.blob(blob.sha256, 1)
        answer = await bus.nc.request(subject, b"x", headers={"Nats-Rollup": "all"})
        assert b"rollup not permitted" in answer.data
        assert await reader.blobs.get(blob) == LARGE


async def test_blob_over_a_small_max_payload_has_smaller_chunks(tmp_path: Path) -> None:
    async with nats_server(tmp_path, max_payload=64 * 1024) as server, bus_on(server) as bus, fresh(server) as reader:
        assert await reader.blobs.get(await bus.blobs.put(LARGE)) == LARGE


async def test_full_storage_is_log_full(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server) as bus:
        await bus.blobs.ensure()
        config = (await bus.js.stream_info(bus.blobs.stream)).config
        await bus.js.update_stream(config.evolve(max_bytes=512 * 1024))
        with pytest.raises(LogFull):
            await bus.blobs.put(LARGE)
        await bus.js.update_stream(config)
        async with fresh(server) as reader:
            assert await reader.blobs.get(await bus.blobs.put(LARGE)) == LARGE


@pytest.mark.parametrize("chunk", ["$JS.API.STREAM.CREATE.t-blobs", *(f"t-blobs.*.{index}" for index in (1, 8, 21, 0))])
@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_server_that_is_lost_while_a_blob_is_put_changes_nothing(how: str, chunk: str, tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server) as bus:
        async with seen(server, chunk) as asked:
            putting = asyncio.create_task(bus.blobs.put(LARGE))
            await asked.wait()
            await lose(server, how)
        blob = await putting
        async with fresh(server) as reader:
            assert await reader.blobs.get(blob) == LARGE
            assert await messages(reader) == 1 + 21


@pytest.mark.parametrize("request_of", ["$JS.API.DIRECT.GET.t-blobs.>", "$JS.API.DIRECT.GET.t-blobs"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_server_that_is_lost_while_a_blob_is_got_changes_nothing(
    how: str, request_of: str, tmp_path: Path
) -> None:
    async with nats_server(tmp_path) as server, bus_on(server) as bus:
        blob = await bus.blobs.put(LARGE)
        async with fresh(server) as reader, seen(server, request_of) as asked:
            getting = asyncio.create_task(reader.blobs.get(blob))
            await asked.wait()
            await lose(server, how)
            assert await getting == LARGE


async def test_server_that_stays_away_is_unavailable_and_not_a_missing_blob(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, bus_on(server, patience_s=1.0) as bus:
        blob = await bus.blobs.put(LARGE)
        async with bus_on(server, patience_s=1.0) as reader:
            await server.stop()
            with pytest.raises(BusUnavailable):
                await reader.blobs.get(blob)
            with pytest.raises(BusUnavailable):
                await reader.blobs.put(b"other")
            waiting = asyncio.create_task(reader.blobs.get(blob, waits=True))
            with pytest.raises(BusUnavailable):  # as long as a client waits
                await reader.blobs.put(b"other")
            await server.restart()
            assert await waiting == LARGE


async def lose(server: NatsServer, how: str) -> None:
    """Stop the server for several time-outs of requests, or kill it and start it again."""
    if how == "killed":
        await server.kill()
        await server.restart()
        return
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(4 * SHORT_S)  # the fault itself: nothing can be seen of it meanwhile
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def seen(server: NatsServer, subject: str) -> AsyncIterator[asyncio.Event]:
    """Set an event when somebody publishes to a subject."""
    came = asyncio.Event()

    async def on_msg(_: object) -> None:
        came.set()

    async def say_nothing(_: Exception) -> None:
        pass

    nc = await nats.connect(server.url, error_cb=say_nothing, allow_reconnect=False)
    try:
        await subscribed(nc, subject, cb=on_msg)
        yield came
    finally:
        with contextlib.suppress(Exception):
            await nc.close()
