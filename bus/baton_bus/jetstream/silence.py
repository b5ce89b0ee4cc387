"""What it means when a publish is not answered: an election, a stream that is gone, or a server that stores nothing."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from baton_bus.errors import JetStreamStopped, NoStream
from baton_bus.jetstream.requests import NoAnswer, Requests

STOPPED = frozenset({10039, 10076})
"""`JetStream not enabled for account` and `JetStream not enabled`."""
ELECTS_S = 0.1
_SILENCE_S = 0.5
"""Wait before a publish is tried again while there is no leader: when that is told, and when all are silent."""
_STREAM_NOT_FOUND = 10059
_OFF_S = (2.0, 15.0)
"""When nobody takes the log's subjects, and nobody answers about streams, for this long, JetStream is switched off: on
a server by itself, which is never silent otherwise, and in a cluster, whose elections take up to 5 s."""
_STUCK_S = (10.0, 20.0)
"""When a stream answers for itself, and a publish has no answer for this long, it is tried once more, for
`_ONCE_MORE_S`. A server (2.15.1) whose disk is full says nothing to who publishes, not even when there is room again.
The second number is a cluster's, whose leader may take 10 s to see that it leads nobody."""
_ONCE_MORE_S = 3.0
UNANSWERED_S = 10.0
"""How long a publish may stay without an answer before this is asked what it means."""


class ApiError(Struct):
    """Why a request was refused."""

    err_code: int = 0
    description: str = ""


class _Info(Struct):
    error: ApiError | None = None


_decode_info = msgspec.json.Decoder(_Info).decode


class Silence:
    """The silences in the life of one publish."""

    def __init__(self, nc: Client, requests: Requests, stream: str) -> None:
        self._nc, self._requests, self._stream = nc, requests, stream
        self._off_since: float | None = None
        self._asked_at: float | None = None
        self._is_suspect = False

    def broken(self) -> None:
        """There was an answer."""
        self._off_since = self._asked_at = None
        self._is_suspect = False

    async def unanswered(self, tried_at: float, left_s: float) -> float:
        """The publish had no answer. Return how long the next try may take.

        Raises `JetStreamStopped`, `NoStream` when it will have none.
        """
        now = asyncio.get_running_loop().time()
        if not self._nc.is_connected or self._requests.changed_at > tried_at:
            self.broken()
            return UNANSWERED_S
        self._asked_at = tried_at if self._asked_at is None else self._asked_at
        if now - self._asked_at < _STUCK_S["cluster" in self._nc._server_info]:
            return UNANSWERED_S
        answers = await self._info(left_s) is not None
        if answers and self._is_suspect:
            raise JetStreamStopped(f"the stream {self._stream!r} is there, and stores nothing")
        self._is_suspect = answers
        return _ONCE_MORE_S if answers else UNANSWERED_S

    async def nobody_listens(self, left_s: float) -> None:
        """Nobody takes messages on the subject: wait a moment for a leader. Raises as `unanswered`."""
        now = asyncio.get_running_loop().time()
        info = await self._info(left_s)
        if info is not None:
            self.broken()
            await asyncio.sleep(min(ELECTS_S, left_s))
            return
        if self._off_since is None:
            self._off_since = now
        elif self._nc.is_connected and now - self._off_since > _OFF_S["cluster" in self._nc._server_info]:
            raise JetStreamStopped("nobody answers about streams")

    async def _info(self, left_s: float) -> _Info | None:
        """Return what is said of the stream, None when nothing is. Raises as `unanswered`."""
        subject = self._requests.api.info(self._stream)
        try:
            answer = await self._requests.ask(subject, within_s=min(_SILENCE_S, left_s))
        except NoAnswer:
            return None
        if not answer.data:
            raise JetStreamStopped("nobody listens to the API of JetStream")
        info = _decode_info(answer.data)
        if info.error is not None and info.error.err_code == _STREAM_NOT_FOUND:
            raise NoStream(self._stream)
        if info.error is not None and info.error.err_code in STOPPED:
            raise JetStreamStopped(info.error.description)
        return info
