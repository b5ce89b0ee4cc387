"""A stand-in for the Messages API with limits: a token bucket for requests, as providers have it, and its headers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from .sdk_clients import Asked, Provider, error_answer, json_answer, message, said_by, streamed
from .servers import peer

KEEPS_S = 0.02
"""How long a call takes."""
BURST_S = 2.0
"""What belongs to so many seconds is answered at once: of a provider it is a minute's worth."""


class Rated(Provider):
    """Answers `per_s` calls a second, `burst_s` worth of them at once, and says so in its headers.

    What it refuses it refuses with 429, and with the seconds to wait.
    """

    def __init__(
        self, per_s: float = 1e9, *, headers: bool = True, keeps_s: float = KEEPS_S, burst_s: float = BURST_S
    ) -> None:
        super().__init__()
        self.per_s, self._says, self._keeps_s, self._burst_s = per_s, headers, keeps_s, burst_s
        self.answered_at: list[float] = []
        self.refused_at: list[float] = []
        self.at_once = self.at_once_max = 0
        self.down: set[str] = set()
        """Models that are overloaded, as whoever asks is told, with a minute to wait."""
        self.refuses = ""
        """A status with which it refuses all, for good."""
        self.says_left: float | None = None
        """What it says of how much is left, whatever is."""
        self.pauses_s = 0.0
        """From the first call on, for so long."""
        self.paused_until = 0.0
        """Until then all are told to wait, without another word."""
        self._left, self._filled_at = min(per_s * self._burst_s, 1e6), time.monotonic()

    def begin_anew(self) -> None:
        """Forget what was asked, with all there is to give."""
        self.asked, self.answered_at, self.refused_at = [], [], []
        self._left = min(self.per_s * self._burst_s, 1e6)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """As `Provider`, but each call takes its time."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await Asked.read(reader)
                self.asked.append(asked)
                writer.writelines(await self._answer_to(asked))
                await writer.drain()

    async def _answer_to(self, asked: Asked) -> Sequence[bytes]:
        now_s = time.monotonic()
        if self.pauses_s:
            self.paused_until, self.pauses_s = now_s + self.pauses_s, 0.0
        if asked.body["model"] in self.down:
            return error_answer("529 Overloaded", "overloaded_error", retry_after="60")
        if self.refuses:
            return error_answer(self.refuses, "invalid_request_error")
        self._left = min(self.per_s * self._burst_s, self._left + (now_s - self._filled_at) * self.per_s)
        self._filled_at = now_s
        if now_s < self.paused_until or self._left < 1:
            self.refused_at.append(now_s)
            wait_s = max((1 - self._left) / self.per_s, self.paused_until - now_s)
            return error_answer(
                "429 Too Many Requests", "rate_limit_error", retry_after_ms=f"{wait_s * 1000:.0f}", **self._headers()
            )
        self._left -= 1
        self.answered_at.append(now_s)
        more = self._headers()
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(self._keeps_s)
        self.at_once -= 1
        said = f"answer {len(self.answered_at)}"
        if not asked.body.get("stream"):
            return json_answer(message(said, model=asked.body["model"]), **more)
        events = said_by(said)
        events[0]["message"]["model"] = asked.body["model"]
        return streamed(*events, whole=True, **more)

    def _headers(self) -> dict[str, str]:
        if not self._says or self.per_s > 1e6:
            return {}
        left = self._left if self.says_left is None else self.says_left
        reset_s = (self.per_s * self._burst_s - self._left) / self.per_s
        reset = (datetime.now(UTC) + timedelta(seconds=reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "anthropic_ratelimit_requests_limit": f"{self.per_s * 60:.0f}",
            "anthropic_ratelimit_requests_remaining": f"{max(left, 0) / self._burst_s * 60:.0f}",
            "anthropic_ratelimit_requests_reset": reset,
        }


@contextlib.asynccontextmanager
async def rated(per_s: float = 1e9, **more: Any) -> AsyncIterator[Rated]:
    """Serve while the context is open."""
    provider = Rated(per_s, **more)
    async with peer(provider.serve) as address:
        provider.url = f"http://{address}"
        yield provider
