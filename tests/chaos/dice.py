"""Numbers that follow from what they are thrown for: whoever throws again gets the same."""

from __future__ import annotations

import hashlib


def throw(run: str, here: str, what: str, sides: int) -> int:
    """A number from 0 that follows from the run, the place in it, and what it is thrown for."""
    # No CRC: of words of one length those differ by the same bits in every run.
    return int(hashlib.sha256(f"{run}/{here}/{what}".encode()).hexdigest()[:8], 16) % sides
