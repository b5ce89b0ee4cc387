"""Large values: kept as blobs wherever they are, and an error that says so when a blob is gone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from baton_actors.errors import Fail
from baton_bus.store.blobs import Blobs
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Message
from baton_schemas.wire.outcomes import Failed

from .servers import NatsServer, until
from .team import Team, flow_of, team, value_of

KB = 1024
TEXT = {"text": Field()}
PAIR = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, TEXT, {"b": {"max_attempts": 2}})


async def grow(text: str) -> str:
    return text * 300 * KB


async def size(a: str) -> int:
    return len(a)


def replace_run(first: Message | None, run: str) -> Handoff:
    assert isinstance(first, Handoff)
    return replace(first, run=run)


async def largest_message_bytes(t: Team, run: str) -> int:
    return max(len(entry.data) for entry in await t.log(run))


async def test_output_over_the_limit_is_handed_on_as_a_blob(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, PAIR, {"a": grow, "b": size}) as t:
        run = await t.submit(text="x")

        assert value_of((await t.result(run)).outcome) == 300 * KB
        assert await largest_message_bytes(t, run) < 4 * KB
        blob = (await t.state(run)).steps["a"].blob
        assert blob is not None
        assert await t.bus.blobs.get(blob) == b'"' + b"x" * 300 * KB + b'"'


async def test_large_input_is_read_by_whatever_step_asks_for_it(server: NatsServer, namespace: str) -> None:
    async def check(text: str) -> str:
        return "seen"

    async def both(a: str, text: str) -> int:
        return len(a) + len(text)

    flow = flow_of(PAIR.steps, TEXT)
    async with team(server.url, namespace, flow, {"a": check, "b": both}) as t:
        run = await t.submit(text="y" * 600 * KB)

        assert value_of((await t.result(run)).outcome) == 600 * KB + 4
        assert await largest_message_bytes(t, run) < 4 * KB


@pytest.mark.parametrize("source", ["input", "step"])
async def test_items_of_a_list_over_the_limit_reach_their_branches(
    source: str, server: NatsServer, namespace: str
) -> None:
    async def split(text: str) -> list[str]:
        return [letter * 1_100 * KB for letter in text]

    async def length(item: str) -> str:
        return f"{len(item)}{item[0]}"

    async def merge(each: list[str]) -> list[str]:
        return each

    steps = {"each": Step(agent="length", each="texts"), "merge": Step(agent="merge", after=["each"])}
    fields = {"texts": Field(type="list[str]")}
    given: dict[str, Any] = {"texts": ["x" * 1_100 * KB, "y" * 1_100 * KB]}
    if source == "step":
        steps |= {"split": Step(agent="split"), "each": Step(agent="length", each="split")}
        fields, given = TEXT, {"text": "xy"}
    handlers = {"split": split, "length": length, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, fields), handlers) as t:
        result = await t.run(**given)

        assert value_of(result.outcome) == [f"{1_100 * KB}x", f"{1_100 * KB}y"]


async def test_many_values_that_are_large_together_fit_in_one_message(server: NatsServer, namespace: str) -> None:
    async def some(text: str) -> str:
        return text * 200 * KB

    async def total(s0: str, s1: str, s2: str, s3: str, s4: str, s5: str) -> int:
        return len(s0 + s1 + s2 + s3 + s4 + s5)

    steps = {f"s{n}": Step(agent="some", after=[f"s{n - 1}"] if n else []) for n in range(6)}
    flow = flow_of(
        {**steps, "total": Step(agent="total", after=["s5"])},
        TEXT,
        {"some": {"reads": ["text"]}, "total": {"reads": [f"s{n}" for n in range(6)]}},
    )
    async with team(server.url, namespace, flow, {"some": some, "total": total}) as t:
        assert value_of((await t.run(text="x")).outcome) == 6 * 200 * KB


async def test_branches_that_are_large_together_are_read_again_after_the_merger(
    server: NatsServer, namespace: str
) -> None:
    async def some(item: str) -> str:
        return item * 200 * KB

    async def merge(each: list[str]) -> int:
        return len(each)

    async def last(each: list[str], merge: int) -> int:
        return sum(map(len, each)) + merge

    steps = {
        "each": Step(agent="some", each="texts"),
        "merge": Step(agent="merge", after=["each"]),
        "last": Step(agent="last", after=["merge"]),
    }
    flow = flow_of(steps, {"texts": Field(type="list[str]")}, {"last": {"reads": ["each", "merge"]}})
    async with team(server.url, namespace, flow, {"some": some, "merge": merge, "last": last}) as t:
        assert value_of((await t.run(texts=["x"] * 8)).outcome) == 8 * 200 * KB + 8


@pytest.mark.parametrize("joins", [False, True])
async def test_step_whose_blob_is_gone_fails_and_says_so(joins: bool, server: NatsServer, namespace: str) -> None:
    steps = dict(PAIR.steps)
    if joins:
        steps["c"] = Step(agent="fails", on_error="continue")
        steps["b"] = Step(agent="b", after=["a", "c"], join=JoinPolicy())

    async def fails(text: str) -> str:
        raise Fail("no")

    flow = flow_of(steps, TEXT, {"b": {"max_attempts": 2}})
    handlers = {"a": grow, "b": size} | ({"fails": fails} if joins else {})
    async with team(server.url, namespace, flow, handlers, start=False) as t:
        run = await t.submit(text="x")
        async with t.process("a", "fails"):
            await t.until_settled("handoff", "a")
        await t.bus.js.delete_stream(t.bus.blobs.stream)
        async with t.process("b"):
            result = await t.result(run)

        assert isinstance(result.outcome, Failed)
        assert (result.step, result.outcome.error.type) == ("b", "BlobMissing")


async def test_same_value_is_stored_once_whoever_puts_it(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, PAIR, {}, start=False) as t:
        data = b'"' + b"z" * 300 * KB + b'"'
        other = Blobs(t.bus.js, t.bus.requests, t.bus.settings)
        blobs = [await t.bus.blobs.put(data), await t.bus.blobs.put(data), await other.put(data)]
        blobs.append(await t.bus.blobs.put(data))

        assert blobs == blobs[:1] * 4
        stored = (await t.bus.js.stream_info(t.bus.blobs.stream)).state
        # What is said of the chunks, the chunks, and that two processes found it there.
        assert stored.messages == 1 + 3 + 2


async def test_run_whose_list_is_gone_when_it_begins_fails_and_starts_no_handler(
    server: NatsServer, namespace: str
) -> None:
    called: list[str] = []

    async def touch() -> str:
        called.append("called")
        return ""

    steps = {
        "other": Step(agent="touch"),
        "each": Step(agent="touch", each="texts"),
        "merge": Step(agent="touch", after=["other", "each"]),
    }
    flow = flow_of(steps, {"texts": Field(type="list[str]")}, {"touch": {"reads": []}})
    async with team(server.url, namespace, flow, {"touch": touch}, start=False) as t:
        texts = ["x" * 200 * KB, "y" * 200 * KB]
        await t.submit("other", texts=texts)  # puts the list beside the log
        first = replace_run((await t.log("other"))[0].message, "run")
        await t.bus.js.delete_stream(t.bus.blobs.stream)
        async with t.process() as bus:
            await until(lambda: bus.now_s() > bus.fresh_since_s)  # an older one would be looked up first
            await t.bus.publisher.create(t.bus.subjects.of(t.actor("touch"), first), encode(first))
            result = await t.result("run")
            await t.until_settled("handoff", "touch")

        assert (result.status, called) == ("failed", [])
        assert "cannot be read" in result.reason
