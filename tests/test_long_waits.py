"""Waits that nobody could mean: they hold no place, and are no attempt for nothing."""

from __future__ import annotations

import math

import pytest

from baton_actors.errors import Retry
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.facts import Retry as Retried

from .clients import cancel_run
from .servers import NatsServer
from .team import flow_of, value_of
from .timed import timed, until_timers

FLOW = flow_of({"a": Step(agent="a")}, {"text": Field()}, {"a": {"concurrency": 1, "max_in_flight": 1}})


@pytest.mark.parametrize("after_s", [1e15, math.inf])
async def test_retry_after_the_end_of_time_is_parked_and_holds_no_place(
    after_s: float, server: NatsServer, namespace: str
) -> None:
    async def a(text: str) -> str:
        if text == "bad":
            raise Retry("not now", after_s=after_s)
        return text

    async with timed(server, namespace, FLOW, {"a": a}) as t:
        run = await t.submit(text="bad")
        await until_timers(t, "timer", 1)
        assert value_of((await t.run(text="good")).outcome) == "good"
        (retry,) = await t.facts(run)
        assert isinstance(retry, Retried)
        assert retry.delay_s == pytest.approx(366 * 24 * 3600)
        await cancel_run(t.client, run)


async def test_retry_after_what_is_no_number_is_the_handlers_mistake(server: NatsServer, namespace: str) -> None:
    async def a(text: str) -> str:
        raise Retry("not now", after_s=text)  # type: ignore[arg-type]

    async with timed(server, namespace, FLOW, {"a": a}) as t:
        result = await t.run(text="soon")
        assert result.status == "failed"
        assert "soon" in result.outcome.error.message  # type: ignore[union-attr]
