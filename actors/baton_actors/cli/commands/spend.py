"""`baton spend`: what was spent on models, as the log says it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain
from baton_bus.client.spending import SpentCall, spent_calls
from baton_schemas.show.spending import PaidCall, Sum, summed
from baton_schemas.show.times import read_since
from baton_schemas.wire.money import shown_usd

_UNKNOWN = "unknown"
"""A flow or a model that the log does not name."""


class By(StrEnum):
    """What a sum is of."""

    FLOW = "flow"
    AGENT = "agent"
    MODEL = "model"
    DAY = "day"


@command()
async def spend(
    place: Place,
    by: Annotated[By, typer.Option("--by", help="What is summed up.")] = By.FLOW,
    since: Annotated[
        str,
        typer.Option("--since", metavar="WHEN", help="From then on: 7d, 12h, or 2026-11-25 (UTC).", show_default=False),
    ] = "",
    json: o.Json = False,
) -> int:
    """Say what was spent on models, and what of it was in vain.

    All calls count that the log tells of, at list prices: those of runs that failed or were cancelled too. In vain were
    those of failed attempts, those that were cut off, and those that two workers made, the first of whom had died.
    """
    start = read_since(since, datetime.now(UTC)) if since else None
    groups: dict[str, list[PaidCall]] = {}
    async with place.bus(reads=True) as bus:
        async for each in spent_calls(bus, start):
            groups.setdefault(_key(each, by), []).append(each.call)
    sums = {key: summed(calls) for key, calls in groups.items()}
    total = summed(call for calls in groups.values() for call in calls)
    order = sorted(sums) if by is By.DAY else sorted(sums, key=lambda key: (-sums[key].cost_usd, key))
    if json:
        print_json({"by": by.value, "since": start, "sums": [_facts(by, key, sums[key]) for key in order]})
    elif sums:
        _tell(by, {key: sums[key] for key in order}, total)
    else:
        when = "since then" if since else "yet"
        print(f"nothing was asked of a model {when}: `baton runs` lists the runs", file=sys.stderr)
    return OK


def _key(spent: SpentCall, by: By) -> str:
    match by:
        case By.FLOW:
            return spent.flow or _UNKNOWN
        case By.AGENT:
            return f"{spent.flow or _UNKNOWN}: {spent.agent}"
        case By.MODEL:
            return spent.call.model or _UNKNOWN
        case By.DAY:
            return spent.call.at.astimezone(UTC).date().isoformat()


def _tell(by: By, sums: dict[str, Sum], total: Sum) -> None:
    out = console()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(by.value, overflow="ellipsis", no_wrap=True, min_width=12)
    for name in ("calls", "read", "written", "cost", "in vain"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, found in sums.items():
        table.add_row(*_row(plain(key), found))
    if len(sums) > 1:
        table.add_row(*_row("all", total), style="bold")
    out.print(table)
    if total.unpriced:
        out.print()
        calls = "1 call has" if total.unpriced == 1 else f"{total.unpriced:,} calls have"
        out.print(Text(f"{calls} no price: name a file of prices with BATON_PRICES", "yellow"), soft_wrap=True)
    if total.rehearsed:
        calls = "1 call was" if total.rehearsed == 1 else f"{total.rehearsed:,} calls were"
        out.print(Text(f"{calls} rehearsed, and cost nothing", "dim"), soft_wrap=True)


def _row(name: str, found: Sum) -> list[Text]:
    cost = shown_usd(found.cost_usd) if found.calls > found.unpriced else "no price"
    vain = shown_usd(found.waste_usd) if found.waste_usd else ""
    return [
        Text(name, no_wrap=True, overflow="ellipsis"),
        Text(f"{found.calls:,}"),
        Text(f"{found.usage.prompt_tokens:,}"),
        Text(f"{found.usage.output_tokens:,}"),
        Text(cost),
        Text(vain, "yellow"),
    ]


def _facts(by: By, key: str, found: Sum) -> dict[str, Any]:
    return {
        by.value: key,
        "calls": found.calls,
        "usage": found.usage,
        "cost_usd": found.cost_usd,
        "waste_usd": found.waste_usd,
        "unpriced": found.unpriced,
        "rehearsed": found.rehearsed,
    }
