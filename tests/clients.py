"""What tests ask of a client, in one call each: the id of a run that was started, its result as the log has it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from baton_bus import Client
from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Result


@contextlib.asynccontextmanager
async def client_on(bus: Client | Bus) -> AsyncIterator[Client]:
    """A client over a bus that is open already."""
    if isinstance(bus, Client):
        yield bus
        return
    client = Client(bus)
    async with client.results.opened():
        yield client


async def start_run(
    bus: Client | Bus, plan: Plan, given: Mapping[str, Any], *, run: str = "", deadline_s: float | None = None
) -> str:
    async with client_on(bus) as client:
        return (await client.start(plan, given, run_id=run, deadline_s=deadline_s)).id


async def result_of(bus: Client | Bus, run: str, *, flow: str = "*", timeout_s: float | None = None) -> Result:
    async with client_on(bus) as client:
        return await client.run(run, flow).ended(timeout_s)


async def cancel_run(bus: Client | Bus, run: str, reason: str = "cancelled by a client") -> Result:
    async with client_on(bus) as client:
        return await client.run(run).cancel(reason)


async def fork_run(bus: Client | Bus, run: str, *, until_seq: int = 0, new_run: str = "") -> str:
    async with client_on(bus) as client:
        return (await client.fork(run, until_seq=until_seq, run_id=new_run)).id
