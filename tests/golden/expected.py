"""What a golden log must replay to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry


class Expected(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The state of a run, as far as it must never change for a log that is written."""

    status: str
    steps: dict[str, str]
    outputs: dict[str, Any]
    cost_usd: float | None = None
    wasted_usd: float = 0.0
    retries: dict[str, int] = {}
    branches: dict[str, list[str]] = {}
    """By join: what it closed with."""
    reused: list[str] = []
    late: list[str] = []
    forked_from: str = ""


def expected_of(entries: Iterable[Entry]) -> Expected:
    """Return what a log replays to now."""
    state = fold(entries)
    steps = state.steps
    outputs = {name: step.output for name, step in steps.items() if step.output is not None}
    return Expected(
        status=state.status,
        steps={name: step.status for name, step in steps.items()},
        outputs={name: msgspec.json.decode(output) for name, output in outputs.items()},
        cost_usd=state.cost_usd,
        wasted_usd=state.wasted_usd,
        retries={name: step.retries for name, step in steps.items() if step.retries},
        branches={name: step.branches for name, step in steps.items() if step.branches},
        reused=[name for name, step in steps.items() if step.reused],
        late=state.late,
        forked_from=state.forked_from,
    )
