"""What a worker looks up before it does anything, and whom it does not believe."""

from __future__ import annotations

import asyncio

from baton_bus.store.bus import CLOCK_OFF_S
from baton_schemas.flow.flow import Field, Step

from .clients import cancel_run
from .servers import NatsServer, until
from .team import Team, flow_of, team

TEXT = {"text": Field()}
ONE = flow_of({"a": Step(agent="a")}, TEXT)
TWO = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, TEXT)


async def read_a(a: str) -> str:
    return a


async def hand_out(t: Team, agent: str) -> None:
    """Take a handoff as a worker does that dies before it begins, and let the broker have it back at once."""
    taken: list[str] = []
    actor = t.actor(agent)
    subject = t.bus.subjects.for_actor("handoff", actor)
    async with t.bus.pulling(
        f"handoff-{actor}", subject, 1, lambda delivery: taken.append(delivery.reply), max_ack_pending=1000
    ):
        await until(lambda: taken)
    await t.bus.nc.publish(taken[0], b"-NAK")


async def test_handler_of_a_run_that_ended_meanwhile_does_not_start_on_redelivery(
    server: NatsServer, namespace: str
) -> None:
    started: list[str] = []

    async def begins(text: str) -> str:
        started.append(text)
        return text

    async with team(server.url, namespace, TWO, {"a": begins, "b": read_a}, start=False) as t:
        run = await t.submit(text="x")
        await hand_out(t, "a")
        await cancel_run(t.client, run)
        async with t.process():
            await t.until_settled("handoff", "a")
        assert started == []
        assert await t.kinds(run) == ["handoff", "result"]


async def test_steps_are_done_by_nobody_again_when_their_consumer_is_made_anew(
    server: NatsServer, namespace: str
) -> None:
    started: list[str] = []

    async def begins(text: str) -> str:
        started.append(text)
        return text

    async with team(server.url, namespace, TWO, {"a": begins, "b": read_a}, start=False) as t, t.process() as worker:
        # From here on it has heard the ends of all runs, as far as it knows.
        await until(lambda: worker.now_s() > worker.fresh_since_s + CLOCK_OFF_S)
        await t.run(text="before")
        await t.bus.js.delete_consumer(namespace, f"handoff-{t.actor('a')}")
        await t.run(text="after")
        await t.until_settled("handoff", "a")
        assert started == ["before", "after"]


async def test_word_that_the_log_does_not_confirm_loses_no_step_in_hand(server: NatsServer, namespace: str) -> None:
    started: list[str] = []

    async def waits_at_first(text: str) -> str:
        started.append(text)
        if len(started) == 1:
            await asyncio.Event().wait()
        return text

    async with team(server.url, namespace, ONE, {"a": waits_at_first}) as t:
        run = await t.submit(text="x")
        await until(lambda: started)
        await t.bus.say(t.bus.subjects.stored_result("flow", run), b'{"kind":"result","status":"cancelled"}')
        await t.until_settled("handoff", "a")
        assert (await t.kinds(run))[-1] == "result"
        assert len(started) == 2
