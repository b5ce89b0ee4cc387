"""An error of a step in one line: `KeyError: 'prio' at triage.py:31 in lookup (3 tries)`."""

from __future__ import annotations

from baton_schemas.wire.outcomes import Error, Place

_FILE_MAX = 40
"""Characters of a path that is shown whole; of a longer one only the name is."""


def told(error: Error, *, message: str | None = None) -> str:
    """Return what went wrong, where, and after how many tries; `message` in place of its own, which may be long."""
    said = error.message if message is None else message
    return f"{error.type}: {said}{at(error.at)}{tries(error)}"


def at(place: Place | None) -> str:
    """Return ` at triage.py:31 in lookup`, to be put after a message; nothing when the place is not known."""
    if place is None:
        return ""
    is_short = len(place.file) <= _FILE_MAX and not place.file.startswith(("/", "…"))
    file = place.file if is_short else place.file.rpartition("/")[2]
    return f" at {file}:{place.line}" + (f" in {place.function}" if place.function else "")


def tries(error: Error) -> str:
    """Return ` (3 tries)` when there were several, and the id by which the model's provider knows the request."""
    counted = f" ({error.attempts} tries)" if error.attempts > 1 else ""
    return counted + (f" [request {error.request_id}]" if error.request_id else "")
