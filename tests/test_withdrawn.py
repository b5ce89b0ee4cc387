"""Questions and events that are open when the step that asked has ended: they are taken back, whoever dies."""

from __future__ import annotations

import asyncio
from typing import Any

from baton_actors import Context
from baton_actors.services.clerk import Clerk
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import Step
from baton_schemas.wire.messages import Answer, Asked, Handoff

from .dying import MORTAL, at_once, dying
from .servers import NatsServer
from .team import Team, flow_of, team, value_of
from .timed import TEXT, timed, until_so

FLOW = flow_of(
    {"lead": Step(agent="lead"), "then": Step(agent="then", after=["lead"])},
    TEXT,
    {"lead": {"park_after_s": 0.05}, "then": {"reads": ["lead"], "park_after_s": 0.05}},
)


async def lead(text: str, context: Context) -> str:
    """Asks two roles and waits for an event beside that; who comes first is enough, and the rest is cancelled."""
    asked = [context.ask_person("editors", text), context.ask_person("chiefs", text), context.wait_for("paid")]
    tasks = [asyncio.ensure_future(each) for each in asked]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    return str(done.pop().result())


async def then(lead: str, context: Context) -> list[Any]:
    return [lead, await context.wait_for("paid")]


async def say(t: Team, role: str, run: str, step: str, word: bytes) -> None:
    await t.bus.js.publish(f"{t.bus.settings.namespace}.say.{role}.{run}.{step}", word)


async def ends_of(t: Team, run: str) -> dict[str, str]:
    """What became of each question and event of the first step, by its name: open, done, or the type of its error."""
    found: dict[str, str] = {}
    for message in [entry.message for entry in await t.log(run)]:
        if isinstance(message, Handoff) and isinstance(message.cause, Asked) and message.cause.step == "lead":
            found.setdefault(message.step.partition("--k")[0], "open")
        elif isinstance(message, Answer) and message.step == "lead":
            error = getattr(message.outcome, "error", None)
            found[message.child.partition("--k")[0]] = error.type if error is not None else "done"
    return found


async def until_ends_are(t: Team, run: str, **ends: str) -> None:
    async def are_there() -> bool:
        return await ends_of(t, run) == ends

    await until_so(are_there)


async def test_question_that_a_handler_cancels_when_it_runs_again_is_withdrawn(
    server: NatsServer, namespace: str
) -> None:
    async with timed(server, namespace, FLOW, {"lead": lead, "then": then}) as t:
        run = await t.submit(text="Who?")
        await until_ends_are(t, run, editors="open", chiefs="open", paid="open")
        await t.until_settled("handoff", "lead")  # it is parked
        await say(t, "chiefs", run, "lead", b'{"answer": "mine"}')
        await until_ends_are(t, run, editors="Withdrawn", chiefs="done", paid="Withdrawn")
        assert await t.client.inbox() == []
        await say(t, "paid", run, "-", b'{"answer": 3}')
        assert value_of((await t.result(run)).outcome) == ["mine", 3]


async def test_question_is_withdrawn_whoever_dies_after_its_step_has_ended(server: NatsServer, namespace: str) -> None:
    async def dies_after(writes: int) -> int:
        settings = {"start": False, **MORTAL}
        async with (
            team(server.url, f"{namespace}-{writes}", FLOW, {"lead": lead, "then": then}, **settings) as t,
            Clerk(Engine(t.bus)).working(),
        ):
            run = await t.submit(text="Who?")
            async with dying(t, writes) as process:
                answered = asyncio.create_task(_answer_when_all_is_asked(t, run))
                dead = asyncio.create_task(process.until_dead())
                await asyncio.wait([answered, dead], return_when=asyncio.FIRST_COMPLETED)
                dead.cancel()
            async with t.process(grace_s=0.5):
                await answered
                await say(t, "paid", run, "-", b'{"answer": 3}')
                assert value_of((await t.result(run)).outcome) == ["mine", 3]
            return process.left

    left = await at_once(dies_after, 13)
    assert left[:6] == [0] * 6  # three questions, the end of the step, and two that are taken back; it may park besides
    assert left[-1] > 0  # and no more: it died in each of them


async def _answer_when_all_is_asked(t: Team, run: str) -> None:
    await until_ends_are(t, run, editors="open", chiefs="open", paid="open")
    await say(t, "chiefs", run, "lead", b'{"answer": "mine"}')
    await until_ends_are(t, run, editors="Withdrawn", chiefs="done", paid="Withdrawn")
