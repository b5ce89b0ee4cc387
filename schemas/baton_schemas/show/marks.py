"""The sign of each status, wherever it is shown: it says what its colour says. Pure."""

from __future__ import annotations

MARKS = {
    "waiting": "·",
    "queued": "·",
    "joining": "○",
    "running": "●",
    "done": "✓",
    "failed": "✗",
    "skipped": "\N{EN DASH}",
    "dropped": "\N{EN DASH}",
    "cancelled": "\N{EN DASH}",
    "expired": "\N{EN DASH}",
}
"""By status of a run, a step, or a branch."""
