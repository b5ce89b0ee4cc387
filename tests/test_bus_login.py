"""Logging in: each way that NATS has, and a password that goes to nobody it is not meant for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nkeys
import pytest
from structlog.testing import capture_logs

from baton_bus import Settings
from baton_bus.errors import BadSetting, LoginRefused, NoServer, TlsFailed
from baton_bus.store.bus import open_bus

from .logins import Key, certificates, operator_mode
from .servers import nats_server, peer, until

PASSWORD = "p:a/s@s, word"


@contextlib.asynccontextmanager
async def eavesdropper(**info: object) -> AsyncIterator[tuple[str, bytearray]]:
    """A peer that greets as a server without TLS does; yields its address, and what it was sent."""
    heard = bytearray()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = {"server_id": "x", "version": "2.15.1", "jetstream": True, "max_payload": 1048576, "headers": True}
        writer.write(b"INFO " + json.dumps(hello | info).encode() + b"\r\n")
        while data := await reader.read(4096):
            heard.extend(data)

    async with peer(on_client) as address:
        yield address, heard


async def works(**settings: Any) -> bool:
    async with open_bus(Settings(**settings)) as bus:
        return bool(await bus.publisher.append(bus.subjects.task("any"), b"{}"))


async def test_user_and_password_need_not_be_in_the_url(tmp_path: Path) -> None:
    async with nats_server(tmp_path, authorization={"user": "u", "password": PASSWORD}) as server:
        assert await works(url=server.url, user="u", password=PASSWORD)


async def test_token_need_not_be_in_the_url(tmp_path: Path) -> None:
    async with nats_server(tmp_path, authorization={"token": PASSWORD}) as server:
        assert await works(url=server.url, token=PASSWORD)


async def test_nkey_logs_in(tmp_path: Path) -> None:
    key = Key(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "me.nk").write_bytes(key.seed + b"\n")
    async with nats_server(tmp_path, authorization={"users": [{"nkey": key.public}]}) as server:
        assert await works(url=server.url, nkey=str(tmp_path / "me.nk"))


async def test_credentials_file_logs_in_to_a_server_in_operator_mode(tmp_path: Path) -> None:
    options, creds = operator_mode(tmp_path)
    async with nats_server(tmp_path / "server", **options) as server:
        assert await works(url=server.url, creds=str(creds))
        with pytest.raises(LoginRefused):
            await works(url=server.url)


@pytest.mark.parametrize("name", ["creds", "nkey", "tls_ca", "tls_cert"])
@pytest.mark.parametrize("content", [None, b"nonsense"])
async def test_file_of_a_login_that_cannot_be_used_is_told_by_its_variable(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    given = {name: str(path)} | ({"tls_key": str(path)} if name == "tls_cert" else {})
    with pytest.raises(BadSetting, match=f"BATON_{name.upper()}"):
        await works(url="nats://127.0.0.1:1", **given)


async def test_wrong_login_is_told_as_such_and_shown_to_nobody(tmp_path: Path) -> None:
    async with nats_server(tmp_path, authorization={"user": "u", "password": "p"}) as server:
        url = server.url.replace("//", "//u:hunter2@")
        with pytest.raises(LoginRefused, match="Correct the login") as caught:
            await works(url=url)
        assert "hunter2" not in str(caught.value) + str(caught.value.url)
        with pytest.raises(LoginRefused):
            await works(url=server.url, user="u", password="hunter2")


async def test_lost_and_mended_connections_are_logged_without_the_login(tmp_path: Path) -> None:
    login = {"user": "u", "password": "hunter2"}
    with capture_logs() as events:
        async with (
            nats_server(tmp_path, authorization=login) as server,
            open_bus(Settings(url=server.url.replace("//", "//u:hunter2@"))) as bus,
        ):
            await server.restart()
            await until(lambda: bus.nc.stats["reconnects"])
            await until(lambda: [event for event in events if event["event"] == "bus.back"])
    assert {event["event"] for event in events} >= {"bus.lost", "bus.back"}
    assert "hunter2" not in str(events)


async def test_login_that_a_server_no_longer_knows_is_logged_once_however_often_it_is_tried(tmp_path: Path) -> None:
    login = {"user": "u", "password": "p"}
    with capture_logs() as events:
        async with (
            nats_server(tmp_path, authorization=login) as server,
            open_bus(Settings(url=server.url, user="u", password="p")) as bus,
        ):
            login["password"] = "another"
            await server.restart()
            known = bus.nc._current_server
            assert known is not None
            await until(lambda: known.reconnects >= 4)
    told = [event for event in events if "authorization" in str(event.get("error", "")).lower()]
    assert [event["event"] for event in told] == ["bus.error"]


@pytest.mark.parametrize("how", ["scheme", "authority"])
async def test_password_is_not_sent_to_a_server_without_tls_when_tls_was_asked_for(tmp_path: Path, how: str) -> None:
    authority = certificates(tmp_path)["ca.pem"]
    given = {"tls_ca": str(authority)} if how == "authority" else {}
    scheme = "nats" if how == "authority" else "tls"
    async with eavesdropper(auth_required=True) as (address, heard):
        with pytest.raises(TlsFailed, match="it has no TLS"):
            await works(url=f"{scheme}://u:hunter2@{address}", connect_timeout_s=2.0, **given)
        assert heard == b""
    async with nats_server(tmp_path / "server") as server:
        with pytest.raises(TlsFailed, match="it has no TLS"):
            await works(url=server.url.replace("nats", scheme), user="u", password="hunter2", **given)


async def test_password_is_not_sent_in_the_clear_when_a_connection_is_mended(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    tls = {"cert_file": str(files["server.pem"]), "key_file": str(files["server.key"])}
    heard = bytearray()
    async with nats_server(tmp_path / "server", tls=tls) as server:
        url = server.url.replace("nats", "tls")
        settings = Settings(url=url, user="u", password="hunter2", tls_ca=str(files["ca.pem"]))
        async with open_bus(settings) as bus:
            await server.stop()
            called = asyncio.Event()

            async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1024}\r\n')
                heard.extend(await reader.read(4096))
                called.set()
                writer.close()

            async with await asyncio.start_server(on_client, "127.0.0.1", server.port):
                await asyncio.wait_for(called.wait(), 20)
            assert not bus.nc.is_connected
    assert heard == b""


@pytest.mark.parametrize("insists", [True, False])
async def test_tls_is_used_with_the_authority_that_was_given(tmp_path: Path, insists: bool) -> None:
    files = certificates(tmp_path)
    tls = {"cert_file": str(files["server.pem"]), "key_file": str(files["server.key"])}
    async with nats_server(tmp_path / "server", tls=tls, allow_non_tls=not insists) as server:
        url = server.url.replace("nats", "tls")
        assert await works(url=url, tls_ca=str(files["ca.pem"]))
        with pytest.raises(TlsFailed, match=r"TLS failed.*BATON_TLS_CA"):
            await works(url=url)


async def test_our_certificate_is_shown_to_a_server_that_asks_for_it(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    names = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    tls = {key: str(files[name]) for key, name in names.items()} | {"verify": True}
    async with nats_server(tmp_path / "server", tls=tls) as server:
        ca = {"tls_ca": str(files["ca.pem"])}
        ours = {"tls_cert": str(files["client.pem"]), "tls_key": str(files["client.key"])}
        assert await works(url=server.url, **ca, **ours)
        with pytest.raises(NoServer):
            await works(url=server.url, **ca)
