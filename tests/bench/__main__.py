"""`make bench`: Baton against the raw floor, in one run on one machine; prints a table, writes bench.json.

It has parts, of which `make bench ARGS="core idle"` measures some: `core`, what every change is measured by; `durable`,
three replicas and flushing at every write; `million`, a log of a million messages; `trickle`, branches that end one by
one; `ask`, agents that ask others; `models`, what is kept of their calls, a provider with limits, and
one with a cache; `memory`, a hundred thousand runs; `idle`, what `baton up` costs while nothing is asked
of it; `index`, how fast the index takes in a log; `console`, how soon its pages are there and painted in a browser.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from baton_actors.processes.garbage import look_seldom

from . import ask, budgets, console, core, durable, idle, index, limits, memory, million, prefix, trickle
from .rows import Row


async def _models() -> list[Row]:
    return await budgets.rows() + await limits.rows() + await prefix.rows()


PARTS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "core": core.rows,
    "durable": durable.rows,
    "million": million.rows,
    "trickle": trickle.rows,
    "memory": memory.rows,
    "idle": idle.rows,
    "index": index.rows,
    "console": console.rows,
    "ask": ask.rows,
    "models": _models,
}


def show(rows: list[Row]) -> None:
    table = Table(title="Baton against the raw floor (ratio: Baton over floor)", title_justify="left", box=None)
    for name in ("what", "unit", "floor", "baton", "ratio", "hold", ""):
        table.add_column(name, justify="right" if name in ("floor", "baton", "ratio") else "left", no_wrap=True)
    for each in rows:
        held = "held" if each["held"] else "NOT HELD"
        hold = "" if each["hold"] is None else str(each["hold"])
        figures = [each["floor"], each["baton"], each["ratio"]]
        shown = ["" if figure is None else f"{figure:,.2f}" for figure in figures]
        table.add_row(str(each["name"]), str(each["unit"]), *shown, hold, held if hold else "")
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)


async def main(parts: list[str]) -> list[Row]:
    look_seldom()  # as worker processes do: the floor gets it too
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows: list[Row] = []
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr)
        rows += await PARTS[part]()
    return rows


if __name__ == "__main__":
    parts = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        sys.exit(f"there is no part {unknown[0]!r} of the bench; known: {', '.join(PARTS)}")
    rows = asyncio.run(main(parts))
    show(rows)
    Path("bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(0 if all(each["held"] for each in rows) else 1)
