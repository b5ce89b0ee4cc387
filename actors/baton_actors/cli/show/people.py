"""What a run asks people, and which events it waits for: who answered, when and with what note. Pure."""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime

from rich.text import Text

from baton_actors.cli.text import plain
from baton_schemas.run.refs import asked_name
from baton_schemas.run.state import RunState, StepState
from baton_schemas.show.times import short_time

_LINES_MAX = 20
"""Questions of a run that are shown with it: those that are open first."""
_TEXT_MAX = 160
_REJECTED_MAX = 3
"""Rejected words that are shown with a run, the latest: `baton dead` lists all."""


def people_lines(state: RunState) -> list[Text]:
    """Return the lines for what a run asks from outside, the open questions first, and for words that were rejected."""
    asked = [step for step in state.steps.values() if step.asked in ("person", "event")]
    asked.sort(key=lambda step: step.status != "queued")
    lines = [line for step in asked[:_LINES_MAX] for line in asked_lines(step, state.run)]
    if len(asked) > _LINES_MAX:
        lines.append(Text(f"  and {len(asked) - _LINES_MAX:,} more", "dim"))
    return lines + [
        Text.assemble(("✗ ", "red"), f"rejected, sequence {fact.seq}: {plain(_short(fact.reason))}")
        for fact in state.rejected[-_REJECTED_MAX:]
    ]


def asked_lines(step: StepState, run: str = "") -> list[Text]:
    """Return what was asked of a person, or is waited for, and what came of it; with a `run`, how to answer it."""
    name, what = plain(asked_name(step.name)), plain(_short(step.question))
    title = f"event {name}" if step.asked == "event" else name
    if step.status == "queued":
        line = Text.assemble(("? ", "yellow"), (title, "bold"), f"  {what}" if what else "")
        line.append(f"  since {_time(step.queued_at)}" if step.queued_at else "", "dim")
        command = f"say {plain(run)} {name}" if step.asked == "event" else f"answer {plain(run)} {plain(step.name)} …"
        how = [Text(f"  {plain(step.expects)}   baton {command}".replace("     ", "  "), "dim")] if run else []
        return [line, *how]
    mark = ("✓ ", "green") if step.status == "done" else ("\N{EN DASH} ", "dim")
    line = Text.assemble(mark, (title, "bold"), f"  {what}" if what else "", f"  {_answer(step)}")
    who = (
        f"by {plain(_short(step.answered_by))}"
        if step.answered_by
        else "by itself, as its time was up"
        if step.by_itself
        else ""
    )
    at = f"at {_time(step.ended_at)}" if step.ended_at is not None else ""
    line.append("".join(f", {part}" for part in (who, at) if part), "dim")
    if step.note:
        line.append(f": {plain(_short(step.note))}")
    return [line]


def open_lines(state: RunState, told: Container[str] = ()) -> dict[str, list[Text]]:
    """Return the lines for the questions that wait for people, and how to answer them, by name; not those told."""
    waiting = [step for step in state.steps.values() if step.asked == "person" and step.status == "queued"]
    waiting = [step for step in waiting if step.name not in told][:_LINES_MAX]
    return {step.name: asked_lines(step, state.run) for step in waiting} if state.result is None else {}


def _answer(step: StepState) -> str:
    if step.status == "done":
        data = bytes(step.output).decode(errors="replace") if step.output is not None else "(large)"
        return plain(_short(data))
    return plain(_short(step.error.message)) if step.error is not None else step.status


def _time(at: datetime | None) -> str:
    return short_time(at, datetime.now(UTC)) if at is not None else ""


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _TEXT_MAX else words[: _TEXT_MAX - 1] + "…"
