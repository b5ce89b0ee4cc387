"""The order of effects, as the server hears it: what decides is stored before what follows, and both before the ack."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from pytest_httpserver import HTTPServer

from baton_actors import Context
from baton_actors.agents.loading import find_flow
from baton_actors.errors import Retry
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_actors.services.steward import Steward
from baton_bus.engine.engine import Engine
from baton_bus.settings import Settings
from baton_bus.store.blobs import CHUNK_BYTES
from baton_bus.store.bus import open_bus
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.messages import Result

from .clients import result_of, start_run
from .model_servers import end, settings_for, sse, start, text
from .overheard import overhearing
from .servers import WAIT_S, NatsServer
from .team import flow_of, team, value_of
from .timed import SOON_S, Gate, over_texts, timed

TEXT = {"text": Field()}
DIAMOND = flow_of(
    {
        "a": Step(agent="a"),
        "b": Step(agent="read", after=["a"]),
        "c": Step(agent="read", after=["a"]),
        "d": Step(agent="both", after=["b", "c"]),
    },
    TEXT,
)
LLM_FLOW = """
name = "f"
input = { topic = "str" }
agents.writer = { model = "worker", prompt = "Write about {topic}." }
steps.write = { agent = "writer" }
"""


async def echo(text: str) -> str:
    return text


async def read_a(a: str) -> str:
    return a


async def both(b: str, c: str) -> str:
    return b + c


async def test_outcome_is_stored_before_what_follows_and_that_before_the_ack(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, DIAMOND, {"a": echo, "read": read_a, "both": both}) as t:
        async with overhearing(t.bus) as heard:
            assert value_of((await t.run(text="x")).outcome) == "xx"
            await heard.until_settled(f"handoff-{t.actor('a')}")
        outcome = heard.stored(f"{namespace}.outcome.{t.actor('a')}.*.a")
        following = [f"{namespace}.handoff.{t.actor('read')}.*.{step}.a" for step in ("b", "c")]
        assert outcome < min(map(heard.sent, following))
        assert max(map(heard.stored, following)) < heard.settled(f"handoff-{t.actor('a')}")


async def test_reply_is_stored_before_its_handoff_is_acked(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, DIAMOND, {"a": echo, "read": read_a, "both": both}) as t:
        async with overhearing(t.bus) as heard:
            await t.run(text="x")
            await heard.until_settled(f"handoff-{t.actor('read')}", count=2)
        assert heard.stored(f"{namespace}.reply.>") < heard.settled(f"handoff-{t.actor('read')}")


async def test_replies_are_acked_once_the_chain_has_them_and_the_last_once_the_join_is_closed(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, DIAMOND, {"a": echo, "read": read_a, "both": both}) as t:
        async with overhearing(t.bus) as heard:
            await t.run(text="x")
            await heard.until_settled(f"reply-{t.actor('both')}", count=2)
        replies = f"reply-{t.actor('both')}"
        assert heard.stored(f"{namespace}.join.{t.actor('both')}.*.d.1") < heard.settled(replies)
        assert heard.stored(f"{namespace}.handoff.{t.actor('both')}.*.d.join") < heard.settled(replies, last=True)


async def test_step_that_waits_for_long_is_let_go_once_its_timer_is_set(server: NatsServer, namespace: str) -> None:
    async def later(text: str) -> str:
        raise Retry("later", after_s=600)

    flow = flow_of({"a": Step(agent="a")}, TEXT)
    async with timed(server, namespace, flow, {"a": later}) as t:
        async with overhearing(t.bus) as heard:
            await t.submit(text="x")
            await heard.until_settled(f"handoff-{t.actor('a')}")
        assert heard.stored(f"{namespace}.timer.{t.actor('a')}.>") < heard.settled(f"handoff-{t.actor('a')}")


async def test_step_that_waits_for_an_answer_is_let_go_once_it_is_parked_there(
    server: NatsServer, namespace: str
) -> None:
    answering = asyncio.Event()

    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async def helper(topic: str) -> str:
        await answering.wait()
        return topic

    boss_asks = {"workers": ["helper"], "park_after_s": 0.1}
    agents: dict[str, Any] = {"boss": boss_asks, "helper": {"input": {"topic": Field()}}}
    flow = flow_of({"lead": Step(agent="boss")}, TEXT, agents)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper}) as t:
        async with overhearing(t.bus) as heard:
            run = await t.submit(text="x")
            await heard.until_settled(f"handoff-{t.actor('boss')}")
        assert heard.stored(f"{namespace}.answer.{t.actor('boss')}.>") < heard.settled(f"handoff-{t.actor('boss')}")
        answering.set()
        assert value_of((await t.result(run)).outcome) == "x"


async def test_what_is_due_is_acked_once_it_is_in_the_log(server: NatsServer, namespace: str) -> None:
    gate = Gate()

    async def merge(each: list[str]) -> list[str]:
        return each

    async with timed(server, namespace, over_texts(SOON_S), {"branch": gate.branch, "merge": merge}) as t:
        async with overhearing(t.bus) as heard:
            await t.run(texts=["slow"], title="t")
            await heard.until_settled("due")
        gate.open.set()
        assert heard.stored(f"{namespace}.reply.*.*.merge.deadline") < heard.settled("due")


async def test_rejected_message_is_taken_away_once_a_note_says_why(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, DIAMOND, {"a": echo, "read": read_a, "both": both}) as t:
        consumer = f"handoff-{t.actor('a')}"
        async with overhearing(t.bus) as heard:
            await t.bus.publisher.create(f"{namespace}.handoff.{t.actor('a')}.r1.a.start", b"nonsense")
            await heard.until_settled(consumer)
        assert heard.words(consumer) == [b"+TERM"]
        assert heard.stored(f"{namespace}.note.{t.actor('a')}.r1.>") < heard.settled(consumer)


async def test_task_is_acked_once_its_run_is_in_the_log(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, DIAMOND, {}, start=False) as t:
        async with overhearing(t.bus) as heard, Steward(Engine(t.bus), {"flow": t.plan}).working():
            await t.bus.nc.publish(f"{namespace}.task.flow", b'{"input":{"text":"x"}}')
            await heard.until_settled("steward-flow")
        assert heard.stored(f"{namespace}.handoff.{t.actor('a')}.*.a.start") < heard.settled("steward-flow")


async def test_answer_of_a_model_is_stored_before_it_is_used(
    server: NatsServer, namespace: str, tmp_path: Path, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/v1/messages").respond_with_data(
        sse(start(), *text("About tea."), *end("end_turn")), content_type="text/event-stream"
    )
    (tmp_path / "flow.toml").write_text(LLM_FLOW)
    found = find_flow(str(tmp_path / "flow.toml"))
    models = Models(settings_for(httpserver.url_for("")))
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        async with overhearing(bus) as heard, models, hosting(Engine(bus), found, ["writer"], models=models):
            run = await start_run(bus, found.plan, {"topic": "tea"})
            result = await result_of(bus, run, timeout_s=WAIT_S)
        assert isinstance(result, Result)
        assert heard.stored(f"{namespace}.note.*.{run}.write.*") < heard.sent(f"{namespace}.result.f.{run}.end")
        await bus.js.delete_stream(namespace)
        await bus.js.delete_stream(bus.timers.stream)


async def test_blob_is_said_to_be_whole_once_all_of_it_is_stored(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        async with overhearing(bus) as heard:
            blob = await bus.blobs.put(msgspec.json.encode("x" * (3 * CHUNK_BYTES)))
        chunks = [bus.subjects.blob(blob.sha256, number) for number in (1, 2, 3, 4)]
        assert max(map(heard.stored, chunks)) < heard.sent(bus.subjects.blob(blob.sha256, 0))
        await bus.js.delete_stream(namespace)
        await bus.js.delete_stream(bus.blobs.stream)
