"""Bodies of answers, as a server sends them: read chunk by chunk, bounded, and broken off as they were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from baton_actors.models.arriving import Arriving
from baton_actors.models.errors import ModelError
from baton_actors.models.sent import Upstream

BODY_MAX_BYTES = 64 * 1024 * 1024
"""Of one answer. It is held in memory until it is recorded; the longest that models give are a hundredth of it."""
_DRAIN_S = 1.0
"""For the rest of a stream after its last event, so that its connection can be used again."""


class TooLarge(Exception):
    """An answer is larger than can be recorded."""


class CutOff(ConnectionError):
    """A stream ended as if it were whole, before the answer did."""


def too_large(size_bytes: int) -> TooLarge:
    """Return the error for an answer of which so many bytes have come."""
    return TooLarge(f"an answer of more than {size_bytes} bytes cannot be recorded; at most {BODY_MAX_BYTES} can")


async def whole(upstream: Upstream, arriving: Arriving) -> bytes | None:
    """Return the body; None when it broke, or is too large, which is passed on."""
    body = bytearray()
    async for chunk in unless_broken(upstream.chunks, arriving):
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            arriving.fail(too_large(len(body)))
            break
    return None if arriving.has_begun else bytes(body)


async def unless_broken(
    chunks: AsyncIterator[bytes], arriving: Arriving, before: Callable[[], None] = lambda: None
) -> AsyncIterator[bytes]:
    """Yield chunks; what breaks them is passed on as it is, after `before` was called."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        before()
        arriving.fail(error)


async def drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what is left, unless that takes long or fails."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass


def unanswered(error: ModelError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body that tell the SDK of a call which nobody is to be asked, and what to do."""
    said = {"type": "error", "error": {"type": "authentication_error", "message": str(error)}}
    return 401, {"content-type": "application/json", "x-should-retry": "false"}, msgspec.json.encode(said)


async def at_once(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body that is all there."""
    yield body


async def nothing() -> None:
    """Close what needs no closing."""
