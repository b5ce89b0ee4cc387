"""What people have to see to: questions, failures by cause, what is parked, what doctor says, rejected messages."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.binding import BindingType
from textual.widget import Widget

from baton_actors.console.needs import Health, Rejected
from baton_actors.console.words import clock
from baton_bus.client.people import Waiting
from baton_bus.errors import BusError
from baton_bus.index.failing import Failures
from baton_schemas.errors import SchemaError
from baton_schemas.show.cause import Cause

from .drawn import one
from .lines import Lines
from .palette import Cell, Palette
from .rows import Column, Row, Rows
from .step_text import text_lines
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_PATIENCE_S = 1.5
"""For what the doctor says: it asks much, and what is known already is shown meanwhile."""
_SHOWN = 200

COLUMNS = (
    Column(title="  what", wide=12),
    Column(title="runs", wide=6, right=True),
    Column(title="where", wide=14, grows=True),
    Column(title="why", wide=20, grows=True),
    Column(title="last", wide=12, right=True, from_wide=90),
)


class Need(Struct, frozen=True, kw_only=True):
    """Something that somebody has to see to."""

    key: str
    mark: tuple[str, str]
    what: str
    where: str
    why: str
    last: str = ""
    runs: int = 0
    detail: list[Cell]
    command: str
    run: str = ""
    """The run that keys act on."""
    cause: Cause | None = None
    failed: bool = False


class AttentionView(View):
    """What people have to see to."""

    BINDINGS: ClassVar[list[BindingType]] = []
    CSS = """
    AttentionView > #detail { height: 10; border-top: solid $line; }
    """
    here = "attention"
    every_s = 5.0
    hint = "words of what is here"

    def __init__(self, console: Console, palette: Palette) -> None:
        super().__init__(console, palette)
        self.command = "baton dead"
        self._needs: dict[str, Need] = {}

    def body(self) -> Sequence[Widget]:
        """Return the table, and what is said of the chosen one."""
        self.table = Rows(COLUMNS, self.palette, id="needs")
        self.table.follows = False
        self.detail = Lines(self.palette, id="detail")
        return [self.table, self.detail]

    async def look(self) -> tuple[list[Need], bool]:
        """Return what there is, and whether the doctor has answered."""
        needs = self.console.needs
        questions, rejected, health = await asyncio.gather(needs.questions(), needs.rejected(), self._health())
        found = [_of_question(each) for each in questions[:_SHOWN]]
        found += [_of_cause(each) for each in needs.causes() or ()]
        if health is not None:
            found += _of_health(health)
        found += [_of_rejected(each) for each in rejected]
        return found, health is not None

    def paint(self, facts: tuple[list[Need], bool]) -> None:
        """Show it."""
        found, examined = facts
        if self.sought:
            wanted = self.sought.casefold()
            found = [each for each in found if wanted in f"{each.what} {each.where} {each.why}".casefold()]
        self._needs = {each.key: each for each in found}
        self.entitle(("Attention", "bold"), (f"  {len(found):,} to see to" if found else "", "dim"))
        nothing = (
            "Nothing waits for anybody: no question is open, no run failed in the last seven days that nobody has "
        )
        nothing += "seen, no message was rejected" + (", and doctor finds nothing to do." if examined else ".")
        self.put("said", [] if found else [one(nothing, "dim")])
        self.table.show([_row_of(each) for each in found])
        self._show_detail()

    def act_run(self) -> str:
        """Return the run of the chosen one."""
        found = self._needs.get(self.table.chosen)
        return found.run if found is not None else ""

    def opened(self, key: str) -> None:
        """Go to the run, or to all runs that failed for the same cause."""
        from .run_view import RunView
        from .runs_view import RunsView

        found = self._needs[key]
        if found.cause is not None and found.runs > 1:
            self.app.push_screen(RunsView(self.console, self.palette, found.cause))
        elif found.run:
            self.app.push_screen(RunView(self.console, self.palette, found.run))
        else:
            self.app.say("it belongs to no run: what to do is said below")

    def on_rows_chosen(self, event: Rows.Chosen) -> None:
        """Say more of the chosen one."""
        event.stop()
        self._show_detail()

    def _show_detail(self) -> None:
        found = self._needs.get(self.table.chosen)
        self.command = found.command if found is not None else "baton dead"
        self.detail.show([*found.detail, one(found.command, "bold")] if found is not None else [])

    async def _health(self) -> Health | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self.console.needs.health()
        except (TimeoutError, BusError, SchemaError):
            return None


def _row_of(need: Need) -> Row:
    return Row(
        key=need.key,
        cells=(
            (need.mark, (" ", ""), *one(need.what)),
            one(f"{need.runs:,}" if need.runs else ""),
            one(need.where),
            one(need.why, "failed" if need.failed else ""),
            one(need.last, "dim"),
        ),
        failed=need.failed,
    )


def _of_question(each: Waiting) -> Need:
    answers = ", ".join(each.question.answers)
    until = f" · answered by itself {clock(each.until)}" if each.until else ""
    return Need(
        key=f"question {each.run} {each.step} {each.name}",
        mark=("?", "mark.retry"),
        what="question",
        where=f"{each.role} · {each.flow} {each.step}",
        why=each.question.text,
        last=clock(each.since),
        detail=[
            *text_lines(each.question.text, 4_000),
            one(f"  for {each.role} · run {each.run} · asked {clock(each.since)}{until}", "dim"),
            *([one(f"  one of: {answers}")] if answers else []),
        ],
        command=f"baton answer {each.run} {shlex.quote(each.name)} ANSWER",
        run=each.run,
    )


def _of_cause(each: Failures) -> Need:
    cause = each.cause
    run = each.runs[0] if each.runs else ""
    many = f" Enter lists all {each.count:,}." if each.count > 1 else ""
    return Need(
        key=f"cause {cause.key}",
        mark=("✗", "mark.failed"),
        what="failed",
        where=f"{cause.flow} {cause.step}".strip(),
        why=f"{cause.type}: {cause.message}".removesuffix(": "),
        last=clock(each.last_at),
        runs=each.count,
        detail=[
            *text_lines(f"{cause.type}: {cause.message}", 4_000, "failed"),
            one(f"  first {clock(each.first_at)}, last {clock(each.last_at)}, the newest is {run}.{many}", "dim"),
        ],
        command=f"baton retry {run}",
        run=run,
        cause=cause,
        failed=True,
    )


def _of_health(health: Health) -> list[Need]:
    found = [
        Need(
            key=f"parked {each.run}",
            mark=("·", "mark.retry"),
            what="parked",
            where=f"{each.flow} {each.step}",
            why=f"waits for {each.what}",
            detail=[one(f"  {each.run}: {each.step} waits for {each.what}; it may spend more:")],
            command=f"baton retry {each.run} --budget AMOUNT",
            run=each.run,
        )
        for each in health.parked
    ]
    return found + [
        Need(
            key=f"doctor {number} {each.what}",
            mark=("!", "mark.failed" if each.level == "error" else "mark.retry"),
            what="doctor",
            where=each.what,
            why=each.says,
            detail=[*text_lines(f"{each.says}. {each.advice}".strip(), 4_000)],
            command="baton doctor",
            failed=each.level == "error",
        )
        for number, each in enumerate(health.findings)
    ]


def _of_rejected(each: Rejected) -> Need:
    told = each.told
    return Need(
        key=f"rejected {told.seq}",
        mark=("✗", "mark.failed"),
        what="rejected",
        where=told.subject or f"sequence {told.seq}",
        why=told.reason or "for no reason that its note gives",
        last=clock(told.at),
        detail=[
            *text_lines(told.reason, 4_000, "failed"),
            one(
                f"  sequence {told.seq}, {each.size_bytes:,} bytes" if each.text else "  it is gone from the log", "dim"
            ),
            *(text_lines(each.text, 4_000) if each.text else ()),
        ],
        command="baton dead",
        run=told.run,
    )
