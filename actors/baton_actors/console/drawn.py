"""Small pictures as SVG: where their points are. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_EDGE = 1.0
"""Units that a line keeps from the edge, or half of it would be cut off."""


def polyline(places: Sequence[float], values: Sequence[float], most: float, tall: float) -> str:
    """Return the points of a line: each value at its place, 0 at the bottom and `most` at the top."""
    room = tall - 2 * _EDGE
    points = (
        f"{place:.1f},{tall - _EDGE - (room * value / most if most else 0.0):.1f}"
        for place, value in zip(places, values, strict=True)
    )
    return " ".join(points)
