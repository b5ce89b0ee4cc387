"""What messages of a log make of rows: each run is folded as `show` folds it, so that both say the same. No I/O.

A log is read from its end backwards, in windows, each from its beginning on. So a run that reaches over several windows
is met from its end: its messages are held until the window comes in which it begins. What of that is too much to be
held is let go; such a run is *torn*, and read again as a whole once its beginning is found.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from baton_bus.client.runs import is_beginning
from baton_bus.jetstream.gets import Stored
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.wire.messages import Result

from .row import Folding, Given

HELD_MAX_BYTES = 64 * 1024 * 1024
"""Messages held of runs whose beginning is still to come."""
FOLDS_MAX, FOLDS_MAX_BYTES = 4_000, 64 * 1024 * 1024
"""Runs that are remembered while they go on, and their messages; one of the others is read again when it goes on."""
WINDOW_MAX_BYTES = 64 * 1024 * 1024
"""Messages of one window that are held until it is read, and each of its runs is folded in one go: that takes a third
less time than all of them by turns."""
_ALL = 2**63
_NOBODY = "-"
"""In place of a run, in notes on messages that name none."""
_BEGINNINGS = frozenset({"start", "join"})
"""How the subject of a first handoff ends."""


class Projector:
    """Takes the messages of a log, and has what is to be written."""

    def __init__(self, torn: Iterable[str] = ()) -> None:
        """`torn` are the runs of which later messages were read before now, and not where they begin."""
        self.ready: dict[str, Given] = {}
        """Rows to be written."""
        self.unknown: set[str] = set()
        """Runs of which there is something new, and of which too little is known: their logs are to be read."""
        self.gone: set[str] = set()
        """Runs that were purged."""
        self.torn: set[str] = set(torn)
        """Runs of which later messages were read, and not where they begin."""
        self._going: OrderedDict[str, Folding] = OrderedDict()
        self._going_bytes = 0
        self._changed: set[str] = set()
        self._window: dict[str, list[Stored]] = {}
        self._window_bytes = 0
        self._begun: dict[str, Folding] = {}
        """Runs of the window that are folded as far as it has come, as it is too much to be held."""
        self._folded: dict[str, tuple[Folding | None, Given | None]] = {}
        """Runs that begin in the window, as they go on unless they have ended; without a row those that were purged."""
        self._pieces: dict[str, list[Stored]] = {}
        self._held: dict[str, list[list[Stored]]] = {}
        """By run: what each window had of it, that of the newest first."""
        self._held_bytes = 0
        self._read_anew: set[str] = set()
        """Runs whose windows, still to come, have nothing new: they may even have too little."""
        self._behind = True

    # ---- as it goes on -----------------------------------------------------------------------------

    def hear(self, each: Stored) -> None:
        """Take the next message of a log that goes on."""
        run = _run_of(each.subject)
        if not run:
            return
        entry = read_entry(each.seq, each.at, each.subject, each.data)
        if self._is_tomb(run, entry):
            return
        going = self._going.get(run)
        if going is None:
            if _may_begin(each.subject) and is_beginning(entry) and run not in self.torn:
                self.keep(run, Folding(entry))
                self._changed.add(run)
            else:
                self.unknown.add(run)
        else:
            self._going_bytes -= going.size_bytes
            going.apply(entry)
            self._going_bytes += going.size_bytes
            self._going.move_to_end(run)
            self._changed.add(run)

    def changed(self) -> None:
        """Make rows of the runs that changed since, and let go of those that there is no room for."""
        for run in self._changed:
            if (going := self._going.get(run)) is not None:
                self.ready[run] = going.given(run)
        self._changed.clear()
        while len(self._going) > FOLDS_MAX or (self._going_bytes > FOLDS_MAX_BYTES and len(self._going) > 1):
            self._forget(next(iter(self._going)))

    def keep(self, run: str, going: Folding) -> None:
        """Remember a run, as it may go on."""
        self._forget(run)
        self._going[run] = going
        self._going_bytes += going.size_bytes

    def read_whole(self, run: str, going: Folding | None) -> None:
        """Take a run whose whole log was read; None when it has no beginning there, or was purged."""
        self.unknown.discard(run)
        if self._behind:
            self._read_anew.add(run)
        self._release(run)
        self._forget(run)
        if going is None or going.purged:
            self.gone.add(run)
            return
        self.keep(run, going)
        self.ready[run] = going.given(run)

    # ---- what was before ---------------------------------------------------------------------------

    def take(self, some: Iterable[Stored]) -> None:
        """Take the next messages of a window."""
        window = self._window
        for each in some:
            parts = each.subject.split(".", 4)
            if len(parts) < 5 or (run := parts[3]) == _NOBODY:
                continue
            self._window_bytes += len(each.data)
            found = window.get(run)
            if found is None:
                window[run] = [each]
            else:
                found.append(each)
        if self._window_bytes > WINDOW_MAX_BYTES:
            self._fold_early()

    def fold_some(self, messages: int) -> bool:
        """Fold runs of the window that is read, about so many messages of them; say whether there are more.

        Nothing comes of it before `end_window`: what was heard meanwhile may know better.
        """
        while self._window and messages > 0:
            run, found = self._window.popitem()
            messages -= len(found)
            self._fold(run, found)
        return bool(self._window)

    def end_window(self) -> None:
        """A window is read: have rows of the runs that begin in it, and hold what is of others."""
        while self.fold_some(_ALL):
            pass
        for run, (folding, given) in reversed(self._folded.items()):
            if run in self._read_anew or (run in self.torn and run not in self._held):
                self.unknown.add(run)
                continue
            self._release(run)
            if given is None:  # and the purge was broken off
                self.gone.add(run)
                continue
            self.ready[run] = given
            if folding is not None:
                self.keep(run, folding)
        self._folded.clear()
        for run, piece in self._pieces.items():
            self._hold(run, piece)
        self._pieces.clear()
        self._begun.clear()
        self._window_bytes = 0

    def _fold(self, run: str, found: list[Stored]) -> None:
        """Fold what a window has of a run, and what is held of it."""
        folding, after = self._begin(run, found)
        if folding is None:
            return
        folding.take(after)
        for piece in reversed(self._held.get(run, ())):
            folding.take(piece)
        given = None if folding.purged else folding.given(run)
        self._folded[run] = (None if folding.ended else folding, given)

    def _begin(self, run: str, found: list[Stored]) -> tuple[Folding | None, list[Stored]]:
        """Return a run as it begins among these messages, and those after that; what is before it is held."""
        begun = self._begun.pop(run, None)
        if begun is not None:
            return begun, found
        for place, each in enumerate(found):
            if _may_begin(each.subject):
                entry = read_entry(each.seq, each.at, each.subject, each.data)
                if is_beginning(entry):
                    before, after = found[:place], found[place + 1 :]
                    if before:
                        self._pieces.setdefault(run, []).extend(before)
                    return Folding(entry), after
        self._pieces.setdefault(run, []).extend(found)
        return None, []

    def _fold_early(self) -> None:
        """Fold what came of a window so far: its messages are too much to be held."""
        for run, found in self._window.items():
            folding, after = self._begin(run, found)
            if folding is not None:
                folding.take(after)
                self._begun[run] = folding
        self._window = {run: [] for run in self._window}
        self._window_bytes = 0

    def settled(self) -> None:
        """All is read that was there: the runs whose beginning was not found have none."""
        for run in list(self.torn):
            self._release(run)
        self._read_anew.clear()
        self._behind = False

    def _hold(self, run: str, piece: list[Stored]) -> None:
        size_bytes = sum(len(each.data) for each in piece)
        if run in self.torn and run not in self._held:
            return
        self.torn.add(run)
        if self._held_bytes + size_bytes > HELD_MAX_BYTES:
            self._drop_pieces(run)
            return
        self._held.setdefault(run, []).append(piece)
        self._held_bytes += size_bytes

    def _release(self, run: str) -> list[list[Stored]]:
        self.torn.discard(run)
        return self._drop_pieces(run)

    def _drop_pieces(self, run: str) -> list[list[Stored]]:
        pieces = self._held.pop(run, [])
        self._held_bytes -= sum(len(each.data) for piece in pieces for each in piece)
        return pieces

    # ---- both --------------------------------------------------------------------------------------

    def _is_tomb(self, run: str, entry: Entry) -> bool:
        """Say whether a run was purged here; then nothing is left of it."""
        if not isinstance(entry.message, Result) or not entry.message.purged:
            return False
        self._forget(run)
        self._release(run)
        self.ready.pop(run, None)
        self.unknown.discard(run)
        self.gone.add(run)
        if self._behind:  # what is read of it meanwhile is of before
            self._read_anew.add(run)
        return True

    def _forget(self, run: str) -> None:
        if (going := self._going.pop(run, None)) is not None:
            self._going_bytes -= going.size_bytes


def _run_of(subject: str) -> str:
    """Return the run that a message is of; empty when it is of none."""
    parts = subject.split(".", 4)
    return "" if len(parts) < 5 or parts[3] == _NOBODY else parts[3]


def _may_begin(subject: str) -> bool:
    """Say whether a run may begin with a message."""
    parts = subject.split(".")
    return parts[1] == "result" or (parts[1] == "handoff" and parts[-1] in _BEGINNINGS)
