"""What a step costs in the log, and what its handler is given."""

from __future__ import annotations

import asyncio
import threading

from msgspec import Struct

from baton_actors.agents.handlers import Context
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.messages import Handoff

from .servers import NatsServer
from .team import flow_of, team, value_of


class Fact(Struct):
    text: str
    weight: int = 1


class Article(Struct):
    title: str
    facts: list[Fact]


async def echo(text: str) -> str:
    return text


async def read_a(a: str) -> str:
    return a


async def read_b(b: str) -> str:
    return b


TEXT = {"text": Field()}
PIPELINE = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"]), "c": Step(agent="c", after=["b"])}, TEXT)


async def test_each_step_of_a_pipeline_costs_one_message(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, PIPELINE, {"a": echo, "b": read_a, "c": read_b}) as t:
        run = await t.submit(text="hi")
        result = await t.result(run)

        assert (result.status, value_of(result.outcome)) == ("done", "hi")
        assert await t.kinds(run) == ["handoff", "handoff", "handoff", "result"]


async def test_handoff_carries_what_is_read_later_and_no_more(server: NatsServer, namespace: str) -> None:
    agents = {"a": {"reads": ["text"]}, "b": {"reads": ["a"]}, "c": {"reads": ["a", "b"]}}
    flow = flow_of(PIPELINE.steps, {**TEXT, "unread": Field()}, agents)

    async def both(a: str, b: str) -> str:
        return a + b

    async with team(server.url, namespace, flow, {"a": echo, "b": read_a, "c": both}) as t:
        run = await t.submit(text="hi", unread="?")
        result = await t.result(run)

        assert value_of(result.outcome) == "hihi"
        _, to_b, to_c = [entry.message for entry in await t.log(run) if isinstance(entry.message, Handoff)]
        assert (to_b.state.input, to_b.state.outputs) == ({}, {})
        assert (to_c.state.input, list(to_c.state.outputs)) == ({}, ["a"])


async def test_values_are_decoded_into_the_types_that_a_handler_asks_for(server: NatsServer, namespace: str) -> None:
    async def find(text: str) -> list[Fact]:
        return [Fact(word) for word in text.split()]

    async def write(a: list[Fact], scale: float) -> Article:
        assert isinstance(scale, float)
        return Article("t", [Fact(fact.text, fact.weight + round(scale)) for fact in a])

    async def last(b: Article) -> int:
        return sum(fact.weight for fact in b.facts)

    flow = flow_of(PIPELINE.steps, {**TEXT, "scale": Field(type="float")})
    async with team(server.url, namespace, flow, {"a": find, "b": write, "c": last}) as t:
        assert value_of((await t.run(text="x y", scale=3)).outcome) == 8


async def test_plain_functions_run_in_threads_beside_each_other(server: NatsServer, namespace: str) -> None:
    together = threading.Barrier(2, timeout=10)

    def wait_for_the_other(text: str) -> bool:
        together.wait()
        return threading.current_thread() is threading.main_thread()

    flow = flow_of({"a": Step(agent="a")}, TEXT)
    async with team(server.url, namespace, flow, {"a": wait_for_the_other}) as t:
        results = await asyncio.gather(t.run(text="1"), t.run(text="2"))

        assert [value_of(result.outcome) for result in results] == [False, False]


async def test_handler_is_told_for_whom_it_works(server: NatsServer, namespace: str) -> None:
    async def who(context: Context, item: str, index: int) -> str:
        return f"{context.run} {context.step} {context.attempt} {item} {index}"

    async def merge(a: list[str]) -> list[str]:
        return a

    steps = {"a": Step(agent="a", each="texts"), "merge": Step(agent="merge", after=["a"])}
    flow = flow_of(steps, {"texts": Field(type="list[str]")})
    async with team(server.url, namespace, flow, {"a": who, "merge": merge}) as t:
        run = await t.submit("r1", texts=["x", "y"])

        assert value_of((await t.result(run)).outcome) == ["r1 a-0 1 x 0", "r1 a-1 1 y 1"]


async def test_parameter_keeps_its_default_when_its_value_is_absent(server: NatsServer, namespace: str) -> None:
    async def fail(text: str) -> str:
        raise ValueError(text)

    async def go_on(a: str = "nothing came", text: str = "") -> str:
        return f"{a} for {text}"

    steps = {"a": Step(agent="a", on_error="continue"), "b": Step(agent="b", after=["a"])}
    flow = flow_of(steps, TEXT, {"a": {"max_attempts": 1}})
    async with team(server.url, namespace, flow, {"a": fail, "b": go_on}) as t:
        assert value_of((await t.run(text="x")).outcome) == "nothing came for x"


async def test_step_with_a_hyphen_fills_the_parameter_with_an_underscore(server: NatsServer, namespace: str) -> None:
    async def read(find_facts: str) -> str:
        return find_facts

    steps = {"find-facts": Step(agent="find"), "b": Step(agent="b", after=["find-facts"])}
    async with team(server.url, namespace, flow_of(steps, TEXT), {"find": echo, "b": read}) as t:
        assert value_of((await t.run(text="x")).outcome) == "x"


async def test_handler_without_an_output_puts_out_null(server: NatsServer, namespace: str) -> None:
    async def nothing(text: str) -> None:
        return None

    async with team(server.url, namespace, flow_of({"a": Step(agent="a")}, TEXT), {"a": nothing}) as t:
        assert value_of((await t.run(text="x")).outcome) is None
