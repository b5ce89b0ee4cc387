"""`baton inbox`, `answer` and `say`: what waits for people, and what they say."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.live import Live

from baton_actors.cli import completing
from baton_actors.cli import options as o
from baton_actors.cli.answers import login_name, read_answer, typed_answer
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, CommandError
from baton_actors.cli.keys import read_key, single_keys
from baton_actors.cli.output import print_json
from baton_actors.cli.place import Place
from baton_actors.cli.show.answering import Answering, Given
from baton_actors.cli.show.console import console
from baton_actors.cli.show.inbox import answering_page, inbox_lines
from baton_bus import BusError
from baton_bus.client.people import Waiting, question_of, waiting_facts
from baton_bus.client.runs import find_run
from baton_schemas.errors import SchemaError
from baton_schemas.wire.messages import Question

_NOBODY = "no worker is up to take it: it will be taken when one is"

Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Kept with it, and shown.")]
As = Annotated[str, typer.Option("--as", metavar="NAME", help="Who says it; the login name without it.")]


@command()
def inbox(
    place: Place,
    role: Annotated[str, typer.Argument(metavar="[ROLE]", help="Only what waits for this role.")] = "",
    by: As = "",
    json: o.Json = False,
) -> int:
    """List what waits for people, and answer it.

    On a terminal keys go through it: Enter opens a question, a digit or a text answers it.
    """
    waiting = asyncio.run(_waiting(place, role))
    if json:
        print_json([waiting_facts(each) for each in waiting])
    elif waiting and sys.stdin.isatty() and sys.stdout.isatty():
        _go_through(place, role, waiting, by or login_name())
    elif waiting:
        out = console()
        for line in inbox_lines(waiting, datetime.now(UTC)):
            out.print(line, soft_wrap=True)
    else:
        print(f"nothing waits for {role or 'anybody'}", file=sys.stderr)
    return OK


@command()
async def answer(
    place: Place,
    run: o.RunNeeded,
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="The step that asks, or the question's own name, as `baton inbox` shows it; or the role.",
            autocompletion=completing.steps,
        ),
    ],
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="ANSWER...",
            help="One of the answers, a text, JSON, or KEY=VALUE for each field; @FILE takes a file.",
        ),
    ],
    note: Note = "",
    by: As = "",
    json: o.Json = False,
) -> int:
    """Answer a question that a run asks.

    It is durable once it is sent; a worker takes it, now or later.
    """
    async with place.client() as client:
        head = await find_run(client.bus, run)
        found = await question_of(client.engine, head.run, step)
        value = read_answer(found.cause.question or Question(text=""), words)
        taken = await client.run(head.run).answer(found.child.step, value, who=by or login_name(), note=note)
    facts = {"run": head.run, "step": found.cause.step, "name": found.child.step, "role": found.name, "answer": value}
    return _tell(facts, taken, json, f"{head.run} {found.cause.step}: {found.name} answered", _NOBODY)


@command()
async def say(
    place: Place,
    run: o.RunNeeded,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The name that the run waits for.")],
    value: Annotated[
        str, typer.Argument(metavar="[VALUE]", help="What it brings: JSON, or else a text; @FILE takes a file.")
    ] = "null",
    note: Note = "",
    by: As = "",
    json: o.Json = False,
) -> int:
    """Tell a run of an event that it waits for, or will.

    It is durable once it is sent, and kept until a step waits for it.
    """
    given = read_answer(Question(text=""), [value]) if value != "null" else None
    async with place.client() as client:
        head = await find_run(client.bus, run)
        taken = await client.run(head.run).say(event, given, who=by or login_name(), note=note)
    kept = "it is kept: the first step that waits for it gets it"
    return _tell({"run": head.run, "event": event, "value": given}, taken, json, f"{head.run}: it got {event}", kept)


def _tell(facts: dict[str, Any], taken: bool, as_json: bool, done: str, later: str) -> int:
    if as_json:
        print_json({**facts, "taken": taken})
    elif taken:
        print(done, flush=True)
    else:
        print(later, file=sys.stderr, flush=True)
    return OK


async def _waiting(place: Place, role: str) -> list[Waiting]:
    async with place.client(reads=True) as client:
        return await client.inbox(role)


def _go_through(place: Place, role: str, waiting: list[Waiting], who: str) -> None:
    """Show what waits, and answer it by keys. It leaves the terminal as it was."""
    fd, answering = sys.stdin.fileno(), Answering(waiting)
    with single_keys(fd), Live(console=console(), screen=True, auto_refresh=False) as live:
        while not answering.left:
            live.update(answering_page(answering, datetime.now(UTC), live.console.width), refresh=True)
            given = answering.press(read_key(fd))
            if given is not None:
                said = asyncio.run(_say(place, given, who))
                answering.goes_on_with(asyncio.run(_waiting(place, role)), said)


async def _say(place: Place, given: Given, who: str) -> str:
    """Answer, and return what came of it."""
    waiting = given.waiting
    try:
        value = typed_answer(waiting.question, given.text)
        async with place.client() as client:
            taken = await client.run(waiting.run).answer(waiting.name, value, who=who, note=given.note)
    except (CommandError, BusError, SchemaError) as error:
        return f"not answered: {error}"
    return f"answered {given.text!r}" if taken else _NOBODY
