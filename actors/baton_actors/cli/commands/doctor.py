"""`baton doctor`: what the server, the streams and the actors on them can lose, and what stands still."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import FAILED, OK, NoRunsHere
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place, logs
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain
from baton_bus.doctor.doctor import examine_server
from baton_bus.doctor.findings import Finding

_MARKS = {"ok": ("✓", "green"), "note": ("·", "cyan"), "warning": ("!", "yellow"), "error": ("✗", "red")}

_NAME_MAX = 32
"""Columns: an actor's name may have 64 characters, and what is said of it needs the room."""


@command()
async def doctor(
    place: Place,
    monitor: Annotated[
        str, typer.Option("--monitor", metavar="URL", help="The http address of a nats-server, which tells more.")
    ] = "",
    json: o.Json = False,
) -> int:
    """Say what the server can lose, and what stands still.

    As it is set up now, and from what can be seen over NATS. It makes and changes nothing.

    Exit codes: 0 no errors, 1 errors, 3 no server.
    """
    if not place.named and not place.data_dir.is_dir():
        raise NoRunsHere(str(place.data_dir.absolute()))
    logs(level="error")
    async with place.server() as settings:
        findings = await examine_server(settings, monitor)
    if json:
        print_json(msgspec.to_builtins(findings))
    else:
        console().print(findings_table(findings))
    return FAILED if any(finding.level == "error" for finding in findings) else OK


def findings_table(findings: list[Finding]) -> Table:
    """Return a row for each finding, with its advice below what it says."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=1)
    table.add_column(max_width=_NAME_MAX, overflow="fold")
    table.add_column(ratio=1)
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        says = Text(plain(finding.says))
        if finding.advice:
            says.append(f"\n→ {plain(finding.advice)}", "dim")
        table.add_row(Text(mark, colour), Text(plain(finding.what), "bold"), says)
    return table
