"""`baton top`: the console in this terminal. Without Textual, or where there is no terminal, the list of runs once."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.runs_table import runs_table
from baton_bus import Client
from baton_bus.index.finding import Wanted
from baton_bus.index.using import find_runs

_ROWS = 20
_INSTALL = "This is how it stands now. To stay with it, install what draws it: pip install 'baton-bus[top]'"


@command(until_stopped=True)
async def top(
    place: Place,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be changed there.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Keep no words of inputs, outputs and errors.")] = False,
) -> int:
    """Watch runs in this terminal, go into them, and act.

    `?` says which key does what. It starts the embedded server if none is named and none runs.
    """
    is_there = importlib.util.find_spec("textual") is not None
    async with place.client() as client:
        # What is drawn goes to stderr, so that stdout stays for what is printed in the end.
        if not (is_there and all(each.isatty() for each in (sys.stdin, sys.stdout, sys.stderr))):
            await _print_once(client, place)
            if not is_there:
                print(_INSTALL, file=sys.stderr)
            return OK
        from baton_actors.console.core import Console, Options
        from baton_actors.top.app import run_top

        options = Options(
            index=place.index_file(client.bus.settings),
            words=not no_text,
            read_only=read_only,
            where=f"--nats {client.bus.settings.shown_url}" if place.named else "",
            data_dir=None if place.named else place.data_dir,
        )
        held = Console(client, options)
        held.who = held.who.replace("console", "top", 1)
        async with held.opened() as here:
            copied = await run_top(here)
    if copied:
        print(copied)
    return OK


async def _print_once(client: Client, place: Place) -> None:
    """Print the latest runs, as `baton runs` does."""
    now, out = datetime.now(UTC), console()
    found = await find_runs(client.bus, Wanted(limit=_ROWS), place.index_file(client.bus.settings), now)
    if found.rows:
        out.print(runs_table([row.summary for row in found.rows], now, out.width))
    else:
        out.print(Text("no runs yet: `baton run FLOW` makes one"))
