"""`baton dead`: what did not end well and waits for a person, with the command to go on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.console import console
from baton_actors.cli.show.step_lines import error_line
from baton_actors.cli.text import plain
from baton_bus.client.dead import DeadStep, RejectedMessage, dead_steps, rejected_messages
from baton_schemas.show.times import short_time

_INDENT = "  "


@command()
async def dead(place: Place, limit: o.Limit = 20, json: o.Json = False) -> int:
    """List failed steps and rejected messages, the newest first."""
    async with place.bus(reads=True) as bus:
        found: list[DeadStep | RejectedMessage] = [*await dead_steps(bus, limit), *await rejected_messages(bus, limit)]
        stream = bus.settings.namespace
    latest = sorted(found, key=lambda each: each.at, reverse=True)[:limit]
    if json:
        print_json([_facts(each, _go_on(each, stream)[0]) for each in latest])
    elif latest:
        _tell(latest, stream, datetime.now(UTC))
    else:
        print("no run has failed, and no message was rejected", file=sys.stderr)
    return OK


def _tell(dead: Sequence[DeadStep | RejectedMessage], stream: str, now: datetime) -> None:
    out = console()
    for number, each in enumerate(dead):
        if number:
            out.print()
        for line in _lines(each, now):
            out.print(line, soft_wrap=True)
        out.print(Text(_INDENT + plain("   ".join(filter(None, _go_on(each, stream)))), "dim"), soft_wrap=True)


def _lines(dead: DeadStep | RejectedMessage, now: datetime) -> list[Text]:
    if isinstance(dead, DeadStep):
        what, where, why = dead.flow, dead.run, error_line(dead.error)
    else:
        place = f"on {dead.subject}" if dead.subject else "is gone from the log"
        what, where, why = (
            "rejected",
            f"sequence {dead.seq} {place}",
            Text(plain(dead.reason) or "for no reason that its note gives"),
        )
    when = (f"  {short_time(dead.at, now)}  ", "dim")
    return [Text.assemble(("✗ ", "red"), (plain(what), "bold"), when, plain(where)), Text.assemble(_INDENT, why)]


def _go_on(dead: DeadStep | RejectedMessage, stream: str) -> tuple[str, str]:
    """Return the command to go on with, to retry or to look, and a remark on it."""
    if isinstance(dead, RejectedMessage):
        return (f"nats stream get {stream} {dead.seq}" if dead.subject else f"baton log {dead.run}"), ""
    if dead.forked_as:
        return f"baton show {dead.forked_as}", "goes on from it"
    return (f"baton retry {dead.run}", "") if dead.began else (f"baton show {dead.run}", "never began: submit it again")


def _facts(dead: DeadStep | RejectedMessage, go_on: str) -> dict[str, Any]:
    if isinstance(dead, DeadStep):
        return {
            "kind": "failed",
            "run": dead.run,
            "flow": dead.flow,
            "step": dead.error.step,
            "error": dead.error,
            "cause": dead.cause.key,
            "at": dead.at,
            "forked_as": dead.forked_as,
            "go_on": go_on,
        }
    return {
        "kind": "rejected",
        "run": dead.run,
        "seq": dead.seq,
        "subject": dead.subject,
        "reason": dead.reason,
        "at": dead.at,
        "go_on": go_on,
    }
