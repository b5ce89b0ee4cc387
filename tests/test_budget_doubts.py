"""Counters of money where two settle one call, or what was held is still on its way: each number counts once."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from msgspec.structs import replace

from baton_actors.models.types import Bound
from baton_actors.steps.claim import Claim
from baton_actors.steps.paying import Paying
from baton_bus import Settings
from baton_bus.engine.budgets import Budgets
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.store.bus import open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Above, Handoff, Note, Started
from baton_schemas.wire.money import Amount, Budget, unpacked
from baton_schemas.wire.outcomes import Usage

from .servers import NatsServer

BUDGET = Budget(tokens=100, tokens_per_day=1_000)
OWN = Above(run="r", flow="f", budget=BUDGET)
FLOW = """
name = "f"
budget = { tokens = 100, tokens_per_day = 1000 }
steps.s = {}

[agents.s]
model = "worker"
prompt = "Write."
"""


async def test_call_that_another_worker_has_given_up_and_its_owner_ends_is_counted_once_everywhere(
    server: NatsServer, namespace: str
) -> None:
    plan = check_flow(load_flow(FLOW, "f.toml"))
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        budgets = Budgets(bus)
        accounts = budgets.accounts("r", "f", OWN, [])
        hold = await budgets.hold(accounts, Amount(0, 60), "r", "s", [])
        journal = Journal(bus, plan.actor("s"), "r", "s", "another")
        assert await Budgets(bus).mend(plan, 1, "r", "s", journal) == 1
        hold.paid = Amount(0, 50)  # its owner was only late, and has recorded it by now
        await budgets.settle(hold)
        for account in accounts:
            assert unpacked(await bus.counters.read(account.name)) == (50, 0), account.name


async def test_what_is_held_by_a_word_that_is_still_on_its_way_when_its_call_is_cancelled_is_given_back(
    server: NatsServer, namespace: str
) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        budgets = Budgets(bus)
        await bus.counters.ensure()
        add, sent, later = bus.counters.add, asyncio.Event(), asyncio.Event()
        late: list[asyncio.Task[Any]] = []

        async def comes_later(*given: Any) -> Any:
            await later.wait()
            return await add(*given)

        async def adds(*given: Any, **more: Any) -> Any:
            if late:
                return await add(*given, **more)
            late.append(asyncio.create_task(comes_later(*given)))
            sent.set()
            return await asyncio.shield(late[0])

        bus.counters.add = adds  # type: ignore[method-assign]
        held: list[Any] = []
        accounts = budgets.accounts("r", "f", OWN, [])
        holding = asyncio.create_task(budgets.hold(accounts, Amount(0, 60), "r", "s", held))
        await sent.wait()
        holding.cancel()
        await asyncio.wait([holding])
        await budgets.settle(held[0])
        later.set()
        await late[0]
        for account in accounts:
            assert unpacked(await bus.counters.read(account.name)) == (0, 0), account.name


async def test_whoever_mends_what_its_owner_settles_meanwhile_counts_what_the_log_says_by_then(
    server: NatsServer, namespace: str
) -> None:
    plan = check_flow(load_flow(FLOW, "f.toml"))
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        budgets = Budgets(bus)
        accounts = budgets.accounts("r", "f", OWN, [])
        hold = await budgets.hold(accounts, Amount(0, 60), "r", "s", [])

        class Overtaken(Journal):
            """Its first reader is slow: the owner records and settles before it goes on."""

            async def read(self) -> list[Note]:
                notes = await super().read()
                if not hold.paid.tokens:
                    usage = Usage(input_tokens=40, output_tokens=10)
                    await self.write(ModelCall(request_sha256="0" * 64, usage=usage, held=hold.id))
                    hold.paid = Amount(0, 50)
                    await budgets.settle(hold)
                return notes

        await Budgets(bus).mend(plan, 1, "r", "s", Overtaken(bus, plan.actor("s"), "r", "s", "another"))
        for account in accounts:
            assert unpacked(await bus.counters.read(account.name)) == (50, 0), account.name


async def test_answer_that_is_still_on_its_way_to_the_log_when_its_call_is_cancelled_is_counted(
    server: NatsServer, namespace: str
) -> None:
    plan = check_flow(load_flow(FLOW, "f.toml"))
    call = ModelCall(request_sha256="0" * 64, usage=Usage(input_tokens=40, output_tokens=10))
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        journal = Journal(bus, plan.actor("s"), "r", "s", "me")
        handoff = Handoff(run="r", flow="f", digest=plan.digest, start_seq=1, step="s", cause=Started())
        paying = Paying(Engine(bus), Claim(plan=plan, handoff=handoff, seq=1), "s", journal)
        hold = await paying.hold(Bound(model="m", input_tokens=40, output_tokens=20, cost_usd=0.0))
        assert hold is not None
        call = replace(call, held=hold.id)
        paying.recording(hold, functools.partial(journal.write, call))
        await paying.close()  # cancelled, and what it had sent comes after that
        await journal.write(call)
        for account in hold.accounts:
            assert unpacked(await bus.counters.read(account.name)) == (50, 0), account.name
