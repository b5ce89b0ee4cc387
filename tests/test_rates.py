"""Rates and slots that processes share: each call is told when it may begin, and what a dead process held is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from baton_bus import Settings
from baton_bus.store import slots
from baton_bus.store.bus import Bus, open_bus
from baton_bus.store.counters import Counters
from baton_bus.store.rates import BURST_S, Rates

from .servers import WAIT_S, NatsServer

NAME = ("m", "requests")


@asynccontextmanager
async def bus_on(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with bus_on(server, namespace) as bus:
        yield bus
        for stream in (namespace, f"{namespace}-limits", f"{namespace}-slots"):
            await bus.nc.request(f"$JS.API.STREAM.DELETE.{stream}", b"", timeout=WAIT_S)


def rates_at(bus: Bus, now_s: float) -> Rates:
    """Rates of a process whose clock stands at a time."""
    counters = Counters(bus.js, bus.requests, bus.settings, bus.subjects, kind="limits", totals_only=True)
    return Rates(counters, lambda: now_s)


async def starts(rates: Rates, count: int, per_minute: int, part: int = 1) -> list[float]:
    taking = (rates.take(NAME, part, per_minute) for _ in range(count))
    return sorted([turn.at_s for turn in await asyncio.gather(*taking)])


# ---- rates -----------------------------------------------------------------------------------------


async def test_first_calls_begin_within_a_second_s_worth_and_the_others_evenly(bus: Bus) -> None:
    at = await starts(rates_at(bus, 1000.0), 10, 120)
    assert at == pytest.approx([1000.0 - BURST_S + 0.5 * i for i in range(10)])


async def test_limit_of_one_a_minute_lets_one_begin_now_and_the_next_in_a_minute(bus: Bus) -> None:
    assert await starts(rates_at(bus, 1000.0), 3, 1) == pytest.approx([999.0, 1059.0, 1119.0])


async def test_time_in_which_nobody_called_is_no_credit(bus: Bus) -> None:
    await starts(rates_at(bus, 1000.0), 5, 60)
    at = await starts(rates_at(bus, 90_000.0), 5, 60)
    assert at == pytest.approx([90_000.0 - BURST_S + i for i in range(5)])


async def test_hundreds_of_calls_of_two_processes_after_a_pause_keep_the_rate(server: NatsServer, bus: Bus) -> None:
    async with bus_on(server, bus.settings.namespace) as other:
        one, two = rates_at(bus, 1000.0), rates_at(other, 1000.0)
        for now_s in (1000.0, 50_000.0, 90_000.0):
            one, two = rates_at(bus, now_s), rates_at(other, now_s)
            found = await asyncio.gather(starts(one, 250, 600), starts(two, 250, 600))
            at = sorted([*found[0], *found[1]])
            # Whatever the interleaving: nobody begins more than a burst too early, and none is lost.
            for index in range(0, 500, 10):
                begun = sum(each <= now_s + index / 10 for each in at)
                assert begun <= index + 10 * 1.5 * BURST_S
            assert at[-1] <= now_s + 50.0


async def test_who_moved_the_counter_for_itself_alone_lets_nobody_before_it_all_begin_at_once(bus: Bus) -> None:
    first = rates_at(bus, 1000.0)
    totals = [await first.add(NAME, 60 * 10**9) for _ in range(5)]  # five took, and have not seen yet that it is behind
    last = await rates_at(bus, 1000.0).take(NAME, 1, 1)
    assert last.at_s == pytest.approx(999.0)
    assert totals[0].moved == 0
    late = await starts(rates_at(bus, 1000.0), 1, 1)
    assert late == pytest.approx([1059.0])


async def test_clocks_that_differ_cost_their_difference_once(server: NatsServer, bus: Bus) -> None:
    async with bus_on(server, bus.settings.namespace) as other:
        fast, slow = rates_at(bus, 1005.0), rates_at(other, 1000.0)
        at = [(await rates.take(NAME, 1, 60)).at_s for rates in (slow, fast, slow, fast)]
    assert at == pytest.approx([999.0, 1004.0, 1005.0, 1006.0])


async def test_flows_with_two_limits_of_one_model_take_of_the_same(bus: Bus) -> None:
    rates = rates_at(bus, 1000.0)
    at = [(await rates.take(NAME, 1, per_minute)).at_s for per_minute in (60, 6, 60, 60)]
    assert at == pytest.approx([999.0, 1000.0, 1010.0, 1011.0])


async def test_those_behind_a_call_that_took_less_begin_earlier(bus: Bus) -> None:
    rates = rates_at(bus, 1000.0)
    large = await rates.take(NAME, 1000, 1000)
    behind = await rates.take(NAME, 1, 1000)
    assert behind.at_s == pytest.approx(1059.0)
    await large.took(0.1)
    await behind.look()
    assert behind.at_s == pytest.approx(1005.0)
    more = await rates.take(NAME, 1000, 1000)
    await more.took(2.0)
    assert (await rates.take(NAME, 1, 1000)).at_s == pytest.approx(1125.06)


async def test_ten_thousand_wait_each_with_a_turn_of_its_own(bus: Bus) -> None:
    rates = rates_at(bus, 1000.0)
    at = [each for _ in range(20) for each in await starts(rates, 500, 600)]
    assert at == pytest.approx([999.0 + i / 10 for i in range(10_000)])
    state = await bus.js.stream_info(f"{bus.settings.namespace}-limits")
    assert state.state.messages == 1


async def test_counters_that_are_deleted_begin_anew(bus: Bus) -> None:
    await starts(rates_at(bus, 1000.0), 100, 60)
    await bus.js.delete_stream(f"{bus.settings.namespace}-limits")
    assert await starts(rates_at(bus, 1000.0), 2, 60) == pytest.approx([999.0, 1000.0])


# ---- slots -----------------------------------------------------------------------------------------


async def test_no_more_have_a_slot_than_there_are_and_a_freed_one_goes_to_another(server: NatsServer, bus: Bus) -> None:
    async with bus_on(server, bus.settings.namespace) as other:
        takers = [bus.slots, other.slots] * 10
        taken = [slot for slot in await asyncio.gather(*(each.take("m", 7) for each in takers)) if slot is not None]
        assert len({slot.subject for slot in taken}) == len(taken) == 7
        assert await other.slots.take("m", 7) is None
        await bus.slots.free(taken[0])
        assert (await other.slots.take("m", 7)) is not None
        assert await bus.slots.take("another", 7) is not None


async def test_slot_of_the_dead_is_free_after_its_time_and_one_that_is_renewed_is_not(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "HELD_S", 1)
    dead, alive = await bus.slots.take("m", 2), await bus.slots.take("m", 2)
    assert dead is not None
    assert alive is not None
    async with asyncio.timeout(20):
        while (found := await bus.slots.take("m", 2)) is None:
            assert await bus.slots.renew(alive)
            await asyncio.sleep(0.1)
    assert found.subject == dead.subject
    assert not await bus.slots.renew(dead)
    await bus.slots.free(dead)  # late, which takes nothing from who has it now
    assert await bus.slots.renew(found)
