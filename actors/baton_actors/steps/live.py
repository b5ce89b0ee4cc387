"""Where the live words of a step go: out on the bus, or nowhere. It costs no write to the log."""

from __future__ import annotations

import contextlib

from baton_actors.agents.live import Live
from baton_bus.store.bus import Bus
from baton_schemas.wire.words import WROTE_CHARS_MAX, Running, Word, encode_word

from .job import Job

_CHAR_BYTES = 8
"""What a character takes as JSON at worst is six; the rest of a word has room beside it."""


def live_of(bus: Bus, job: Job) -> Live:
    """Return what speaks for the attempt that a job is about to make."""
    run, step = job.run, job.step

    def send(word: Word) -> None:
        with contextlib.suppress(Exception):  # a text that is none: no word is worth a step
            bus.say_soon(bus.subjects.live(run, "words", step), encode_word(word))

    chars_max = max(1, min(WROTE_CHARS_MAX, bus.nc.max_payload // _CHAR_BYTES))
    return Live(send, job.attempt, chars_max=chars_max, now_us=lambda: int(bus.now_s() * 1_000_000))


def announce(bus: Bus, job: Job) -> None:
    """Say that the step of a job is being done, since when, and what it said last."""
    says = job.live.says if job.live is not None else ""
    since_us = int((bus.now_s() - job.elapsed_s) * 1_000_000)
    word = Running(attempt=job.attempt, says=says, since_us=max(since_us, 0))
    bus.say_soon(bus.subjects.live(job.run, "running", job.step), encode_word(word))
