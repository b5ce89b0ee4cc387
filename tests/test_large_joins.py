"""Joins that are large: ten thousand failures with long names, errors that fill messages, servers of small ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton_actors.errors import Fail
from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.wire.messages import Join
from baton_schemas.wire.outcomes import Done, Error

from .servers import NatsServer, nats_server
from .team import flow_of, kind_of, team, value_of
from .timed import TEXT

KB = 1024
NUMBERS = {"numbers": Field(type="list[int]")}
LONG = "a_step_whose_name_is_as_long_as_a_name_may_be_in_subjects_00"
"""Sixty characters, which leave room for the index of a branch."""


async def merge(errors: list[Error]) -> list[int]:
    return [len(errors), sum(len(error.message) for error in errors)]


async def test_ten_thousand_failed_branches_with_long_names_end(server: NatsServer, namespace: str) -> None:
    count = 10_000

    async def fails(item: int) -> int:
        raise Fail(f"no {item}")

    steps = {LONG: Step(agent="fails", each="numbers"), "merge": Step(agent="merge", after=[LONG])}
    agents = {"fails": {"concurrency": 500, "max_in_flight": 2_000, "reads": []}}
    flow = flow_of(steps, NUMBERS, agents, on_error="continue")
    async with team(server.url, namespace, flow, {"fails": fails, "merge": merge}) as t:
        run = (await t.client.start(t.plan, numbers=list(range(count)))).id
        assert value_of((await t.result(run)).outcome) == [count, sum(len(f"no {n}") for n in range(count))]
        entries = [entry async for entry in t.bus.log.read([t.bus.subjects.run(run)])]
        links = sum(len(entry.data) for entry in entries if isinstance(entry.message, Join))
        assert links < 0.05 * sum(len(entry.data) for entry in entries)


async def test_errors_that_outgrow_a_message_reach_the_merger_and_its_output_is_kept(
    server: NatsServer, namespace: str
) -> None:
    count, size = 540, 1_900

    async def fails(item: int) -> int:
        raise Fail(f"{item:04}".ljust(size, "x"))

    async def last(merge: list[int], errors: list[Error]) -> list[int]:
        return [*merge, len(errors)]

    steps = {
        "each": Step(agent="fails", each="numbers"),
        "merge": Step(agent="merge", after=["each"]),
        "last": Step(agent="last", after=["merge"]),
    }
    flow = flow_of(steps, NUMBERS, {"fails": {"concurrency": 64, "max_in_flight": 256}}, on_error="continue")
    handlers = {"fails": fails, "merge": merge, "last": last}
    async with team(server.url, namespace, flow, handlers) as t:
        run = await t.submit(numbers=list(range(count)))
        assert value_of((await t.result(run)).outcome) == [count, count * size, count]
        merged = (await t.state(run)).steps["merge"]
        assert (merged.status, merged.output and bytes(merged.output)) == ("done", b"[540,1026000]")
        assert max(len(entry.data) for entry in await t.log(run)) < 300 * KB


@pytest.mark.parametrize("failed", [True, False])
async def test_server_of_small_messages_does_runs_with_answers_over_its_limit(failed: bool, tmp_path: Path) -> None:
    calls: list[int] = []

    async def answer(item: int) -> str:
        calls.append(item)
        if failed and item == 1:
            raise Fail("x" * 1_900)
        return f"{item}" * 100 * KB

    async def together(each: list[str], errors: list[Error]) -> str:
        return "".join(each)

    async def last(together: str, text: str) -> list[int]:
        return [len(together), len(text)]

    steps = {
        "each": Step(agent="answer", each="numbers"),
        "together": Step(agent="together", after=["each"], join=JoinPolicy(failed="skip")),
        "last": Step(agent="last", after=["together"]),
    }
    flow = flow_of(steps, NUMBERS | TEXT, {"answer": {"reads": []}})
    async with nats_server(tmp_path, max_payload=64 * KB) as server:
        handlers = {"answer": answer, "together": together, "last": last}
        async with team(server.url, "small", flow, handlers) as t:
            run = await t.submit(numbers=list(range(8)), text="t" * 100 * KB)
            result = await t.result(run)
            assert isinstance(result.outcome, Done), result
            assert value_of(result.outcome) == [(7 if failed else 8) * 100 * KB, 100 * KB]
            assert sorted(calls) == list(range(8))  # each was paid once
            assert max(len(entry.data) for entry in await t.log(run)) < 64 * KB
            assert "note" not in {kind_of(entry) for entry in await t.log(run)}
