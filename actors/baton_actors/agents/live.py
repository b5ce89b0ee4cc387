"""What a step says while it is done: progress that a handler tells, and the text that a model writes.

Bounded on the way out: whatever is said more often goes out every `EVERY_S`, at once when nothing did shortly before,
and the last one always. It never fails, and never waits: what cannot go out is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator

from baton_schemas.wire.values import clean_text
from baton_schemas.wire.words import WROTE_CHARS_MAX, Said, Word, Wrote, said_text

EVERY_S = 0.08
"""From one sending of a step to the next: smooth to the eye, and at most 13 messages a second and kind."""
_KEPT_CHARS_MAX = 8 * WROTE_CHARS_MAX
"""Of a text that waits to be sent. A model writes some hundred characters in that time; a rehearsal, all it has."""


class Told:
    """What `say` returns: it may be awaited, which gives the loop a turn to send it; or it is left."""

    def __await__(self) -> Generator[None]:
        yield


TOLD = Told()


class Live:
    """Speaks for one attempt at a step. `say` may be called from any thread, the rest in the loop that made it."""

    def __init__(
        self,
        send: Callable[[Word], None],
        attempt: int,
        *,
        chars_max: int = WROTE_CHARS_MAX,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`send` publishes a word, at once and without raising; `chars_max` is what one of them may hold.

        `now_us` is a clock that all workers of the step agree on, in microseconds.
        """
        self.says = ""
        """What was said last."""
        self._send, self._attempt, self._chars_max, self._now_us = send, attempt, chars_max, now_us
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._said: str | None = None
        self._writing: dict[int, _Writing] = {}
        self._take = 0
        self._is_due = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = float("-inf")

    def say(self, what: object) -> None:
        """Say one line, in place of the one before."""
        try:
            text = said_text(what if isinstance(what, str) else str(what))
        except Exception:  # of the object's own `__str__`
            text = said_text(type(what).__name__)
        with self._lock:
            self.says = self._said = text
        self._send_soon()

    def writes(self, of: str = "") -> Callable[[str], None]:
        """Begin a text, and return what takes its chunks. `of` names it among several; empty for the step's output."""
        self._take = max(self._take + 1, self._now_us())
        return _Writing(self, self._take, of).add

    def close(self) -> None:
        """Send what is left. Nothing is said any more after."""
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._is_due:
            self._flush()
        self._closed = True

    def keep(self, writing: _Writing) -> None:
        """Send what a text has more, when it is time."""
        self._writing[writing.take] = writing
        self._send_soon()

    def _send_soon(self) -> None:
        with self._lock:
            if self._is_due or self._closed:
                return
            self._is_due = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there who would send it
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if self._closed or not self._is_due:
            return
        wait_s = self._sent_at + EVERY_S - self._loop.time()
        if wait_s <= 0:
            self._flush()
        else:
            self._timer = self._loop.call_later(wait_s, self._flush)

    def _flush(self) -> None:
        self._timer, self._sent_at = None, self._loop.time()
        with self._lock:
            said, self._said, self._is_due = self._said, None, False
        writing, self._writing = self._writing, {}
        if said is not None:
            self._send(Said(attempt=self._attempt, text=said))
        for text in writing.values():
            for at, part in text.parts(self._chars_max):
                self._send(Wrote(attempt=self._attempt, take=text.take, of=text.of, at=at, text=part))


class _Writing:
    """A text that grows, as far as it is not sent."""

    def __init__(self, live: Live, take: int, of: str) -> None:
        self._live, self.take, self.of = live, take, of
        self._at = 0
        self._chunks: list[str] = []
        self._size = 0

    def add(self, chunk: str) -> None:
        """Take a chunk in; more than is kept is lost, and whoever listens sees the gap."""
        self._chunks.append(clean_text(chunk, len(chunk)))
        self._size += len(self._chunks[-1])
        if self._size > _KEPT_CHARS_MAX:
            self._take_all()
        elif self._size:
            self._live.keep(self)

    def parts(self, chars_max: int) -> list[tuple[int, str]]:
        """Return what was not sent, each part with the number of characters before it."""
        begin = self._at
        text = self._take_all()
        return [(begin + at, text[at : at + chars_max]) for at in range(0, len(text), chars_max)]

    def _take_all(self) -> str:
        text = "".join(self._chunks)
        self._chunks, self._size = [], 0
        self._at += len(text)
        return text
