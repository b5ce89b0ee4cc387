"""`baton purge`: runs are removed from the log for good, once somebody has said so."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument, CommandError
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import MARKS, console
from baton_actors.cli.text import plain
from baton_bus.client.purge import Choice, Plan, Purged, check_allowed, plan_purge
from baton_bus.client.purge import purge as remove
from baton_bus.client.survey import Counted, survey
from baton_bus.doctor.findings import size
from baton_schemas.show.times import read_age, short_time

_SHOWN = 10
"""Runs that are listed one by one before the question; of more, the first and the last."""


class NotConfirmed(CommandError):
    """Nobody has said that the runs are to go."""

    def __init__(self, reason: str) -> None:
        """`reason` says what was missing."""
        self.reason = reason
        super().__init__(f"nothing was purged: {reason}")


@command()
async def purge(
    place: Place,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Ids, or their starts or ends.", show_default=False),
    ] = None,
    older: Annotated[
        str, typer.Option("--older", metavar="AGE", help="Runs that ended longer ago than 30d, 12h, …")
    ] = "",
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=0, metavar="N", help="All but the N latest.", show_default=False)
    ] = None,
    flow: Annotated[str, typer.Option("--flow", metavar="NAME", help="Of these, the runs of one flow.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Runs that have not ended too: cancels them first.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: o.Json = False,
) -> int:
    """Remove runs from the log, for good.

    All their messages go, and the large values that no other run has. There is no way back.
    """
    now = datetime.now(UTC)
    choice = _choice(runs or [], older, keep_last, flow, force, now)
    if not (yes or dry_run) and (json or not sys.stdin.isatty()):
        raise NotConfirmed("give --yes, or --dry-run to see what would go, where nobody can be asked")
    out = console(stderr=True)
    async with place.bus(reads=True) as bus:
        if not dry_run:
            await check_allowed(bus)
        with out.status("reading the log …") if out.is_terminal and not json else _Quiet():
            plan = plan_purge(await survey(bus), choice, datetime.fromtimestamp(bus.now_s(), UTC))
        if not json:
            _show(plan, out, now)
        if dry_run or not (plan.runs or plan.blobs):
            if json:
                print_json(_facts(plan, None))
            return OK
        if not yes:
            await _ask(plan, out)
        with out.status("purging …") if out.is_terminal and not json else _Quiet() as status:
            done = await remove(bus, plan, lambda count: _progress(status, count, len(plan.runs)))
    if json:
        print_json(_facts(plan, done))
    else:
        print(f"purged {_runs(done.runs)}: {_count(done.messages, 'message')}{_values(done.blobs)}", flush=True)
    return OK


def _choice(runs: list[str], older: str, keep_last: int | None, flow: str, force: bool, now: datetime) -> Choice:
    if runs and (older or keep_last is not None or flow):
        raise BadArgument("runs are named, or chosen by --older, --keep-last and --flow: not both")
    if not runs and not older and keep_last is None:
        raise BadArgument("say which runs: `baton purge RUN`, --older 30d, or --keep-last 100")
    try:
        ended_before = now - read_age(older) if older else None
    except OverflowError:
        ended_before = datetime.min.replace(tzinfo=UTC)
    return Choice(runs=tuple(runs), ended_before=ended_before, keep_last=keep_last, flow=flow, unended=force)


def _show(plan: Plan, out: Console, now: datetime) -> None:
    """Say on stderr what goes, and what stays though it was meant."""
    if plan.runs:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        # These two give way where there is no room: rich narrows columns that may wrap, and their texts do not.
        for heading, least in (("  run", 14), ("flow", 8)):
            table.add_column(Text(heading, no_wrap=True), min_width=least)
        table.add_column("began", no_wrap=True)
        for heading in ("messages", "size"):
            table.add_column(heading, justify="right", no_wrap=True)
        shown = plan.runs if len(plan.runs) <= _SHOWN else [*plan.runs[: _SHOWN - 1], plan.runs[-1]]
        for run in shown:
            if run is shown[-1] and len(plan.runs) > _SHOWN:
                table.add_row(Text(f"· … {len(plan.runs) - _SHOWN:,} more", "dim"))
            table.add_row(*_cells(run, now))
        out.print(table)
        out.print()
    for line in _lines(plan):
        out.print(line, soft_wrap=not out.is_terminal)


def _cells(run: Counted, now: datetime) -> list[Text]:
    mark, style = MARKS["skipped" if run.purged or (not run.began and run.status == "running") else run.status]
    return [
        Text.assemble((f"{mark} ", style), plain(run.run), no_wrap=True, overflow="ellipsis"),
        Text(plain(run.flow), "bold", no_wrap=True, overflow="ellipsis"),
        Text(short_time(run.started_at, now), "dim"),
        Text(f"{run.messages:,}"),
        Text(size(run.size_bytes), "dim"),
    ]


def _lines(plan: Plan) -> list[str]:
    lines = []
    if plan.runs or plan.blobs:
        values = f", and {_count(len(plan.blobs), 'large value')} of {size(plan.blob_bytes)}" if plan.blobs else ""
        messages = f"{_count(plan.messages, 'message')} of {size(plan.size_bytes)}"
        lines.append(f"{_runs(len(plan.runs))}: {messages}{values} to go")
    else:
        lines.append("no run to purge")
    unended = sum(1 for run in plan.runs if not run.is_over)
    if unended:
        lines.append(f"{_runs(unended)} of them {_has(unended)} not ended and will be cancelled")
    if plan.unended:
        lines.append(f"{_runs(plan.unended)} {_has(plan.unended)} not ended and stay{_s(plan.unended)}: see --force")
    if plan.needed:
        lines.append(f"{_runs(plan.needed)} stay{_s(plan.needed)}: a run that has not ended goes on from there")
    if plan.spared:
        what = _count(plan.spared, "large value")
        why = f"as a run may be about to name {_them(plan.spared)}: purge again later"
        lines.append(f"{what} stay{_s(plan.spared)} for now, {why}")
    return lines


async def _ask(plan: Plan, out: Console) -> None:
    """Ask for the word that lets it happen. Raises `NotConfirmed`."""
    word = f"purge {len(plan.runs)}"
    out.print()
    out.print(f'There is no way back. Type "{word}" to go on: ', end="")
    answer = await _line()
    if answer != word:
        raise NotConfirmed(f"that was not {word!r}")


async def _line() -> str:
    """Wait for a line of the terminal, while the connection lives on; Ctrl-C ends the waiting."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip()


def _facts(plan: Plan, done: Purged | None) -> dict[str, Any]:
    return {
        "runs": [run.run for run in plan.runs],
        "messages": plan.messages,
        "size_bytes": plan.size_bytes,
        "large_values": len(plan.blobs),
        "large_values_bytes": plan.blob_bytes,
        "large_values_spared": plan.spared,
        "not_ended": plan.unended,
        "needed": plan.needed,
        "purged": None if done is None else {"runs": done.runs, "messages": done.messages, "large_values": done.blobs},
    }


class _Quiet:
    """In place of a line that turns, where nobody looks."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def _progress(status: Any, count: int, total: int) -> None:
    if status is not None and (count % 100 == 0 or count == total):
        status.update(f"purging … {count:,} of {total:,}")


def _runs(count: int) -> str:
    return _count(count, "run")


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _values(count: int) -> str:
    return f", {_count(count, 'large value')}" if count else ""


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _s(count: int) -> str:
    return "s" if count == 1 else ""
