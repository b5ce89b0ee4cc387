"""Queues: whether work is done, by whom, how long it waits, and what to do where it stands still."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from textual.widget import Widget

from baton_actors.console.bell import Bell
from baton_actors.console.queue_facts import ActorQueue, actors_of, never_up, queues_of_actor
from baton_actors.console.words import between, clock
from baton_bus.doctor.queues import Held, held_in
from baton_schemas.show.lines import seconds

from .drawn import one
from .lines import Lines
from .palette import Cell, Palette
from .rows import Column, Row, Rows
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_HELD_MAX = 200

QUEUES = (
    Column(title="  actor", wide=18, grows=True),
    Column(title="waiting", wide=8, right=True),
    Column(title="oldest", wide=10, right=True),
    Column(title="in hand", wide=10, right=True),
    Column(title="came again", wide=10, right=True, from_wide=110),
    Column(title="in /s", wide=6, right=True, from_wide=90),
    Column(title="out /s", wide=6, right=True, from_wide=90),
    Column(title="workers", wide=7, right=True),
)
HELD = (
    Column(title="  run", wide=28, grows=True),
    Column(title="step", wide=16, grows=True),
    Column(title="since", wide=12),
    Column(title="waits", wide=10, right=True),
)


class QueuesView(View):
    """The actors, with what waits for them."""

    CSS = """
    QueuesView > #detail { height: 7; border-top: solid $line; }
    """
    here = "queues"
    hint = "names of actors"
    every_s = 5.0

    def __init__(self, console: Console, palette: Palette) -> None:
        super().__init__(console, palette)
        self.command = "baton doctor"
        self._actors: dict[str, ActorQueue] = {}

    def body(self) -> Sequence[Widget]:
        """Return the table, and what is said of the chosen actor."""
        self.table = Rows(QUEUES, self.palette, id="queues")
        self.table.follows = False
        self.detail = Lines(self.palette, id="detail")
        return [self.table, self.detail]

    def hearing(self) -> contextlib.AbstractAsyncContextManager[list[Bell]]:
        """Have the queues looked at."""
        return _queues(self.console)

    async def look(self) -> tuple[list[ActorQueue], bool]:
        """Return the actors, and whether this user may see them."""
        looked = await self.console.queues.look()
        absent = await never_up(self.console, looked)
        return actors_of(self.console, looked, self.console.workers(), absent), looked.allowed

    def paint(self, facts: tuple[list[ActorQueue], bool]) -> None:
        """Show them."""
        actors, allowed = facts
        now = datetime.now(UTC)
        if self.sought:
            actors = [each for each in actors if self.sought.casefold() in each.actor.casefold()]
        self._actors = {each.actor: each for each in actors}
        waiting = sum(each.waiting for each in actors)
        down = sum(each.is_down and bool(each.waiting) for each in actors)
        chips = [(f"  {down:,} stand still", "failed")] if down else []
        self.entitle(("Queues", "bold"), (f"  {waiting:,} waiting", "dim"), *chips)
        self.put("said", _none(allowed) if not actors else [])
        self.table.show([_of_actor(each, now) for each in actors])
        self._show_detail()

    def opened(self, key: str) -> None:
        """Go to the runs that wait for an actor."""
        self.app.push_screen(HeldView(self.console, self.palette, key))

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Say more of the chosen actor."""
        event.stop()
        self._show_detail()

    def _show_detail(self) -> None:
        found = self._actors.get(self.table.chosen)
        self.command = found.command if found is not None else "baton doctor"
        self.detail.show(_detail_of(found) if found is not None else [])


class HeldView(View):
    """What waits for one actor."""

    here = "queue"
    every_s = 5.0

    def __init__(self, console: Console, palette: Palette, actor: str) -> None:
        super().__init__(console, palette)
        self.actor = actor
        self.command = "baton doctor"

    def body(self) -> Sequence[Widget]:
        """Return the table."""
        self.table = Rows(HELD, self.palette, id="held")
        self.table.follows = False
        return [self.table]

    def hearing(self) -> contextlib.AbstractAsyncContextManager[list[Bell]]:
        """Have the queues looked at."""
        return _queues(self.console)

    async def look(self) -> list[Held]:
        """Return what waits, the oldest first."""
        looked = await self.console.queues.look()
        queues = queues_of_actor(looked, self.actor)
        return [each for queue in queues for each in await held_in(self.console.bus, queue, _HELD_MAX)]

    def paint(self, facts: list[Held]) -> None:
        """Show it."""
        now = datetime.now(UTC)
        self.entitle(("Queue of ", "bold"), (self.actor, "bold"), (f"  the first {len(facts):,} that wait", "dim"))
        self.put("said", [] if facts else [one("Nothing waits for it. Esc goes back to the queues.", "dim")])
        self.table.show([_of_held(each, now) for each in sorted(facts, key=lambda each: each.seq)[:_HELD_MAX]])

    def act_run(self) -> str:
        """Return the chosen run."""
        return self.table.chosen.partition(" ")[2]

    def opened(self, key: str) -> None:
        """Go into a run."""
        from .run_view import RunView

        self.app.push_screen(RunView(self.console, self.palette, key.partition(" ")[2]))


@asynccontextmanager
async def _queues(console: Console) -> AsyncIterator[list[Bell]]:
    async with console.queues.watching() as bell:
        yield [bell]


def _none(allowed: bool) -> list[Cell]:
    if not allowed:
        return [one("This user may not look at the consumers. Log in as operator or admin (deploy/README.md).", "mind")]
    return [
        one("No actor was ever up here, so nothing can wait. This starts those of a flow:"),
        one("  baton up report", "bold"),
    ]


def _of_actor(each: ActorQueue, now: datetime) -> Row:
    stands = each.is_down and bool(each.waiting)
    oldest = between(each.oldest_at, now)
    workers = f"{len(each.workers):,}" if each.workers else "none" if each.is_down else "some"
    bound = f" of {each.in_hand_max:,}" if each.in_hand_max > 0 else ""
    state = "failed" if stands else "running" if each.in_hand else "done" if not each.is_down else "waiting"
    return Row(
        key=each.actor,
        cells=(
            (mark_of(state), (" ", ""), *one(each.actor)),
            one(f"{each.waiting:,}" + (f" +{each.replies:,}" if each.replies else ""), "failed" if stands else ""),
            one(seconds(float(round(oldest))) if oldest is not None else "", "dim"),
            one(f"{each.in_hand:,}{bound}", "dim" if not each.in_hand else ""),
            one(f"{each.redelivered:,}" if each.redelivered else "", "mind"),
            one(_rate(each.came_s), "dim"),
            one(_rate(each.went_s), "dim"),
            one(workers, "failed" if stands else "dim"),
        ),
        failed=stands or bool(each.says),
    )


def mark_of(state: str) -> tuple[str, str]:
    """Return the sign of how an actor is: it stands still, works, is there, or is not."""
    return {"failed": "✗", "running": "●", "done": "✓"}.get(state, "·"), f"mark.{state}"


def _rate(value: float | None) -> str:
    if not value:
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _detail_of(each: ActorQueue) -> list[Cell]:
    lines: list[Cell] = [one(each.actor, "bold")]
    lines += [one(said, "mind") for said in each.says]
    if each.is_down and not each.says:
        lines.append(one("Nobody is there.", "dim"))
    lines += [
        one(f"{here.host} · process {here.pid}" + (f" · {here.in_hand:,} in hand" if here.in_hand else ""), "dim")
        for here in each.workers[:20]
    ]
    if each.is_down:
        lines.append(one(f"{each.command} starts it", "bold"))
    return lines


def _of_held(held: Held, now: datetime) -> Row:
    return Row(
        key=f"{held.seq} {held.run}",
        cells=(
            (("· ", "mark.waiting"), *one(held.run)),
            one(held.step),
            one(clock(held.since), "dim"),
            one(seconds(float(round(max((now - held.since).total_seconds(), 0.0)))), "dim"),
        ),
    )
