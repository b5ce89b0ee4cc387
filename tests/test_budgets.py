"""Budgets: no call is made that could cost more than is left, whoever makes it; what is counted is what is logged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from baton_actors import AskFailed, Context, Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.models import ModelSettings
from baton_actors.steps import failing
from baton_actors.steps.paying import Paying
from baton_bus import Settings
from baton_bus.client.client import Client
from baton_bus.client.runs import find_run, read_run
from baton_bus.engine.budgets import RUN, Budgets
from baton_bus.errors import AnswerRefused, NoStream
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.errors import FlowError
from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.fold import fold
from baton_schemas.show.spending import calls_of
from baton_schemas.wire.facts import Waits
from baton_schemas.wire.messages import Above, Result
from baton_schemas.wire.money import Amount, Budget, Unit, unpacked
from baton_schemas.wire.outcomes import Failed

from .clients import client_on
from .sdk_clients import ASK, HAIKU, Asked, Crew, message, providing, said_by, streamed
from .servers import WAIT_S, NatsServer

COST = 150_000
"""What a call of the stand-in costs, in billionths of a USD: 100 tokens read and 10 written by Haiku."""
BOUND = 670_000
"""What it may cost: some 85 tokens read, all put into the cache for an hour, and 100 written."""


@contextlib.asynccontextmanager
async def crewed(
    server: NatsServer, namespace: str, found: FoundFlow, settings: ModelSettings, **more: Any
) -> AsyncIterator[Crew]:
    async with open_bus(Settings(url=server.url, namespace=namespace, **more)) as bus:
        yield Crew(bus, found, settings)


async def answer_of(client: AsyncAnthropic, **more: Any) -> str:
    answer = await client.messages.create(**ASK | more)
    return str(answer.content[0].text)


def asking(times: int, **options: Any) -> FoundFlow:
    """A flow whose one handler asks so often, one call after the other."""

    async def write(client: AsyncAnthropic) -> str:
        return " ".join([await answer_of(client) for _ in range(times)])

    flow = Flow("sdk", **options)
    flow.step(write, name="write", retry_base_s=0.01, retry_max_s=0.02)
    return flow.found()


def usd(calls: float) -> dict[str, float]:
    """A budget for so many calls, of which the last may cost as much as it can."""
    return {"usd": ((calls - 1) * COST + BOUND + COST // 2) / 10**9}


async def counted(bus: Bus, run: str, unit: Unit = "usd") -> tuple[int, int]:
    """What a run has spent, and what is held for its calls."""
    return unpacked(await bus.counters.read((RUN, run, unit)))


async def logged(bus: Bus, run: str) -> Amount:
    """What its calls took by the log, and those of the runs that it asked for."""
    entries = await read_run(bus, await find_run(bus, run))
    found = sum((call.amount for call in calls_of(entries)), Amount())
    for children in runs_asked(fold(entries)).values():
        for child in children:
            found += await logged(bus, child)
    return found


async def until_settled(bus: Bus, run: str, unit: Unit = "usd") -> int:
    """Wait until the counter of a run says what its log says, with nothing held; return it."""

    async def is_settled() -> bool:
        return await counted(bus, run, unit) == ((await logged(bus, run)).of(unit), 0)

    await until_true(is_settled)
    return (await counted(bus, run, unit))[0]


def error_of(result: Result) -> str:
    assert result.status == "failed"
    assert isinstance(result.outcome, Failed)
    return f"{result.outcome.error.type}: {result.outcome.error.message}"


async def test_run_ends_at_the_call_that_could_cost_more_than_is_left_and_says_what_was_spent_on_what(
    server: NatsServer, namespace: str
) -> None:
    async with providing() as provider, crewed(server, namespace, asking(5, budget=usd(3)), provider.settings) as crew:
        run, result = await crew.play()
        said = error_of(result)
        assert said.startswith("over_budget: the budget of this run, $0.00104")
        assert "$0.000450 of it is spent" in said
        assert "Spent on: write (claude-haiku-4-5-20251001) $0.000450." in said
        assert f"baton retry {run} --budget" in said
        assert len(provider.asked) == 3
        assert await until_settled(crew.bus, run) == 3 * COST


async def test_failure_for_want_of_money_ends_the_run_whatever_its_flow_says_of_failures(
    server: NatsServer, namespace: str
) -> None:
    found = asking(5, budget=usd(1), on_error="continue")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        assert error_of((await crew.play())[1]).startswith("over_budget")


async def test_two_processes_and_hundreds_of_branches_never_spend_more_than_the_cap(
    server: NatsServer, namespace: str
) -> None:
    flow = Flow("wide", input={"items": "list[int]"}, budget={"usd": 30 * COST / 10**9})

    answers: list[str] = []

    async def work(item: int, client: AsyncAnthropic) -> str:
        answers.append(await answer_of(client, max_tokens=50 + item // 4))
        return answers[-1]

    flow.step(work, name="work", each="items", each_concurrency=50)

    def count(work: list[str]) -> int:
        return len(work)

    flow.step(count, name="count", after="work")
    async with providing() as provider, crewed(server, namespace, flow.found(), provider.settings) as crew:
        run = await crew.start(items=list(range(200)))
        async with crew.working(), crew.working():
            result = await crew.result(run)
            assert error_of(result).startswith("over_budget")
            spent = await until_settled(crew.bus, run)
        # A call that was under way when the run failed is cut off: it was asked, and nobody heard what it took.
        assert len(answers) * COST <= spent <= len(provider.asked) * COST <= 30 * COST
        assert spent > 15 * COST  # what is held is given back: it is not only the bounds that fit


async def test_tokens_are_counted_without_a_price(server: NatsServer, namespace: str) -> None:
    found = asking(5, budget={"tokens": 500})
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run, result = await crew.play()
        assert "500 tokens" in error_of(result)
        assert await until_settled(crew.bus, run, "tokens") == 110 * len(provider.asked) == 330


async def test_nothing_is_counted_without_a_budget(server: NatsServer, namespace: str) -> None:
    async with providing() as provider, crewed(server, namespace, asking(2), provider.settings) as crew:
        _, result = await crew.play()
        assert result.status == "done"
        with pytest.raises(NoStream):
            await crew.bus.counters._gets.last_sure(f"{namespace}-spend.>")


async def test_rehearsed_calls_hold_nothing(server: NatsServer, namespace: str) -> None:
    found = asking(3, budget={"usd": 0.000_001})
    async with crewed(server, namespace, found, ModelSettings(rehearse=True)) as crew:
        run, result = await crew.play()
        assert result.status == "done"
        assert await counted(crew.bus, run) == (0, 0)


async def test_model_without_a_price_is_refused_by_name_where_the_budget_is_in_usd(
    server: NatsServer, namespace: str
) -> None:
    flow = Flow("odd", budget={"usd": 1.0})
    flow.ask("write", "Write of tides.", model="claude-unheard-of-9", max_tokens=100)
    async with providing() as provider, crewed(server, namespace, flow.found(), provider.settings) as crew:
        _, result = await crew.play()
        assert error_of(result).startswith("unpriced_model: model 'claude-unheard-of-9' has no price here")
        assert provider.asked == []


async def test_tool_that_may_be_used_without_end_is_refused_where_the_budget_is_in_usd(
    server: NatsServer, namespace: str
) -> None:
    flow = Flow("odd", budget={"usd": 1.0})
    flow.ask("write", "Write of tides.", model="claude-haiku-4-5", max_tokens=100, tools=["web_search"])
    async with providing() as provider, crewed(server, namespace, flow.found(), provider.settings) as crew:
        _, result = await crew.play()
        assert error_of(result).startswith("unpriced_model: model 'claude-haiku-4-5' may use web_search as often as it")
        assert "Give the tool `max_uses`" in error_of(result)
        assert provider.asked == []


async def test_budget_below_the_first_call_says_both_numbers(server: NatsServer, namespace: str) -> None:
    found = asking(1, budget={"usd": COST * 2 / 10**9})  # more than it costs, and less than it may
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        _, result = await crew.play()
        said = error_of(result)
        assert (
            "the budget of this run, $0.000300, is not enough for a call of claude-haiku-4-5 that may take up to"
            in said
        )
        assert "100 written): $0.00 of it is spent, and $0.000300 is left" in said
        assert provider.asked == []


async def test_parked_run_goes_on_where_it_was_once_it_may_spend_more(server: NatsServer, namespace: str) -> None:
    found = asking(4, budget=usd(2), on_budget="park")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with crew.working(), client_on(crew.bus) as client:
            await until_waits(client, run)
            await until_nothing_in_hand(crew.bus)
            assert len(provider.asked) == 2
            assert "is not enough for a call" in (await crew.state(run)).steps["write"].waits
            with pytest.raises(FlowError):
                await client.run(run).allow(0)
            assert await client.run(run).allow(0.01)
            result = await crew.result(run)
        assert result.status == "done"
        assert len(provider.asked) == 4  # none was asked twice
        assert await until_settled(crew.bus, run) == 4 * COST
        async with client_on(crew.bus) as client:
            with pytest.raises(AnswerRefused):
                await client.run(run).allow(0.02)


async def test_run_that_was_allowed_more_before_it_needs_it_is_not_parked(server: NatsServer, namespace: str) -> None:
    found = asking(4, budget=usd(1), on_budget="park")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with client_on(crew.bus) as client:
            await client.run(run).allow(0.01, wait_s=0)
        async with crew.working():
            assert (await crew.result(run)).status == "done"


async def test_what_whoever_starts_a_run_allows_stands_over_the_flow(server: NatsServer, namespace: str) -> None:
    found = asking(3, budget=usd(1))
    async with (
        providing() as provider,
        crewed(server, namespace, found, provider.settings) as crew,
        client_on(crew.bus) as client,
        crew.working(),
    ):
        run = await client.start(found.plan, budget=0.01)
        assert (await run.ended(WAIT_S)).status == "done"
        poor = await client.start(found.plan)
        assert (await poor.ended(WAIT_S)).status == "failed"
        forked = await poor.fork(budget=0.01)
        assert (await forked.ended(WAIT_S)).status == "done"
        assert await until_settled(crew.bus, forked.id) == 3 * COST


async def test_run_within_a_run_spends_the_budget_of_the_one_that_asks(server: NatsServer, namespace: str) -> None:
    inner = Flow("inner")

    async def write(client: AsyncAnthropic) -> str:
        return await answer_of(client)

    inner.step(write, name="write")
    outer = Flow("outer", input={"items": "list[int]"}, budget=usd(4))
    outer.nest("part", inner, each="items", each_concurrency=1, on_error="fail")
    async with providing() as provider, crewed(server, namespace, outer.found(), provider.settings) as crew:
        run = await crew.start(items=list(range(8)))
        async with crew.working(), playing(crew, inner.found()):
            result = await crew.result(run)
            assert f"the budget of run {run}, which this one is a part of" in error_of(result)
            spent = await until_settled(crew.bus, run)
        assert spent == len(provider.asked) * COST <= 4 * COST + BOUND
        assert len(provider.asked) >= 4


async def test_run_within_a_run_is_brought_back_by_what_the_one_that_asks_may_spend(
    server: NatsServer, namespace: str
) -> None:
    inner = Flow("inner")

    async def write(client: AsyncAnthropic) -> str:
        return await answer_of(client)

    inner.step(write, name="write")
    outer = Flow("outer", input={"items": "list[int]"}, budget=usd(2), on_budget="park")
    outer.nest("part", inner, each="items")
    async with providing() as provider, crewed(server, namespace, outer.found(), provider.settings) as crew:
        run = await crew.start(items=list(range(4)))
        async with crew.working(), playing(crew, inner.found()), client_on(crew.bus) as client:
            await until_waits(client, run)
            assert await client.run(run).allow(1.0)
            # Those that came to it later look for themselves.
            assert (await crew.result(run)).status == "done"
            assert await until_settled(crew.bus, run) == 4 * COST == len(provider.asked) * COST


async def test_failure_of_an_agent_that_was_asked_for_want_of_money_ends_the_run(
    server: NatsServer, namespace: str
) -> None:
    flow = Flow("asks", budget=usd(1))

    async def write(client: AsyncAnthropic) -> str:
        return await answer_of(client)

    async def lead(context: Context, client: AsyncAnthropic) -> str:
        await answer_of(client)
        try:
            return str(await context.ask("write"))
        except AskFailed:
            return "went on without it"

    flow.agent(write, name="write")
    flow.step(lead, name="lead", workers="write")
    async with providing() as provider, crewed(server, namespace, flow.found(), provider.settings) as crew:
        _, result = await crew.play()
        assert error_of(result).startswith("over_budget")
        assert len(provider.asked) == 1


async def test_step_that_waits_for_a_days_budget_goes_on_in_the_next(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = ["2026-01-31"]
    monkeypatch.setattr(Budgets, "_day", lambda _: day[0])
    monkeypatch.setattr(Paying, "_till_tomorrow_s", lambda _: 0.5)
    monkeypatch.setattr(failing, "_DAY_S", 0.1)
    found = asking(3, budget={"usd_per_day": usd(2)["usd"]}, on_budget="park")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with crew.working():
            async with asyncio.timeout(WAIT_S):
                while not any(isinstance(fact, Waits) for fact in await crew.facts(run)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert len(provider.asked) == 2
            day[0] = "2026-02-01"
            assert (await crew.result(run)).status == "done"
        assert len(provider.asked) == 3


async def test_flow_and_namespace_have_budgets_of_a_day(server: NatsServer, namespace: str) -> None:
    found = asking(1, budget={"usd_per_day": (3 * COST + BOUND) / 10**9})
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew, crew.working():
        results = [await crew.result(await crew.start()) for _ in range(6)]
        assert [result.status for result in results] == ["done"] * 4 + ["failed"] * 2
        assert "the budget of flow sdk for a day" in error_of(results[-1])
    more = {"budget_tokens_per_day": 500}
    async with providing() as provider, crewed(server, f"{namespace}-n", asking(1), provider.settings, **more) as crew:
        async with crew.working():
            results = [await crew.result(await crew.start()) for _ in range(5)]
        assert [result.status for result in results] == ["done"] * 3 + ["failed"] * 2
        assert "BATON_BUDGET_TOKENS_PER_DAY of the workers" in error_of(results[-1])


async def test_call_that_ends_on_another_day_is_settled_on_that_of_its_beginning(
    server: NatsServer, namespace: str
) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        budgets, day = Budgets(bus), ["2026-01-31"]
        budgets._day = lambda: day[0]  # type: ignore[method-assign]
        own = Above(run="r", flow="f", budget=Budget(tokens_per_day=100))
        hold = await budgets.hold(budgets.accounts("r", "f", own, []), Amount(0, 60), "r", "s", [])
        day[0] = "2026-02-01"
        again = await budgets.hold(budgets.accounts("r", "f", own, []), Amount(0, 60), "r", "s", [])
        hold.paid = Amount(0, 50)
        await budgets.settle(hold)
        await budgets.settle(again)
        assert unpacked(await bus.counters.read(("flow", "f", "2026-01-31", "tokens"))) == (50, 0)
        assert unpacked(await bus.counters.read(("flow", "f", "2026-02-01", "tokens"))) == (0, 0)


async def test_what_failed_calls_took_is_counted_and_logged_beside_their_attempts(
    server: NatsServer, namespace: str
) -> None:
    broken = streamed(*said_by("a long answer")[:4], whole=False)
    flow = Flow("sdk", budget={"usd": 1.0})
    flow.ask("write", "Write of tides.", model=HAIKU, max_tokens=100, retry_base_s=0.01)
    async with providing() as provider, crewed(server, namespace, flow.found(), provider.settings) as crew:
        provider.script = [lambda _: broken]
        run, result = await crew.play()
        assert result.status == "done"
        spent = await until_settled(crew.bus, run)
        assert COST < spent < 2 * COST
        (vain,) = [call for call in calls_of(await read_run(crew.bus, await find_run(crew.bus, run))) if call.in_vain]
        assert vain.usage.input_tokens == 100


async def test_call_that_takes_more_than_was_held_is_counted_as_it_was(server: NatsServer, namespace: str) -> None:
    async with providing() as provider, crewed(server, namespace, asking(2, budget=usd(2)), provider.settings) as crew:
        usage = {"input_tokens": 5_000, "output_tokens": 100}
        provider.script = [lambda asked: _answered(asked, usage)]
        run, result = await crew.play()
        assert "$0.00 is left" in error_of(result)
        assert await until_settled(crew.bus, run) == 5_500_000


async def until_true(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110 (other processes set no event of ours)
            await asyncio.sleep(0.01)


def _answered(asked: Asked, usage: dict[str, int]) -> list[bytes]:
    from .sdk_clients import json_answer

    return json_answer(message("much", usage=usage))


@contextlib.asynccontextmanager
async def playing(crew: Crew, found: FoundFlow) -> AsyncIterator[None]:
    """Workers of a flow that is within the crew's."""
    async with Crew(crew.bus, found, crew.settings).working():
        yield


async def until_waits(client: Client, run: str) -> None:
    async def waits() -> bool:
        return await client.engine.budgets.waiting(run) > 0

    await until_true(waits)


async def until_nothing_in_hand(bus: Bus) -> None:
    async def is_settled() -> bool:
        infos = await bus.js.consumers_info(bus.settings.namespace)
        return not any(info.num_ack_pending for info in infos if info.name.startswith("handoff-"))

    await until_true(is_settled)
