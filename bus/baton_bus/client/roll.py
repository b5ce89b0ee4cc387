"""The roll call: who is at work on a run right now, and which processes are there.

Nothing of it is stored, and nobody says it unless somebody asks. Workers of the first release do not answer; they say
what they are doing every two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager

from baton_bus.errors import BusUnavailable
from baton_bus.store.bus import Bus
from baton_bus.subjects import ROLL
from baton_schemas.wire.words import Here, Running, read_here, read_running

_HERE_MAX = 2_000
"""Processes that are told apart: more than that are no workers of ours."""
_OF_STREAM = "$JS."
"""How the API begins where streams are of our own account: in another one, nobody hears what we ask workers."""
WAIT_S = 0.3
"""How long answers are waited for: a worker that does not answer by then is busy, or far away."""


def ask_roll(bus: Bus, run: str | None = None) -> bool:
    """Have workers say what they hold of a run, or (without one) that they are there; False where nobody hears it.

    What they say is heard by whoever listens to the live words of the run, or on `Subjects.here`.
    """
    subject = bus.subjects.roll(run) if run is not None else bus.subjects.roll()
    if not bus.settings.api_prefix.startswith(_OF_STREAM) or bus.was_refused(subject[subject.rfind(f".{ROLL}.") :]):
        return False  # users of an earlier release may not ask, and the server tells each time
    bus.say_soon(subject, b"")
    return True


async def held_of(bus: Bus, run: str, steps: Container[str], count: int, wait_s: float) -> dict[str, Running]:
    """Return what workers say that they are doing of a run, by step, once `count` of these steps are told of.

    Or after `wait_s`: a step of which nobody says so is in nobody's hands, or in those of an older worker. Never
    raises.
    """
    found: dict[str, Running] = {}
    enough = asyncio.Event()

    def on_word(subject: str, body: bytes) -> None:
        of = bus.subjects.live_of(subject)
        word = read_running(of[2], body) if of is not None else None
        if word is not None and word.step in steps and len(found) < count:
            found[word.step] = word
            if len(found) >= count:
                enough.set()

    with contextlib.suppress(BusUnavailable, TimeoutError):
        async with bus.hearing(bus.subjects.live(run, "running", "*"), on_word, sure=False):
            if ask_roll(bus, run):
                async with asyncio.timeout(wait_s):
                    await enough.wait()
    return found


async def roll_call(bus: Bus, wait_s: float = WAIT_S) -> list[Here]:
    """Return who is there, by host and process. Raises `BusUnavailable`."""
    async with Crew(bus).hearing() as crew:
        crew.ask()
        await asyncio.sleep(wait_s)
        return crew.here()


class Crew:
    """Who is there, as long as somebody asks."""

    def __init__(self, bus: Bus, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is called when somebody came, or has something else in hand."""
        self._bus, self._on_change = bus, on_change
        self._heard: dict[tuple[str, int], tuple[float, Here]] = {}
        self.asked_at = 0.0
        """When it was asked last, by the monotonic clock."""

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[Crew]:
        """Hear who answers while the context is open. Raises `BusUnavailable`."""
        async with self._bus.hearing(self._bus.subjects.here(), self._on_here, sure=False):
            yield self

    def ask(self) -> bool:
        """Ask who is there; False where nobody hears it."""
        self.asked_at = time.monotonic()
        return ask_roll(self._bus)

    def here(self, within_s: float = 60.0) -> list[Here]:
        """Return who has said so within so many seconds, by host and process."""
        since = time.monotonic() - within_s
        self._heard = {key: each for key, each in self._heard.items() if each[0] >= since}
        return [here for _, (_, here) in sorted(self._heard.items())]

    def forget(self) -> None:
        """Let go of all who said so: who is there says it again when it is asked."""
        self._heard.clear()

    def _on_here(self, subject: str, body: bytes) -> None:
        here = read_here(body)
        if here is None:
            return
        key = (here.host, here.pid)
        before = self._heard.get(key)
        if before is None and len(self._heard) >= _HERE_MAX:
            return
        self._heard[key] = (time.monotonic(), here)
        if before is None or before[1] != here:
            self._on_change()
