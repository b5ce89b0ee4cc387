"""A NATS client over a bare socket, as any program in any language might have: it knows nothing of Baton."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
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


async def hear(port: int, subjects: Sequence[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """Yield what is published on these subjects, as subject and body, until the connection breaks."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
            for number, subject in enumerate(subjects, 1):
                writer.write(b"SUB %b %d\r\n" % (subject, number))
            while True:
                line = await reader.readuntil(b"\r\n")
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith((b"MSG ", b"HMSG ")):
                    _, heard, *sizes = line.split()
                    head = int(sizes[-2]) if line.startswith(b"HMSG ") else 0
                    data = await reader.readexactly(int(sizes[-1]) + 2)
                    yield heard.decode(), data[head:-2]
        finally:
            writer.close()


def decoded(data: str) -> bytes:
    """Return the bytes of a message as the server says them."""
    return base64.b64decode(data)
