"""Errors of the pure layer. Each carries the facts it was raised for; none is told apart by its text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SchemaError(Exception):
    """Base of every error that `baton_schemas` raises."""


class BadToken(SchemaError):
    """A name cannot stand in a subject."""

    def __init__(self, what: str, value: str) -> None:
        """`what` says which name it is (`run id`, `step`); `value` is what was found."""
        self.what, self.value = what, value
        super().__init__(
            f"{what} {value!r} cannot be used in a subject: expected 1 to 64 characters from A-Z, a-z, 0-9, '_' and '-'"
        )


class BadMessage(SchemaError):
    """Bytes that are no message of ours: not JSON, an unknown kind, a wrong type or a newer version."""

    def __init__(self, reason: str, subject: str = "") -> None:
        """`reason` says what was found and what was expected; `subject` is where, if known."""
        self.reason, self.subject = reason, subject
        super().__init__(f"{subject}: {reason}" if subject else reason)


class FlowError(SchemaError):
    """A flow that cannot run. `place` is a key path (`steps.write.after`) or `line L, column C`."""

    def __init__(self, place: str, found: str, expected: str, *, file: str = "", hint: str = "") -> None:
        """Say where, what was found, what was expected, and (`hint`) the nearest valid name."""
        self.place, self.found, self.expected, self.file, self.hint = place, found, expected, file, hint
        where = f"{file}: {place}" if file else place
        tail = f" {hint}" if hint else ""
        super().__init__(f"{where}: found {found}; expected {expected}.{tail}")

    def in_file(self, file: str) -> FlowError:
        """Return the same error, naming the file it was found in."""
        return FlowError(self.place, self.found, self.expected, file=file, hint=self.hint)


class InputError(SchemaError):
    """An input that does not fit the flow's `[input]`: missing, extra, or of a wrong type."""

    def __init__(self, flow: str, place: str, reason: str, *, hint: str = "") -> None:
        """`place` is the key of the input; `reason` says what was found and what was expected."""
        self.flow, self.place, self.reason, self.hint = flow, place, reason, hint
        super().__init__(f"flow {flow!r}, input {place!r}: {reason}" + (f" {hint}" if hint else ""))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest known name, or lists the known ones, or ``""``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}." if names and len(names) <= 12 else ""
