"""`baton doctor`: what the server, the streams and the actors on them can lose, and what stands still."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baton_actors.cli.exits import FAILED, OK
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_bus.doctor.doctor import examine
from baton_bus.doctor.findings import Finding

_MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warning": ("!", "yellow"), "error": ("✗", "red")}


async def examine_server(place: Place, monitor_url: str, as_json: bool) -> int:
    """Print what the doctor finds; the exit code says whether there are errors."""
    async with place.bus(reads=True) as bus:
        findings = await examine(bus, monitor_url)
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        Console(highlight=False).print(findings_table(findings))
    return FAILED if any(finding.level == "error" for finding in findings) else OK


def findings_table(findings: list[Finding]) -> Table:
    """Return a row for each finding, with its advice below what it says."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        says = Text(finding.says)
        if finding.advice:
            says.append(f"\n→ {finding.advice}", "dim")
        table.add_row(Text(mark, colour), Text(finding.what, "bold"), says)
    return table
