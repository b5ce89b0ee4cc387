"""Money that is held so late that its worker is dead, or its step done: it is given back all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.steps import paying
from baton_bus import Settings
from baton_bus.engine.budgets import Account, Budgets, Hold
from baton_bus.engine.journal import Journal
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Above
from baton_schemas.wire.money import Amount, unpacked
from baton_schemas.wire.outcomes import Usage

from .clients import cancel_run, client_on, result_of, start_run
from .dying import MORTAL
from .sdk_clients import providing
from .servers import WAIT_S, NatsServer
from .test_budget_crashes import working
from .test_budget_doubts import FLOW, OWN
from .test_budgets import BOUND, COST, answer_of, asking, crewed, until_settled, until_true, until_waits, usd


async def hold_late(bus: Bus, found: FoundFlow, run: str, step: str, usd: int) -> Hold:
    """Have something be held by a worker that is dead by now."""
    budget = found.flow.budget
    assert budget is not None
    budgets = Budgets(bus)
    accounts = budgets.accounts(run, found.flow.name, Above(run=run, flow=found.flow.name, budget=budget), [])
    accounts = tuple(Account(name=each.name, unit=each.unit) for each in accounts)  # whatever they may come to
    return await budgets.hold(accounts, Amount(usd, 0), run, step, [])


async def held_on(bus: Bus, hold: Hold) -> list[int]:
    return [unpacked(await bus.counters.read(account.name))[1] for account in hold.accounts]


async def test_what_comes_to_other_counters_after_a_worker_was_found_dead_is_not_held(
    server: NatsServer, namespace: str
) -> None:
    """A budget of its run knows of its call by then; what was to be held of the day is still on its way."""
    plan = check_flow(load_flow(FLOW, "f.toml"))
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        await bus.counters.ensure()
        budgets, add = Budgets(bus), bus.counters.add
        late: list[Any] = []

        async def dies(name: tuple[str, ...], *given: Any, **more: Any) -> Any:
            if name[0] == "run":
                return await add(name, *given, **more)
            late.append((name, *given))
            raise asyncio.CancelledError

        bus.counters.add = dies  # type: ignore[method-assign]
        accounts = budgets.accounts("r", "f", OWN, [])
        with pytest.raises(asyncio.CancelledError):
            await budgets.hold(accounts, Amount(0, 60), "r", "s", [])
        bus.counters.add = add  # type: ignore[method-assign]
        journal = Journal(bus, plan.actor("s"), "r", "s", "another")
        assert await Budgets(bus).mend(plan, 1, "r", "s", journal) == 1
        for given in late:
            await add(*given)
        assert len(late) == 1
        for account in accounts:
            assert unpacked(await bus.counters.read(account.name)) == (0, 0), account.name


async def test_what_a_dead_worker_holds_once_another_does_its_step_is_given_back_when_that_is_done(
    server: NatsServer, namespace: str
) -> None:
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def write(client: AsyncAnthropic) -> str:
        answer = await answer_of(client)
        asked.set()
        await goes_on.wait()
        return answer

    flow = Flow("late", budget={"usd": 1.0, "usd_per_day": 1.0})
    flow.step(write, name="write")
    found = flow.found()
    settings = Settings(url=server.url, namespace=namespace, **MORTAL)
    async with providing() as provider, open_bus(settings) as bus:
        run = await start_run(bus, found.plan, {})
        async with working(settings, found, provider.settings, writes=0) as process:
            await process.died.wait()
        async with working(settings, found, provider.settings):
            await asked.wait()
            hold = await hold_late(bus, found, run, "write", BOUND)
            goes_on.set()
            assert (await result_of(bus, run, timeout_s=WAIT_S)).status == "done"
            assert await until_settled(bus, run) == COST
            assert await held_on(bus, hold) == [0, 0]


async def test_what_a_dead_worker_holds_of_a_step_that_is_parked_is_given_back_when_that_goes_on(
    server: NatsServer, namespace: str
) -> None:
    found = asking(2, budget=usd(1), on_budget="park")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with crew.working(), client_on(crew.bus) as client:
            await until_waits(client, run)
            await hold_late(crew.bus, found, run, "write", BOUND)
            assert await client.run(run).allow(usd(3)["usd"])
            assert (await crew.result(run)).status == "done"
            assert await until_settled(crew.bus, run) == 2 * COST


async def test_what_is_held_for_a_step_that_is_done_gives_way_to_who_waits_for_it(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker had stood still: another did its step, it came to itself, and died. What it had paid is counted."""
    monkeypatch.setattr(paying, "_WAIT_S", 0.2)
    is_late = asyncio.Event()

    async def first(client: AsyncAnthropic) -> str:
        return await answer_of(client)

    async def second(client: AsyncAnthropic, first: str) -> str:
        await is_late.wait()
        return await answer_of(client)

    flow = Flow("two", budget={"usd": 2 * BOUND / 10**9, "usd_per_day": 1.0})
    flow.step(first, name="first")
    flow.step(second, name="second", after="first")
    found = flow.found()
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with crew.working():

            async def is_done() -> bool:
                return (await crew.state(run)).steps["first"].status == "done"

            await until_true(is_done)
            hold = await hold_late(crew.bus, found, run, "first", BOUND)
            journal = Journal(crew.bus, found.plan.actor("first"), run, "first", "the dead one")
            usage = Usage(input_tokens=100, output_tokens=10)
            await journal.write(ModelCall(request_sha256="0" * 64, usage=usage, cost_usd=COST / 10**9, held=hold.id))
            other = await hold_late(crew.bus, found, run, "first", BOUND)
            is_late.set()
            assert (await crew.result(run)).status == "done"
            assert await until_settled(crew.bus, run) == 3 * COST
            assert await held_on(crew.bus, hold) == await held_on(crew.bus, other) == [0, 0]


async def test_what_is_held_of_a_day_for_a_run_that_has_ended_gives_way_to_other_runs(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying, "_WAIT_S", 0.2)
    found = asking(1, budget={"usd_per_day": 2 * BOUND / 10**9})
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew, crew.working():
        dead = await crew.start()
        await cancel_run(crew.bus, dead)
        hold = await hold_late(crew.bus, found, dead, "write", 2 * BOUND)
        run = await crew.start()
        assert (await crew.result(run)).status == "done"
        assert (await held_on(crew.bus, hold))[-1] == 0
