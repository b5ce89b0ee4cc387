"""What can be wrong with an index, and with what is asked of it. Nothing is lost: all of it is in the log."""

from __future__ import annotations

from pathlib import Path

from baton_bus.errors import BusError

BUSY_S = 2.0
"""How long a file is waited for that somebody holds: a writer does for some milliseconds."""


class IndexUnusable(BusError):
    """The index cannot be used. Nothing is lost: all of it is in the log."""

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        """`reason` is what was found, `advice` what to do."""
        self.path, self.reason, self.advice = path, reason, advice
        super().__init__(f"the index {path} {reason}. {advice}")


class IndexBusy(IndexUnusable):
    """Another process writes it."""

    def __init__(self, path: Path, pid: int) -> None:
        """`pid` of whoever does; 0 when that is not known."""
        self.pid = pid
        who = f"pid {pid}" if pid else "another process"
        super().__init__(path, f"is kept by {who} already", "It is up to date while that runs; `baton runs` uses it.")


class IndexForeign(IndexUnusable):
    """What is there is no index of ours, and stays as it is."""

    def __init__(self, path: Path, found: str) -> None:
        """`found` says what it is instead."""
        super().__init__(path, f"is {found}", "Expected an index that `baton index` has made: move the file away.")


class IndexLocked(IndexUnusable):
    """Some other program holds the file."""

    def __init__(self, path: Path) -> None:
        """`path` is the file."""
        super().__init__(path, f"was locked by another program for {BUSY_S:g} s", "Close what has it open.")


class IndexOutdated(IndexUnusable):
    """It is of another log, of another release, or damaged: to be made anew."""

    def __init__(self, path: Path, reason: str) -> None:
        """`reason` says which."""
        super().__init__(path, reason, "`baton index` makes it anew.")


class LogReplaced(BusError):
    """The stream was deleted and made anew: the index is of one that is gone."""

    def __init__(self, stream: str) -> None:
        """`stream` is its name."""
        self.stream = stream
        super().__init__(f"the stream {stream} was deleted and made anew. `baton index` makes the index anew.")


class NoWords(BusError, ValueError):
    """What is looked for has no word in it."""

    def __init__(self, text: str) -> None:
        """`text` as it was given."""
        self.text = text
        super().__init__(f"{text!r} has no word to look for: expected letters or digits")
