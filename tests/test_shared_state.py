"""What many branches share is in the log once, whoever reads it."""

from __future__ import annotations

from baton_schemas.flow.flow import Field, Step

from .servers import NatsServer
from .team import Team, flow_of, team, value_of

KB = 1024
LARGE = 240 * KB
FIELDS = {"numbers": Field(type="list[int]"), "text": Field()}


async def stored_bytes(t: Team) -> int:
    """What the log and the blobs take."""
    total = 0
    for stream in (t.bus.settings.namespace, t.bus.blobs.stream):
        total += (await t.bus.js.stream_info(stream)).state.bytes
    return total


async def size(item: int, text: str) -> int:
    return item + len(text)


async def total(each: list[int]) -> list[int]:
    return each


async def total_again(again: list[int]) -> int:
    return sum(again)


async def test_branches_that_all_read_a_large_input_share_it(server: NatsServer, namespace: str) -> None:
    """240 KB over two fan-outs of 200 were 187 MiB of log."""
    steps = {
        "each": Step(agent="size", each="numbers"),
        "total": Step(agent="total", after=["each"]),
        "again": Step(agent="size", each="total"),
        "sum": Step(agent="sum", after=["again"]),
    }
    handlers = {"size": size, "total": total, "sum": total_again}
    async with team(server.url, namespace, flow_of(steps, FIELDS), handlers) as t:
        result = await t.run(numbers=list(range(200)), text="x" * LARGE)
        assert value_of(result.outcome) == sum(range(200)) + 400 * LARGE
        assert await stored_bytes(t) < 2 * LARGE + 800 * 2 * KB  # 400 branches, each with a handoff and a reply


async def test_branches_share_what_is_small_in_each_and_much_in_all(server: NatsServer, namespace: str) -> None:
    steps = {"each": Step(agent="size", each="numbers"), "total": Step(agent="total", after=["each"])}
    async with team(server.url, namespace, flow_of(steps, FIELDS), {"size": size, "total": total}) as t:
        result = await t.run(numbers=list(range(200)), text="x" * 8 * KB)
        assert value_of(result.outcome) == [number + 8 * KB for number in range(200)]
        assert await stored_bytes(t) < 200 * 2 * KB
