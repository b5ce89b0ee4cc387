"""The faults of a chaos run, and when each comes: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

WORKERS = {
    "kill a worker": 45,
    "stop a worker": 10,
    "step a clock": 5,
    "send all workers away": 2,
    "limit the model": 5,
}
"""How often each kind comes, in about a hundred faults. These are possible wherever the servers are."""
ONE_SERVER = WORKERS | {
    "kill the server": 6,
    "stall the server": 5,
    "cut all connections": 6,
    "cut one connection": 11,
    "hold all traffic": 4,
    "hold what clients are told": 2,
    "slow all traffic": 2,
}
DISK = {"fill the disk": 3}
CLUSTER = WORKERS | {
    "kill the leader": 5,
    "kill a follower": 10,
    "stop the leader": 4,
    "stop a follower": 10,
}

_ONE_AT_A_TIME = frozenset(
    {
        "kill the server",
        "stall the server",
        "hold all traffic",
        "hold what clients are told",
        "fill the disk",
        "send all workers away",
        "kill the leader",
        "kill a follower",
        "stop the leader",
        "stop a follower",
    }
)
"""The next fault waits for the end of these; it comes at any time after the others."""
_STALLS_S = (0.4, 1.5, 2.5)
"""Shorter and longer than a request's time-out, which is a second here."""
LONG_STALLS_S = (11.0, 20.0)


class Fault(NamedTuple):
    at_s: float
    """After the start of the run."""
    kind: str
    aim: float
    """From 0 to 1: which of the workers (or servers) that there are by then."""
    aims_at_busy: bool
    """Whether a worker is chosen in which a handler runs."""
    lasts_s: float
    """How long a worker is stopped, traffic is held, or a server is away."""


def schedule(
    seed: int, kills: int, lease_s: float, gap_s: float, kinds: Mapping[str, int], *, long: bool = False
) -> list[Fault]:
    """Return faults until `kills` workers are killed by them; `gap_s` is the mean wait between two.

    In a `long` run some stalls are of those that broke earlier releases.
    """
    dice = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    at_s, killed, stalled = 1.0, 0, 0
    while killed < kills:
        at_s += dice.uniform(0.2, 1.8) * gap_s
        (kind,) = dice.choices(list(kinds), list(kinds.values()))
        lasts_s = lease_s * dice.uniform(1.2, 2.0)  # longer than a lease
        if kind in ("kill the server", "kill the leader", "kill a follower"):
            lasts_s = dice.uniform(0, 1.5) * lease_s
        elif kind in ("stall the server", "stop the leader", "stop a follower"):
            stalled += 1
            lasts_s = LONG_STALLS_S[stalled // 5 % 2] if long and stalled % 5 == 0 else dice.choice(_STALLS_S)
        faults.append(Fault(at_s, kind, dice.random(), dice.random() < 0.7, lasts_s))
        killed += kind == "kill a worker"
        if kind in _ONE_AT_A_TIME:
            at_s += lasts_s
    return faults
