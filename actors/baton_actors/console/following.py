"""Follows a page: makes it again when something came that changes it, and sends the parts that are not as they were."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.requests import Request

from baton_actors.errors import ActorError
from baton_bus.errors import BusError, UnknownRun
from baton_bus.index.errors import IndexUnusable
from baton_schemas.errors import SchemaError

from .bell import Bell
from .core import Console
from .page import LISTS, LOG, QUEUES, MakePage, Page
from .streams import ASLEEP, GONE, KEEPS_ALIVE_S, Stream, event, partial

_EVERY_S = 0.04
"""From one sending to the next at least: 25 a second are smooth to the eye."""
_SHARE = 3.0
"""And at least so many times as long as the last one took: a large page takes at most a quarter of a core."""
_CONNECTED_EVERY_S = 0.25
"""How often it is looked whether the server is there."""


async def follow(console: Console, make: MakePage, request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a page as events, whenever they change, until its browser is gone or it goes to sleep."""
    stream = console.streams.open()
    try:
        async for data in _events(console, make, request, stream):
            yield data
        yield event("", ASLEEP)
    finally:
        console.streams.close(stream)


async def _events(console: Console, make: MakePage, request: Request, stream: Stream) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    parts, lag, is_gone = _Parts(), _Lag(), False
    page = _page(await _made(console, make, request))
    while not stream.asleep.is_set():
        sources = page.sources if page is not None else ()
        async with _bells(console, sources) as bells:
            hears_all = len(bells) == len(sources) and page is not None
            while not stream.asleep.is_set():
                began, counts = loop.time(), [bell.count for bell in bells]
                connected = console.is_connected
                made = await _made(console, make, request)
                if isinstance(made, UnknownRun) and not is_gone:
                    yield event("this run is in the log no more: what is shown is as it was", GONE)
                is_gone = isinstance(made, UnknownRun)
                page = _page(made) or page
                if page is not None:
                    due = parts.due(page, began)
                    built = console.rendering.parts(page, request, due, status=console.status())
                    changed = "".join(partial(name, html) for name, html in parts.changed(built, began))
                    now_s = console.bus.now_s() if page.stored_at_s else 0.0
                    age_s = lag.shown(page.stored_at_s, now_s, changed=bool(changed), whole=not parts.held)
                    if age_s is not None:
                        yield event(f"{age_s * 1_000:.1f}", "lag")
                    if changed:
                        yield event(changed)
                took_s = loop.time() - began
                await asyncio.sleep(max(_EVERY_S - took_s, took_s * _SHARE))
                if not hears_all:  # the server was away when it was asked to be heard
                    await _news(console, bells, counts, stream, _CONNECTED_EVERY_S, connected)
                    if console.is_connected:
                        break
                    continue
                if parts.held:
                    left_s = max(parts.next_at - loop.time(), 0.0)
                    await _news(console, bells, counts, stream, left_s, connected)
                    continue
                every_s = page.every_s if page is not None and page.every_s else KEEPS_ALIVE_S
                if not await _news(console, bells, counts, stream, every_s, connected):
                    yield b": still here\n\n"


def _page(made: Page | UnknownRun | None) -> Page | None:
    return made if isinstance(made, Page) else None


class _Parts:
    """What was sent of each part, and when it may be sent again."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}
        self._free_at: dict[str, float] = {}
        self._paces: Mapping[str, float] = {}
        self.held: set[str] = set()
        """Parts that were not looked at for it was too soon: there may be more of them."""

    @property
    def next_at(self) -> float:
        """When the first of those that are held may be sent (of the loop's time)."""
        return min((self._free_at[name] for name in self.held), default=0.0)

    def due(self, page: Page, now: float) -> Callable[[str], bool]:
        """Return what says of a part whether it may be sent now."""
        self._paces, self.held = page.paces, set()

        def is_due(name: str) -> bool:
            if self._free_at.get(name, now) <= now:
                return True
            self.held.add(name)
            return False

        return is_due

    def changed(self, made: Iterable[tuple[str, str]], now: float) -> Iterator[tuple[str, str]]:
        """Yield those parts that are not as they were sent."""
        for name, html in made:
            if self._sent.get(name) != html:
                self._sent[name], self._free_at[name] = html, now + self._paces.get(name, 0.0)
                yield name, html


class _Lag:
    """How old is what is shown: counted from the first message since the last sending."""

    def __init__(self) -> None:
        self._shown_s = self._waits_s = 0.0

    def shown(self, stored_at_s: float, now_s: float, *, changed: bool, whole: bool) -> float | None:
        """Take that a page was sent, and what is its last message; return its age in seconds, None for nothing new."""
        if stored_at_s > self._shown_s:
            is_first, self._shown_s = not self._shown_s, stored_at_s
            self._waits_s = 0.0 if is_first else self._waits_s or stored_at_s
        age_s = max(now_s - self._waits_s, 0.0) if changed and self._waits_s else None
        if changed or whole:  # what changed nothing is not waited for
            self._waits_s = 0.0
        return age_s


async def _made(console: Console, make: MakePage, request: Request) -> Page | UnknownRun | None:
    """Return the page as it is now, or that its run is gone; None when it cannot be made: what is shown stays."""
    try:
        made = await make(console, request)
        return made if isinstance(made, Page) else None
    except UnknownRun as error:
        return error
    except IndexUnusable as error:
        console.index.broken(error)
    except (BusError, SchemaError, ActorError, ValueError):
        pass
    return None


async def _news(
    console: Console, bells: Sequence[Bell], counts: Sequence[int], stream: Stream, every_s: float, connected: bool
) -> bool:
    """Wait for something that changes the page, or so long; say whether something came."""
    waiting = [asyncio.create_task(bell.wait(count)) for bell, count in zip(bells, counts, strict=True)]
    waiting.append(asyncio.create_task(stream.asleep.wait()))
    left_s = every_s
    try:
        while left_s > 0:
            done, _ = await asyncio.wait(
                waiting, timeout=min(left_s, _CONNECTED_EVERY_S), return_when=asyncio.FIRST_COMPLETED
            )
            if done or console.is_connected != connected:
                return True
            left_s -= _CONNECTED_EVERY_S
        return False
    finally:
        for task in waiting:
            task.cancel()


@asynccontextmanager
async def _bells(console: Console, sources: Sequence[str]) -> AsyncIterator[list[Bell]]:
    """Have the sources of a page heard while the context is open; yield what rings when one of them has more."""
    async with contextlib.AsyncExitStack() as stack:
        bells: list[Bell] = []
        for source in sources:
            kind, _, run = source.partition(" ")
            with contextlib.suppress(BusError):
                if kind == LISTS:
                    bells.append(console.index.bell)
                elif kind == LOG:
                    bells.append(await stack.enter_async_context(console.tail.watching()))
                elif kind == QUEUES:
                    bells.append(await stack.enter_async_context(console.queues.watching()))
                elif kind == "run":
                    bells.append((await stack.enter_async_context(console.feeds.watching(run))).bell)
        yield bells
