"""A NATS client of sixty lines over a socket, as any program in any language might have: it knows nothing of Baton."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from uuid import uuid4

_ANSWER_S = 2.0


async def publish(port: int, subject: bytes, body: bytes, *, headers: bytes = b"") -> dict[str, Any] | None:
    """Publish to a stream and return what the broker acknowledged, or None: then nobody knows whether it is stored."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                inbox = b"inbox." + uuid4().hex.encode()
                writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\n' % inbox)
                if headers:
                    sizes = b"%d %d" % (len(headers), len(headers) + len(body))
                    writer.write(b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, inbox, sizes, headers, body))
                else:
                    writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, inbox, len(body), body))
                return await _answer(reader)
            finally:
                writer.close()
    return None


async def say(port: int, subject: bytes, body: bytes) -> bool:
    """Publish a word that nobody stores; return whether the server took it."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b'CONNECT {"verbose":false}\r\nPUB %b %d\r\n%b\r\nPING\r\n' % (subject, len(body), body))
                while (line := await reader.readuntil(b"\r\n")) != b"PONG\r\n":
                    if line.startswith(b"-ERR"):
                        return False
                return True
            finally:
                writer.close()
    return False


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line.startswith(b"MSG "):
            found: dict[str, Any] = json.loads(await reader.readexactly(int(line.split()[-1])))
            return found if "error" not in found else None
        if line.startswith((b"HMSG", b"-ERR")):  # nobody listens: there is no stream, or no leader
            return None
