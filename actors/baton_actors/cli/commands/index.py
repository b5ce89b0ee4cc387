"""`baton index`: the index by which `runs` and the console find runs. It is made of the log, and never the truth."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from msgspec import to_builtins
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain
from baton_actors.processes.signals import Stop
from baton_bus.doctor.findings import size
from baton_bus.index.changing import Committed
from baton_bus.index.keeping import WAIT_S, Kept, keep, opened
from baton_bus.store.bus import Bus


@command(until_stopped=True)
async def index(
    place: Place,
    stop: Stop,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, and keep it up to date until stopped.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it anew.")] = False,
    no_text: Annotated[
        bool,
        typer.Option("--no-text", help="Keep no words of inputs, outputs and errors: `runs --text` reads the log."),
    ] = False,
    json: o.Json = False,
) -> int:
    """Make, or keep up, the index that `runs` finds runs by.

    It is a file of SQLite beside the embedded server's data, or in ~/.cache/baton for a named server, for this user
    alone. All of it is made of the log, and may be deleted at any time.
    """
    async with place.bus(reads=True) as bus:
        path = place.index_file(bus.settings)
        if not follow:
            async with opened(bus, path, words=not no_text, anew=rebuild, wait_s=WAIT_S) as kept:
                return await _once(bus, path, kept, json, rebuild)
        committed = _tell_of_writing if json else lambda what: None
        await keep(bus, path, lambda what: _tell(what, json), words=not no_text, anew=rebuild, committed=committed)
    return OK


async def _once(bus: Bus, path: Path, kept: Kept, json: bool, rebuilt: bool) -> int:
    began, out = time.monotonic(), console(stderr=True)
    messages = max(await bus.log.end(), 1)
    with out.status("", spinner_style="dim") as status:

        def tell(low_seq: int) -> bool:
            status.update(Text(f"{kept.indexer.read:,} messages read, back to {low_seq:,} of {messages:,}", "dim"))
            return False

        await kept.indexer.catch_up(enough=tell)
        removed = await kept.indexer.remove_gone()
    reach = kept.reach
    if json:
        facts = {"path": str(path), "read": kept.indexer.read, "removed": removed, "made_anew": kept.made}
        print_json({**facts, "size_bytes": _size_of(path), **to_builtins(reach)})
        return OK
    took_s = time.monotonic() - began
    why = f" (made anew, as it {kept.made})" if kept.made else " (made anew)" if rebuilt else ""
    print(
        f"{reach.runs:,} runs in {path}{why}: {kept.indexer.read:,} messages read in {took_s:.1f} s, "
        f"{size(_size_of(path))}"
    )
    return OK


def _size_of(path: Path) -> int:
    return path.stat().st_size


def _tell_of_writing(what: Committed) -> None:
    print_json({"index": "written", **to_builtins(what)})
    sys.stdout.flush()


def _tell(what: str, json: bool) -> None:
    if json:
        print_json({"index": what})
    else:
        print(plain(what), file=sys.stderr, flush=True)
