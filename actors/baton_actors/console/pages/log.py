"""The log of all runs, message by message: its end as it comes, or a part of it."""

from __future__ import annotations

import shlex
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.page import LOG, Given, Moved, Page
from baton_bus.client.browsing import LOOKED_MAX, Found, Sought, before, onward
from baton_schemas.run.state import Entry
from baton_schemas.show.lines import one_line
from baton_schemas.show.slices import hex_lines
from baton_schemas.wire.names import TOKEN

LINES = 500
"""Lines of one page."""
KINDS = ("task", "handoff", "reply", "answer", "outcome", "say", "join", "note", "result")
_FILTERS = ("kind", "flow", "step", "text")
_TEXT_MAX = 400
"""Characters of a message that cannot be read, and of what is looked for."""


class Line(NamedTuple):
    """A message of the log."""

    entry: Entry
    text: str
    run: str
    """Empty where there is none that could be opened."""
    hex: list[str]
    """Of a message that this release cannot read: its bytes."""
    as_text: str


async def log_page(console: Console, request: Request) -> Page:
    """Return the end of the log, as it comes; or from a message on (`from`), or what is before one (`before`)."""
    given = Given(request.query_params)
    sought = Sought(**{name: given[name].strip()[:_TEXT_MAX] for name in _FILTERS})
    log, start, end = console.bus.log, _seq(given, "from"), _seq(given, "before")
    dropped, rates, is_live = 0, None, not (start or end)
    if start:
        found = await onward(log, sought, start, LINES)
    elif end:
        found = await before(log, sought, end, LINES)
    else:
        view = await console.tail.view(sought)
        entries = list(view.entries)
        first = entries[0].seq if len(entries) == view.entries.maxlen else view.first_seq
        found = Found(entries=entries, first_seq=first, last_seq=view.upto_seq)
        dropped, rates = view.dropped, console.tail.rates()
    lines = [_line(entry, console.bus.settings.namespace) for entry in found.entries]
    return Page(
        template="log.html",
        title="Log",
        here="log",
        facts={
            "lines": lines,
            "found": found,
            "given": given,
            "kinds": KINDS,
            "dropped": dropped,
            "rates": rates,
            "is_live": is_live,
            "older": _with(given, before=str(found.first_seq), **{"from": ""}) if found.first_seq > 1 else "",
            "newer": _with(given, **{"from": str(found.last_seq + 1), "before": ""}) if not is_live else "",
            "newest": _with(given, **{"from": "", "before": ""}),
            "looked": max(found.last_seq - found.first_seq + 1, 0),
            "looked_max": LOOKED_MAX,
        },
        json=[
            {"seq": line.entry.seq, "at": line.entry.at, "subject": line.entry.subject, "says": line.text}
            for line in lines
        ],
        command=_command(lines, given),
        sources=(LOG,) if is_live else (),
        stored_at_s=found.entries[-1].at.timestamp() if is_live and found.entries else 0.0,
        every_s=1.0 if is_live else 0.0,
    )


async def message_page(console: Console, request: Request) -> Page:
    """Lead from a message of the log, by its sequence, to its place in its run. Raises `HTTPException`."""
    seq = int(request.path_params["seq"])
    entry = await console.bus.log.at_sure(seq) if seq else None
    if entry is None:
        raise HTTPException(404, f"the log has no message {seq:,}: it was removed, or is still to come")
    run = _run_of(entry, console.bus.settings.namespace)
    if not run:
        raise HTTPException(404, f"message {seq:,} is of no run: /log?from={seq} shows it")
    feed = await console.feeds.read(run)
    number = next((number for number, each in enumerate(feed.entries, 1) if each.seq == seq), 0)
    raise Moved(f"/runs/{feed.run}/messages/{number}" if number else f"/runs/{feed.run}")


def _line(entry: Entry, namespace: str) -> Line:
    data = entry.data if entry.message is None else b""
    return Line(
        entry=entry,
        text=one_line(entry),
        run=_run_of(entry, namespace),
        hex=hex_lines(data),
        as_text=data[:_TEXT_MAX].decode(errors="replace"),
    )


def _run_of(entry: Entry, namespace: str) -> str:
    tokens = entry.subject.removeprefix(f"{namespace}.").split(".")
    run = tokens[2] if len(tokens) > 2 else ""
    return run if TOKEN.match(run) and run != "-" else ""


def _seq(given: Given, name: str) -> int:
    text = given[name]
    if text and (not text.isascii() or not text.isdecimal() or len(text) > 18):
        raise ValueError(f"{name}={text!r}: expected the sequence of a message")
    return int(text or 0)


def _with(given: Given, **changed: str) -> str:
    merged = {name: value for name, value in {**given, **changed}.items() if value}
    return "/log" + (f"?{urlencode(merged)}" if merged else "")


def _command(lines: list[Line], given: Given) -> str:
    """Return the command that prints the messages of the run that is looked at, if it is one."""
    runs = {line.run for line in lines if line.run}
    return f"baton log {shlex.quote(runs.pop())}" if len(runs) == 1 else ""
