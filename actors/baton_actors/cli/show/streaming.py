"""`baton run --stream`: the text of the last step on stdout as it is written, or all words as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import msgspec
from msgspec import Raw
from rich.console import Console
from rich.text import Text

from baton_actors.cli.show.wrapping import Wrapping
from baton_actors.cli.text import plain, plain_lines
from baton_schemas.flow.graph import Plan
from baton_schemas.show.heard import Hearing, Piece
from baton_schemas.wire.words import Said, Word


class Streaming:
    """Prints what is heard. `hear` returns at once; a thread prints, as whoever reads may be slow."""

    def __init__(self, plan: Plan, out: Console, *, json: bool) -> None:
        """`out` is where it is said that a text is written anew."""
        self._step, self._out, self._json = plan.final, out, json
        self._hearing, self._printer = Hearing(), _Printer()
        self._to_terminal = not json and sys.stdout.isatty()
        self._wrapping = Wrapping(out.width) if self._to_terminal and out.is_terminal else None
        self._ends_line, self._ended = True, False

    @property
    def is_writing(self) -> bool:
        """Whether a text was begun and has no end yet: stdout may be a terminal, be it through a pipe."""
        return bool(self._hearing.shown) and not self._ended

    def hear(self, word: Word) -> None:
        """Print what a word adds."""
        if self._json:
            event = "said" if isinstance(word, Said) else "wrote"
            fields = {name: getattr(word, name) for name in word.__struct_fields__}
            self._printer.put(lambda: _write(msgspec.json.encode({"event": event, **fields}) + b"\n"))
        elif not isinstance(word, Said) and word.step == self._step and not word.of:
            begins = not self._hearing.shown
            piece = self._hearing.hear(word)
            if begins and piece.text and self._to_terminal:
                self._printer.put(lambda: _write(b"\n"))
            self._show(piece)

    async def end(self, output: Raw | None) -> bool:
        """Print what is left of the text; say whether all of the output is printed.

        `output` is that of the run; None when it has none: then what was begun is left as it is.
        """
        whole = None
        with contextlib.suppress(ValueError, RecursionError):  # no JSON, as a stranger may have published it
            whole = None if output is None else msgspec.json.decode(output)
        begun = bool(self._hearing.shown)
        if begun and isinstance(whole, str):
            self._show(self._hearing.end(whole))
        self._end_line()
        if begun and self._to_terminal:
            self._printer.put(lambda: _write(b"\n"))
        printed = await self._printer.end()
        self._ended = True
        return begun and isinstance(whole, str) and printed

    def break_off(self) -> None:
        """Print no more: the command is stopped."""
        self._end_line()
        self._printer.put(None)

    def _show(self, piece: Piece) -> None:
        if piece.anew:
            self._end_line()
            why = (
                f"attempt {piece.attempt} writes it anew" if piece.attempt else "the text that was recorded is another"
            )
            line = Text(f"· {plain(self._step)}: {why}", "yellow")
            self._printer.put(lambda: self._out.print(line, soft_wrap=True))
        self._print(piece.text)

    def _print(self, text: str) -> None:
        if not text:
            return
        self._ends_line = text.endswith("\n")
        if self._to_terminal:
            text = plain_lines(text)
        if self._wrapping is not None:
            text = self._wrapping.add(text)
        self._printer.put(lambda: _write(text.encode(errors="replace")))

    def _end_line(self) -> None:
        left = self._wrapping.end() if self._wrapping is not None else ""
        left += "" if self._ends_line else "\n"
        self._ends_line = True
        if left:
            self._printer.put(lambda: _write(left.encode(errors="replace")))


class _Printer:
    """A thread that does what is put in, one after the other, until it gets None, or stdout is gone."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._gone = False
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="streaming", daemon=True).start()

    def put(self, job: Callable[[], Any] | None) -> None:
        self._jobs.put(job)

    async def end(self) -> bool:
        """Wait until all is printed; say whether it could be."""
        self._jobs.put(None)
        await self._ended.wait()
        return not self._gone

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._gone:
                try:
                    job()
                except (OSError, ValueError, AttributeError):  # stdout is closed, or was never there
                    self._gone = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ended.set)


def _write(data: bytes) -> None:
    # Past the buffers of Python: a thread that holds their lock, as nobody reads, is fatal to a process that ends.
    stdout = sys.stdout.fileno()
    while data:
        data = data[os.write(stdout, data) :]
