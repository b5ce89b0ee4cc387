"""What keeps an open page up to date: a stream of its parts, each sent anew when it has changed, as server-sent events.

Browsers open six connections to a host, all tabs together. So a browser has a few streams only: with one more the
oldest goes to sleep, and its page says so.
"""

from __future__ import annotations

import asyncio
import time

from msgspec import Struct

OPEN_MAX = 4
"""Streams of a browser at once: two connections are left for pages."""
OPEN_ALL_MAX = 200
"""Streams of all browsers."""
ASLEEP = "asleep"
"""The event that says that this stream is over, and the page is to say so."""
GONE = "gone"
"""The event that says that what the page shows is there no more."""
KEEPS_ALIVE_S = 15.0
"""So often something is sent, at least: whoever is gone is noticed."""


class Stream(Struct):
    """An open stream."""

    browser: str
    opened_at: float
    asleep: asyncio.Event


class Streams:
    """The streams that are open."""

    def __init__(self) -> None:
        self._open: list[Stream] = []

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def open(self, browser: str = "") -> Stream:
        """Return a new one of a browser; the oldest goes to sleep for it if there are too many."""
        own = [stream for stream in self._open if stream.browser == browser]
        for streams, most in ((own, OPEN_MAX), (self._open, OPEN_ALL_MAX)):
            for stream in streams[: max(len(streams) + 1 - most, 0)]:
                stream.asleep.set()
                self.close(stream)
        stream = Stream(browser, time.monotonic(), asyncio.Event())
        self._open.append(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """It is over."""
        if stream in self._open:
            self._open.remove(stream)


def event(data: str, name: str = "") -> bytes:
    """Return a server-sent event. Whatever ends a line in `data` begins one of its own: none can be forged."""
    lines = [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    head = [f"event: {name}"] if name else []
    return ("\n".join([*head, *lines]) + "\n\n").encode(errors="replace")


def partial(part: str, html: str) -> str:
    """Return a part of a page for htmx: it is morphed into the one of its id, which keeps focus and scroll."""
    return f'<hx-partial hx-target="#{part}" hx-swap="outerMorph">{html}</hx-partial>'
