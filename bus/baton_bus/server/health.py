"""How an embedded server is: its greeting, and what it says of itself to one who may ask."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import msgspec

PROBE_TIMEOUT_S = 1.0
"""For a connection to localhost and the line with which the server greets: 1 ms when it is well."""
_HEALTH = "$SYS.REQ.SERVER.PING.HEALTHZ"
_INBOX = "_INBOX.keeper"

Health = Literal["well", "stuck", "silent"]
"""`stuck`: it answers, and cannot write what it is given. `silent` may be a machine that is busy."""


class _Info(msgspec.Struct, frozen=True):
    """What we need of the server's greeting."""

    server_id: str


class _Status(msgspec.Struct, frozen=True):
    status: str = ""


class _Answer(msgspec.Struct, frozen=True):
    data: _Status = _Status()


async def greeting(port: int) -> str | None:
    """Return the id of the nats-server that answers on the port, or None."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                line = await reader.readline()
            finally:
                writer.close()
        return msgspec.json.decode(line.removeprefix(b"INFO "), type=_Info).server_id
    except (OSError, ValueError):  # TimeoutError is an OSError, a message that does not decode a ValueError
        return None


async def health(port: int, user: str, password: str, server_id: str) -> Health:
    """Ask the server with this id how it is; the user must be one of its system account.

    With its disk full, nats-server 2.15 goes on answering and says so nowhere else: publishes get no answer at all.
    The login is sent only to the server that we know.
    """
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                line = await reader.readline()
                if msgspec.json.decode(line.removeprefix(b"INFO "), type=_Info).server_id != server_id:
                    return "silent"
                login = {"user": user, "pass": password, "verbose": False, "headers": True, "no_responders": True}
                lines = (f"CONNECT {json.dumps(login)}", f"SUB {_INBOX} 1", f"PUB {_HEALTH} {_INBOX} 0", "", "")
                writer.write("\r\n".join(lines).encode())
                return await _answered(reader)
            finally:
                writer.close()
    except (OSError, ValueError):
        return "silent"


async def _answered(reader: asyncio.StreamReader) -> Health:
    """Read up to the answer. Another word than a message of ours is passed over."""
    while line := await reader.readline():
        if line.startswith(b"MSG "):
            answer = msgspec.json.decode(await reader.readexactly(int(line.split()[-1])), type=_Answer)
            return "well" if answer.data.status == "ok" else "stuck"
        if line.startswith((b"HMSG ", b"-ERR")):  # nobody answers, or it may not be asked
            return "silent"
    return "silent"
