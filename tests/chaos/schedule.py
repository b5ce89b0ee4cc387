"""The faults of a chaos run, and when each comes: all of it follows from the seed."""

from __future__ import annotations

import random
from typing import NamedTuple

KINDS = {
    "kill a worker": 55,
    "stop a worker": 12,
    "kill the server": 7,
    "cut all connections": 7,
    "cut one connection": 13,
    "hold all traffic": 6,
}
"""How often each kind comes, in a hundred faults."""

_ONE_AT_A_TIME = frozenset({"kill the server", "hold all traffic"})
"""The next fault waits for the end of these; it comes at any time after the others."""


class Fault(NamedTuple):
    at_s: float
    """After the start of the run."""
    kind: str
    aim: float
    """From 0 to 1: which of the workers that there are by then."""
    aims_at_busy: bool
    """Whether a worker is chosen in which a handler runs."""
    lasts_s: float
    """How long a worker is stopped, traffic is held, or the server is away."""


def schedule(seed: int, kills: int, lease_s: float, gap_s: float) -> list[Fault]:
    """Return faults until `kills` workers are killed by them; `gap_s` is the mean wait between two."""
    dice = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    at_s, killed = 1.0, 0
    while killed < kills:
        at_s += dice.uniform(0.2, 1.8) * gap_s
        (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
        longer_than_a_lease_s = lease_s * dice.uniform(1.2, 2.0)
        lasts_s = dice.uniform(0, 1.5) * lease_s if kind == "kill the server" else longer_than_a_lease_s
        faults.append(Fault(at_s, kind, dice.random(), dice.random() < 0.7, lasts_s))
        killed += kind == "kill a worker"
        if kind in _ONE_AT_A_TIME:
            at_s += lasts_s
    return faults
