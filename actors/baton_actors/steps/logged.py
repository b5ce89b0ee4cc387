"""What the logs say besides each event: which step it is about, for as long as this task and those it makes do it."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

_fields: ContextVar[dict[str, str]] = ContextVar("fields of the logs")
"""One variable for all: structlog's own way is one for each field, found by its name, at every step."""


def log_with(**fields: str) -> None:
    """Add these to what is logged from here on."""
    _fields.set(fields)


def fields() -> dict[str, str]:
    """Return what is added here: `run`, `step` and `actor` within a step, else nothing."""
    return _fields.get({})


def add_fields(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add them to an event, unless it says otherwise: a processor of structlog."""
    return {**_fields.get({}), **event}
