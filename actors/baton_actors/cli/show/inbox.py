"""What waits for people, as they see it: a list, and one question to read and answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from baton_actors.cli.show.answering import Answering
from baton_actors.cli.text import plain, plain_lines
from baton_bus.client.people import Waiting
from baton_schemas.flow.questions import expects
from baton_schemas.show.times import short_time

_SHOWN_MAX = 20
"""Questions of a list that are shown on a terminal at once, about the one that is chosen."""


def inbox_lines(waiting: Iterable[Waiting], now: datetime) -> Iterator[Text]:
    """Return two lines for each question: what is asked of whom, and where, since when, what may be answered."""
    for each in waiting:
        yield _title(each)
        yield Text(f"  {_facts(each, now)}", "dim")
        yield Text(f"  baton answer {plain(each.run)} {plain(each.name)} …", "dim")


def answering_page(answering: Answering, now: datetime, width: int) -> RenderableType:
    """Return what is on the terminal: the list, or the question that is read."""
    parts: list[RenderableType] = []
    if answering.open:
        parts += _question(answering, now)
    else:
        first = max(min(answering.at - _SHOWN_MAX // 2, len(answering.waiting) - _SHOWN_MAX), 0)
        parts += [Text(f"{len(answering.waiting):,} waiting", "bold"), Text()]
        for number, each in enumerate(answering.waiting[first : first + _SHOWN_MAX], first):
            chosen = number == answering.at
            line = Text.assemble(("> " if chosen else "  ", "cyan"), _title(each))
            line.truncate(width, overflow="ellipsis")
            parts.append(line)
            if chosen:
                parts.append(Text(f"    {_facts(each, now)}", "dim", no_wrap=True, overflow="ellipsis"))
    if answering.said:
        parts += [Text(), Text(plain(answering.said), "yellow")]
    return Group(*parts, Text(), Text(answering.help, "dim", no_wrap=True, overflow="ellipsis"))


def _question(answering: Answering, now: datetime) -> list[RenderableType]:
    each = answering.question
    parts: list[RenderableType] = [
        Text.assemble(
            (plain(each.role), "bold"), (f"  {plain(each.flow)} {plain(each.run)} {plain(each.step)}", "dim")
        ),
        Text(_when(each, now), "dim"),
        Text(),
        Text(plain_lines(each.question.text)),
        Text(),
    ]
    for number, answer in enumerate(each.question.answers):
        chosen = number == answering.choice
        key = f"{number + 1}" if number < 9 else " "
        parts.append(
            Text.assemble(("> " if chosen else "  ", "cyan"), f"{key} ", (plain(answer), "bold" if chosen else ""))
        )
    if not each.question.answers:
        parts.append(Text(f"expected: {plain(expects(each.question))}", "dim"))
        parts.append(Text.assemble("answer: ", plain(answering.text), "" if answering.types_note else "▏"))
    if answering.note or answering.types_note:
        parts.append(Text.assemble("note: ", plain(answering.note), "▏" if answering.types_note else ""))
    return parts


def _title(each: Waiting) -> Text:
    return Text.assemble(("? ", "yellow"), (plain(each.role), "bold"), f"  {plain(_short(each.question.text))}")


def _facts(each: Waiting, now: datetime) -> str:
    where = f"{each.flow} {each.run} {each.step}"
    return plain(f"{where}, {expects(each.question)}, {_when(each, now)}")


def _when(each: Waiting, now: datetime) -> str:
    since = f"since {short_time(each.since, now)}"
    if each.until is None:
        return since
    default = f", then {msgspec.json.format(bytes(each.default), indent=0).decode()}" if bytes(each.default) else ""
    return f"{since}, until {short_time(each.until, now)}{default}"


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 200 else words[:199] + "…"
