"""Batches: model calls that are gathered and sent as one, each settled as if it had been made at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.models import ModelSettings
from baton_bus import Settings
from baton_bus.store.bus import open_bus
from baton_schemas.wire.facts import ModelCall

from .batch_server import batching
from .sdk_clients import HAIKU, Crew
from .servers import NatsServer

ITEMS = ["a", "b", "c", "d", "e"]


def asks(**options: Any) -> FoundFlow:
    """A flow that asks a model about each item of a list, in batches."""
    given: dict[str, Any] = {"batch": {"count": 5, "seconds": 0.3}, "retry_base_s": 0.01, "retry_max_s": 0.02}
    flow = Flow("many", input={"items": "list[str]"})
    flow.ask("tell", "Of {item}", each="items", model=HAIKU, max_tokens=100, delivery="batch", **(given | options))
    return flow.found()


@contextlib.asynccontextmanager
async def crewed(
    server: NatsServer, namespace: str, found: FoundFlow, settings: ModelSettings, **more: Any
) -> AsyncIterator[Crew]:
    async with open_bus(Settings(url=server.url, namespace=namespace, **more)) as bus:
        yield Crew(bus, found, settings)


async def test_calls_of_a_fan_out_go_as_one_batch_at_half_the_price(server: NatsServer, namespace: str) -> None:
    async with batching() as api, crewed(server, namespace, asks(), api.settings) as crew:
        run, result = await crew.play(items=ITEMS)
        assert result.status == "done"
        assert api.sizes == [5]
        calls = [fact for fact in await crew.facts(run) if isinstance(fact, ModelCall)]
        assert len(calls) == 5
        assert {call.cost_usd for call in calls} == {(100 * 1.0 + 10 * 5.0) / 1e6 / 2}
        assert all(call.batch for call in calls)
        state = await crew.state(run)
        assert [state.steps[f"tell-{n}"].attempts for n in range(5)] == [1] * 5
