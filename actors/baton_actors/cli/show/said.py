"""What workers say while they work, and how they died: lines for people, above the live table or among the others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from baton_actors.agents.kinds import StepTask
from baton_actors.cli.text import plain
from baton_actors.processes.logs import without_secrets
from baton_actors.processes.printed import Printed, clean
from baton_actors.processes.supervisor import Death
from baton_schemas.show.children import short_name
from baton_schemas.show.lines import seconds

_RUN_TAIL = 6
"""Characters of a run's id that are shown: enough to tell a dozen of them apart."""
_ROOM_MIN = 20
"""Columns for the text beside the mark; with fewer the terminal breaks the lines."""
_FOLDING = Console(color_system=None)
"""Says how wide characters are, and nothing else."""
_HELD_MAX = 3
"""Steps of a dead worker that are named."""


def teller(out: Console, own: Callable[[], str] = str) -> Callable[[Sequence[Printed]], None]:
    """Return what shows lines on this console; those of other runs than our `own` say of which."""

    def tell(lines: Sequence[Printed]) -> None:
        width, mine = out.width if out.is_terminal else 0, own()
        with contextlib.suppress(OSError, ValueError):  # whoever would read it is gone
            out.print(Text("\n").join([line_of(line, mine, width=width) for line in lines]), soft_wrap=True)

    return tell


def json_teller() -> Callable[[Sequence[Printed]], None]:
    """Return what writes lines to stderr as events in JSON, as `BATON_LOG_FORMAT=json` has them."""

    def tell(lines: Sequence[Printed]) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("".join(line.text + "\n" if line.is_log else _event(line) for line in lines))
            sys.stderr.flush()

    return tell


def death_teller(out: Console, lease_s: float, own: Callable[[], str] = str) -> Callable[[Death], None]:
    """Return what says on this console that a worker has died; steps of other runs than our `own` are named so."""

    def tell(death: Death) -> None:
        with contextlib.suppress(OSError, ValueError):
            out.print(Text("\n").join(death_lines(death, lease_s, own())), soft_wrap=not out.is_terminal)

    return tell


def line_of(line: Printed, own: str = "", *, width: int = 0) -> Text:
    """Return `lookup-3 | text`; what is wider than `width` columns (0: any) goes on below, beside the bar.

    A line of another run than `own` begins with the end of that run's id, which commands take for the whole.
    """
    if line.is_log:
        shown = _log_line(line.text)
        if width <= 0:
            return shown
        parts = shown.wrap(_FOLDING, width)
        for part in parts:
            part.rstrip()
        return Text("\n").join(parts)
    before = Text.assemble((_other(line.run, own), "dim"), (line.who, "cyan"), (" | ", "dim"))
    room = width - before.cell_len
    if width <= 0 or room < _ROOM_MIN or cell_len(line.text) <= room:
        return before + Text(line.text)
    below = Text.assemble("\n", " " * (before.cell_len - 3), (" | ", "dim"))
    parts = Text(line.text).wrap(_FOLDING, room, overflow="fold")
    return before + below.join(parts)


def begin_line(task: StepTask) -> Text:
    """Return which step begins, and who does it, for somebody who looks at one after the other."""
    agent = task.plan.agent(task.step)
    by = agent.handler or task.plan.tier(agent).model
    tries = f", attempt {task.context.attempt}" if task.context.attempt > 1 else ""
    return Text.assemble(("● ", "cyan"), (plain(short_name(task.step)), "bold"), (f"  {plain(by)}{tries}", "dim"))


def death_lines(death: Death, lease_s: float, own: str = "") -> list[Text]:
    """Return how a worker died, what it held, and what becomes of that."""
    held = sorted(death.held, key=lambda step: step.run != own)
    named = [_other(step.run, own) + plain(short_name(step.step)) for step in held[:_HELD_MAX]]
    more = f" and {len(death.held) - len(named):,} more" if len(death.held) > len(named) else ""
    doing = f"while doing {', '.join(named)}{more}" if named else "with nothing to do"
    again = f"another starts in {seconds(death.restart_s)}"
    if named:
        again += f", and what it held goes on within {lease_s:g} s"
    actor = plain(death.actor.rpartition("--")[2])
    return [
        Text.assemble(("✗ ", "red"), (actor, "bold"), f"  its worker died {doing}: ", (plain(death.end.how), "red")),
        Text(f"  {again}", "dim"),
    ]


def _other(run: str, own: str) -> str:
    return f"{plain(run)[-_RUN_TAIL:]} " if run and run != own else ""


def _log_line(text: str) -> Text:
    """Return a line of our logs with the colours that it has, and without what else would control the terminal."""
    decoded = Text.from_ansi(text)
    return decoded if decoded.plain.isprintable() else Text(clean(text))


def _event(line: Printed) -> str:
    facts = {
        "run": line.run,
        "step": line.step,
        "actor": line.actor,
        "text": without_secrets(line.text),
        "event": "handler.printed",
        "level": "info",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    return msgspec.json.encode({key: value for key, value in facts.items() if value}).decode() + "\n"
