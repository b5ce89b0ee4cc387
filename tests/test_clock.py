"""The broker's clock: steps of ours change nothing, and steps of the broker's are noticed."""

from __future__ import annotations

import time

from baton_bus import Settings
from baton_bus.store.bus import open_bus
from baton_bus.store.clock import Clock

from .servers import NatsServer, until

HOUR_S = 3600.0
NOON_S = 1_700_000_000.0


class Clocks:
    """The clocks of a computer, and that of a broker, set by a test."""

    def __init__(self) -> None:
        self.monotonic_s, self.wall_s, self.broker_s = 50.0, NOON_S, NOON_S + 7
        self.clock = Clock(lambda: self.monotonic_s, lambda: self.wall_s)

    def pass_s(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds
        self.broker_s += seconds

    def measure(self, there_s: float = 0.0, back_s: float = 0.0) -> None:
        asked_s = self.monotonic_s
        self.pass_s(there_s)
        said_s = self.broker_s
        self.pass_s(back_s)
        self.clock.measured(said_s, asked_s, self.monotonic_s)

    @property
    def off_s(self) -> float:
        return self.clock.now_s() - self.broker_s


def test_before_it_is_measured_it_is_the_local_time() -> None:
    clocks = Clocks()
    assert clocks.clock.now_s() == NOON_S


def test_measured_it_is_the_brokers_time_to_half_a_round_trip() -> None:
    clocks = Clocks()
    clocks.measure(0.3, 0.1)
    assert abs(clocks.off_s) <= 0.2
    clocks.measure(0.01, 0.01)
    assert abs(clocks.off_s) <= 0.02
    clocks.measure(2.0, 0.0)  # a slow answer says less than what is known
    assert abs(clocks.off_s) <= 0.02


def test_step_of_the_local_clock_changes_nothing_and_is_a_doubt() -> None:
    clocks = Clocks()
    clocks.measure()
    clocks.wall_s += 2 * HOUR_S
    clocks.pass_s(10)
    assert abs(clocks.off_s) < 0.001
    assert clocks.clock.in_doubt
    clocks.measure()
    assert not clocks.clock.in_doubt


def test_computer_that_slept_is_a_doubt_until_it_is_measured() -> None:
    clocks = Clocks()
    clocks.measure()
    clocks.wall_s += HOUR_S  # the monotonic clock stood meanwhile
    clocks.broker_s += HOUR_S
    assert clocks.clock.in_doubt
    clocks.measure()
    assert abs(clocks.off_s) < 0.001


def test_messages_that_are_heard_set_the_clock_forward_a_little() -> None:
    clocks = Clocks()
    clocks.measure()
    clocks.broker_s += 0.4  # it drifts
    clocks.clock.heard(clocks.broker_s)
    assert abs(clocks.off_s) < 0.001
    clocks.clock.heard(clocks.broker_s - HOUR_S)
    assert abs(clocks.off_s) < 0.001
    assert not clocks.clock.in_doubt


def test_message_of_the_future_is_a_doubt_and_not_the_time() -> None:
    clocks = Clocks()
    clocks.measure()
    clocks.clock.heard(clocks.broker_s + 2 * HOUR_S)  # the broker was wrong then, or is right now: it is asked
    assert abs(clocks.off_s) < 0.001
    assert clocks.clock.in_doubt
    clocks.broker_s += 2 * HOUR_S
    clocks.measure()
    assert abs(clocks.off_s) < 0.001


def test_step_back_of_the_brokers_clock_is_followed() -> None:
    clocks = Clocks()
    clocks.measure()
    clocks.broker_s -= 2 * HOUR_S
    clocks.measure(0.01, 0.01)
    assert abs(clocks.off_s) <= 0.02


async def test_clock_of_a_real_server_is_known_and_asked_again_when_the_local_one_steps(
    server: NatsServer, namespace: str
) -> None:
    step_s = 0.0
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        clock = Clock(wall=lambda: time.time() + step_s)
        clock._offset_s += 2 * HOUR_S  # as if it had been wrong
        async with clock.kept(bus.requests, namespace):
            assert abs(clock.now_s() - time.time()) < 0.5  # the server is on this computer
            step_s = 2 * HOUR_S
            assert clock.in_doubt
            await until(lambda: not clock.in_doubt)
            assert abs(clock.now_s() - time.time()) < 0.5


async def test_doubt_from_a_message_is_resolved_by_the_server(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        clock = Clock()
        async with clock.kept(bus.requests, namespace):
            clock.heard(clock.now_s() + HOUR_S)
            await until(lambda: not clock.in_doubt)
            assert abs(clock.now_s() - time.time()) < 0.5


async def test_clock_that_was_told_slowly_is_told_again_at_once(server: NatsServer, namespace: str) -> None:
    class Starved(Clock):
        """The first answer lies for a while before it is read, as in a process that gets no processor."""

        asked = 0

        def measured(self, broker_s: float, asked_s: float, answered_s: float) -> None:
            self.asked += 1
            super().measured(broker_s, asked_s, answered_s + (1.0 if self.asked == 1 else 0.0))

    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        clock = Starved()
        async with clock.kept(bus.requests, namespace):
            assert abs(clock.now_s() - time.time()) > 0.3  # half of what the answer seems to have taken
            await until(lambda: abs(clock.now_s() - time.time()) < 0.1)
            assert clock.asked <= 5
