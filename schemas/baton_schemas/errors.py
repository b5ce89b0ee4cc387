"""Errors of the pure layer. Each carries the facts it was raised for; none is told apart by its text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, ClassVar

_NAMED_MAX = 30
"""Names that an error lists."""


def snake_case(name: str) -> str:
    """Return `LogFull` as `log_full`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Coded:
    """Gives each class of errors a `code` that programs may rely on: it outlives the class's name, and its message."""

    code: ClassVar[str] = ""
    """In snake case, and of one class only; the name of the class, unless it sets another."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in vars(cls):
            cls.code = snake_case(cls.__name__)


class SchemaError(Coded, Exception):
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
    """Bytes that are no message of ours: not JSON, an unknown kind, a wrong type."""

    def __init__(self, reason: str, subject: str = "") -> None:
        """`reason` says what was found and what was expected; `subject` is where, if known."""
        self.reason, self.subject = reason, subject
        super().__init__(f"{subject}: {reason}" if subject else reason)


class NewerMessage(SchemaError):
    """A message of a later release: nothing is wrong with it, and whoever can read it will take it."""

    def __init__(self, found: int, known: int, subject: str = "") -> None:
        """Schema versions: of the message, and the latest that this release reads."""
        self.found, self.known, self.subject = found, known, subject
        where = f"{subject}: " if subject else ""
        super().__init__(f"{where}schema version {found}; this release reads up to {known}: upgrade baton-bus")


class FlowError(SchemaError):
    """A flow that cannot run. `place` is a key path (`steps.write.after`) or `line L, column C`."""

    def __init__(
        self, place: str, found: str, expected: str, *, file: str = "", hint: str = "", near: str = ""
    ) -> None:
        """Say where, what was found, what was expected, and (`hint`) the nearest valid name.

        `near` is what stands in the text at `place` where the mistake is: it tells the line of a long text.
        """
        self.place, self.found, self.expected, self.file, self.hint = place, found, expected, file, hint
        self.near = near
        where = f"{file}: {place}" if file else place
        tail = f" {hint}" if hint else ""
        super().__init__(f"{where}: found {found}; expected {expected}.{tail}")

    def in_file(self, file: str) -> FlowError:
        """Return the same error, naming the file it was found in."""
        return FlowError(self.place, self.found, self.expected, file=file, hint=self.hint, near=self.near)


class InputError(SchemaError):
    """An input that does not fit the flow's `[input]`: missing, extra, or of a wrong type."""

    def __init__(self, flow: str, place: str, reason: str, *, hint: str = "") -> None:
        """`place` is the key of the input; `reason` says what was found and what was expected."""
        self.flow, self.place, self.reason, self.hint = flow, place, reason, hint
        super().__init__(f"flow {flow!r}, input {place!r}: {reason}" + (f" {hint}" if hint else ""))


class UnknownStep(SchemaError):
    """A run has no such step, or no such branch of one."""

    def __init__(self, run: str, step: str, known: Iterable[str], *, hint: str = "") -> None:
        """`known` are the steps that it has, in the order of its flow; `hint` says what else may be meant."""
        self.run, self.step, self.known = run, step, tuple(known)
        close = difflib.get_close_matches(step, self.known, n=1, cutoff=0.6)
        hint = hint or (f"Did you mean {close[0]!r}?" if close else "")
        some = ", ".join(self.known[:_NAMED_MAX]) + (", …" if len(self.known) > _NAMED_MAX else "")
        super().__init__(f"run {run} has no step {step!r}. {hint}{' ' if hint else ''}Its steps: {some or 'none'}.")


class FlowUnreadable(SchemaError):
    """The log of a run has no flow that this release can read, so that nothing can be said of its steps."""

    def __init__(self, run: str, reason: str = "") -> None:
        """`reason` is why the run never began, if it did not."""
        self.run, self.reason = run, reason
        because = f" ({reason})" if reason else ""
        super().__init__(
            f"the log of run {run} has no flow that this release can read{because}: "
            f"`baton log {run}` prints what it has"
        )


class BadContent(SchemaError):
    """A value that the log cannot hold so that everybody can read it: text, numbers, nesting, size or type."""

    def __init__(self, place: str, reason: str) -> None:
        """`place` says where, from what was checked (`output.items[3].name`); `reason` says what was found."""
        self.place, self.reason = place, reason
        super().__init__(f"{place}: {reason}")


class BadFile(SchemaError):
    """A file that cannot be taken: too large, not what its name says, changed while it was read."""

    def __init__(self, name: str, reason: str) -> None:
        """`name` is that of the file; `reason` says what was found and what was expected."""
        self.name, self.reason = name, reason
        super().__init__(f"{name} {reason}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest known name, or lists the known ones, or ``""``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}." if names and len(names) <= 12 else ""
