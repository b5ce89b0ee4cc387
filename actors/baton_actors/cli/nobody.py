"""What a run waits for that nobody plays, and the command that starts it: said, so that nobody waits in silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from rich.text import Text

from baton_actors.cli.place import Place
from baton_actors.cli.show.people import open_lines
from baton_actors.cli.show.step_lines import waits_of
from baton_actors.cli.text import plain
from baton_actors.orders.present import starts
from baton_bus import BusError
from baton_bus.addresses import redacted
from baton_bus.client.left import left_alone
from baton_bus.client.runs import find_run, read_last
from baton_bus.store.bus import Bus
from baton_bus.store.players import Player
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.show.rows import rows_of

FIRST_LOOK_S, _LOOKS_MAX_S = 1.0, 16.0
"""A run that ends in a moment is not looked at; of one that waits it is said within two seconds."""
_NAMED_MAX = 3


def nobody_lines(left: Sequence[Player], start: str) -> list[Text]:
    """Return what is to be said of them; `start` is the command that starts actors of this flow."""
    lines = []
    if nobody := [each.actor for each in left if each.played == "nobody"]:
        lines.append(_line(nobody, "which nobody plays"))
    if silent := [each.actor for each in left if each.played == "silent"]:
        lines.append(_line(silent, "which asks for no work: its worker is gone, or busy with long steps"))
    return [*lines, Text(plain(f"  {start}   starts it"), "dim")] if lines else []


def up_command(place: Place, source: str, plan: Plan) -> str:
    """Return the command that plays a flow's actors where this command looks; `source` is where its file is."""
    return starts(plan, source, options_of(place))


def options_of(place: Place) -> str:
    """Return the options that name the same server and log again, with a space before each; logins are left out."""
    found = ""
    if place.url:
        found += f" --nats {redacted(place.url)}"
    if place.namespace:
        found += f" --namespace {place.namespace}"
    data_dir = str(place.data_dir)
    if not place.named and data_dir not in (".baton", os.environ.get("BATON_DATA")):
        found += f" --data-dir {shlex.quote(data_dir)}"
    return found


@contextlib.asynccontextmanager
async def telling(bus: Bus, run: str, plan: Plan, start: str, tell: Callable[[Text], None]) -> AsyncIterator[None]:
    """Say once of each thing that a run waits for it, while the context is open: actors that nobody plays, and what
    their workers lack."""
    teller = asyncio.create_task(_tell(bus, run, plan, start, tell), name=f"who plays {run}")
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.gather(teller, return_exceptions=True)


async def _tell(bus: Bus, run: str, plan: Plan, start: str, tell: Callable[[Text], None]) -> None:
    told: set[str] = set()
    wait_s = FIRST_LOOK_S
    while True:
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _LOOKS_MAX_S)  # a run of thousands of steps is not read every second
        with contextlib.suppress(BusError):  # who waits for the result tells of a bus that is gone
            state = fold(await read_last(bus, await find_run(bus, run)))
            now = datetime.fromtimestamp(bus.now_s(), UTC)
            left = [each for each in await left_alone(bus, plan, state) if each.actor not in told]
            told |= {each.actor for each in left}
            waits = [line for line in waits_of(rows_of(state, plan, now=now)) if str(line) not in told]
            told |= set(map(str, waits))
            asked = open_lines(state, told)
            told |= asked.keys()
            questions = [line for lines in asked.values() for line in lines]
            for line in [*waits, *questions, *nobody_lines(left, start)]:
                tell(line)


def _line(actors: Sequence[str], why: str) -> Text:
    some = ", ".join(actors[:_NAMED_MAX]) + (
        f" and {len(actors) - _NAMED_MAX} more" if len(actors) > _NAMED_MAX else ""
    )
    return Text.assemble(("· ", "yellow"), plain(f"waits for {some}, {why}"))
