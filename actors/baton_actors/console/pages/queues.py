"""Queues: whether work is done, by whom, how long it waits, and what to do where it stands still."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.drawn import polyline
from baton_actors.console.page import QUEUES, Page
from baton_actors.console.queue_facts import actors_of, never_up, queues_of_actor
from baton_bus.doctor.queues import Queue, held_in, start_command

_SPARK_WIDE, _SPARK_TALL = 120, 24
_SPARK_S = 300
"""Seconds that a picture of rates is of."""
_HELD_SHOWN = 200
_SERVICES = {"steward": "tasks that begin runs", "say": "words from outside", "due": "what is due"}


async def queues_page(console: Console, request: Request) -> Page:
    """Return the actors with what waits for them."""
    looked = await console.queues.look()
    workers = console.workers()
    actors = actors_of(console, looked, workers, await never_up(console, looked))
    return Page(
        template="queues.html",
        title="Queues",
        here="queues",
        facts={
            "actors": actors,
            "services": [each for each in looked.queues if each.kind not in ("handoff", "reply")],
            "service_names": _SERVICES,
            "allowed": looked.allowed,
            "sparks": {each.actor: _spark(console, each.actor) for each in actors},
            "now": datetime.now(UTC),
            "heard": bool(workers),
        },
        json=actors,
        command="baton doctor",
        sources=(QUEUES,),
    )


async def queue_page(console: Console, request: Request) -> Page:
    """Return one actor, with the runs that wait for it."""
    name = request.path_params["actor"]
    looked = await console.queues.look()
    absent = await never_up(console, looked)
    found = next((each for each in actors_of(console, looked, console.workers(), absent) if each.actor == name), None)
    if found is None and not looked.allowed:
        raise HTTPException(403, "This user may not look at the consumers. Log in as operator or admin.")
    if found is None:
        raise HTTPException(404, f"No actor {name!r} was ever up here. Start it: {start_command(name)}")
    queues = queues_of_actor(looked, name) if name not in absent else [_without(console, name, absent[name])]
    held = [each for queue in queues for each in await held_in(console.bus, queue, _HELD_SHOWN)]
    return Page(
        template="queue.html",
        title=f"Queue of {name}",
        here="queues",
        facts={
            "actor": found,
            "held": sorted(held, key=lambda each: each.seq)[:_HELD_SHOWN],
            "spark": _spark(console, name, wide=480, tall=60),
            "now": datetime.now(UTC),
        },
        json={"queue": found, "waiting": held},
        command=found.command,
        sources=(QUEUES,),
    )


def _without(console: Console, actor: str, times: list[datetime]) -> Queue:
    """Return the queue that an actor would have which was never up."""
    return Queue(
        name="",
        kind="handoff",
        actor=actor,
        waiting=len(times),
        in_hand=0,
        in_hand_max=-1,
        redelivered=0,
        asking=0,
        down=True,
        handed_out=0,
        after_seq=0,
        subject=console.bus.subjects.for_actor("handoff", actor),
        at=None,
        says=(),
    )


def _spark(console: Console, actor: str, wide: int = _SPARK_WIDE, tall: int = _SPARK_TALL) -> dict[str, Any]:
    """Return the lines of what came in and went out, in units of the picture; nothing before there are some."""
    rates = console.queues.rates(f"handoff-{actor}")[-_SPARK_S:]
    if len(rates) < 2:
        return {"wide": wide, "tall": tall, "came": "", "went": "", "most": 0.0}
    end, most = rates[-1].at, max(max(each.came, each.went) for each in rates)
    places = [wide * (1 - (end - each.at) / _SPARK_S) for each in rates]
    return {
        "wide": wide,
        "tall": tall,
        "most": most,
        "came": polyline(places, [each.came for each in rates], most, tall),
        "went": polyline(places, [each.went for each in rates], most, tall),
    }
