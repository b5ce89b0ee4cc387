"""Files of tests that take longest. They begin first: one that began last would have one process wait for the other."""

from __future__ import annotations

import pytest

LONGEST = (
    "doctor",
    "chaos_budgets",
    "cli_stream",
    "chaos_tools",
    "tools_durable",
    "chaos_asking",
    "watchdog",
    "chaos_people",
    "reading_cluster",
    "chaos",
    "sdk_rehearsed",
    "chaos_ways",
    "cli_run",
    "chaos_batches",
    "cli_mended",
    "forks_property",
    "cli_more",
    "cluster",
    "embedded_kept",
    "processes",
    "worker_crash",
    "prints",
    "batch_crashes",
    "joins_property",
    "begin",
    "consumer",
    "suspects",
    "cli_look",
    "layers",
    "blobs",
    "orchestrator_durable",
    "keeping_property",
    "rehearsed_labels",
    "cli_hostile",
    "when",
    "again",
    "inbox",
)
"""From some ten seconds on; where in the order each is hardly matters, but for chaos: one at a time is enough."""
_PLACES = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}


def longest_first(items: list[pytest.Item]) -> None:
    """Bring those forward; all others stay in the order that was drawn for them."""
    items.sort(key=lambda item: _PLACES.get(item.path.name, len(_PLACES)))
