"""Taking work: never more than asked for, never less than there is, and leases that hold while the loop is blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from baton_bus.jetstream import consumer as consumer_module
from baton_bus.jetstream import leases as leases_module
from baton_bus.jetstream.delivery import Delivery
from baton_bus.jetstream.nats_client import NatsClient

from .chaos.proxy import Proxy
from .servers import NatsServer, nats_server, until
from .test_publisher import stopped
from .wired import Wired, wired

LEASE_S = 1.0


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, whatever an earlier test's command has made of logging in this process."""
    configured = structlog.get_config()
    structlog.reset_defaults()
    for module in (consumer_module, leases_module):
        monkeypatch.setattr(module, "logger", structlog.get_logger("baton.bus"))
    with structlog.testing.capture_logs() as logs:
        yield logs
    structlog.configure(**configured)


class Hands:
    """Takes what a puller gives, and remembers the most that was unsettled at once."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.open: list[Delivery] = []
        self.peak = 0

    def take(self, delivery: Delivery) -> None:
        self.taken.append(delivery)
        self.open.append(delivery)
        self.peak = max(self.peak, len(self.open))

    async def settle(self) -> None:
        """Ack all that is in hand, at once, as steps do that take equally long."""
        settling, self.open = self.open, []
        for delivery in settling:
            await delivery.ack()

    @property
    def seqs(self) -> list[int]:
        return sorted(delivery.seq for delivery in self.taken)


# ---- how much is in hand -------------------------------------------------------------------------


async def test_all_places_are_taken_at_every_settle_while_work_waits(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        await t.fill(64)
        hands = Hands()
        async with t.pulling(8, hands.take):
            for _ in range(8):
                await until(lambda: len(hands.open) == 8)
                await hands.settle()
        assert (hands.peak, hands.seqs) == (8, list(range(1, 65)))


@pytest.mark.parametrize("places", [1, 2, 8])
async def test_places_that_free_one_by_one_are_taken_again(server: NatsServer, namespace: str, places: int) -> None:
    async with wired(server.url, namespace) as t:
        await t.fill(40)
        hands = Hands()
        async with t.pulling(places, hands.take):
            for settled in range(40):
                await until(lambda: len(hands.open) == min(places, 40 - settled))  # noqa: B023 (called in this round)
                await hands.open.pop(0).ack()
        assert (hands.peak, hands.seqs) == (places, list(range(1, 41)))


async def test_one_pull_request_brings_many_messages_at_a_high_rate(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        await t.fill(10_000)
        count = 0

        def take(delivery: Delivery) -> None:
            nonlocal count
            count += 1
            asyncio.ensure_future(delivery.ack()).add_done_callback(lambda _: None)

        async with t.pulling(256, take) as puller:
            await until(lambda: count == 10_000)
            assert puller.pulls < 10_000 / 50


async def test_old_pull_requests_that_are_served_after_a_stall_give_nobody_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: NatsClient) -> None:
        pass

    # As if the stall were of the consumer's leader, on another server than ours: ours is heard, and it is not.
    monkeypatch.setattr(NatsClient, "until_heard", at_once)
    monkeypatch.setattr(consumer_module, "HEARTBEAT_S", 0.1)
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        hands = Hands()
        async with t.pulling(2, hands.take) as puller:
            with stopped(server):
                await until(lambda: puller.pulls >= 5)
            await t.fill(50)
            while len(hands.taken) < 50 or hands.open:
                await until(lambda: hands.open)
                assert len(hands.open) == puller.in_hand <= 2
                await hands.open.pop(0).ack()
        assert (hands.peak, hands.seqs) == (2, list(range(1, 51)))


async def test_server_that_stands_still_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "HEARTBEAT_S", 0.1)
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        hands = Hands()
        async with t.pulling(2, hands.take) as puller:
            with stopped(server):
                asked = puller.pulls
                await asyncio.sleep(15 * consumer_module.HEARTBEAT_S)
                assert puller.pulls == asked
            await t.fill(10)
            while len(hands.taken) < 10 or hands.open:
                await until(lambda: hands.open)
                await hands.settle()
        assert (hands.peak, hands.seqs) == (2, list(range(1, 11)))


async def test_work_goes_on_after_connections_are_cut_and_never_too_much(server: NatsServer, namespace: str) -> None:
    proxy = Proxy(server.port)
    async with proxy.working(), wired(proxy.url, namespace) as t:
        await t.fill(60)
        hands = Hands()
        async with t.pulling(4, hands.take, lease_s=LEASE_S) as puller:
            for _ in range(3):
                await until(lambda: len(hands.open) == 4)
                proxy.cut_all()
                await until(lambda: not t.nc.is_connected)
                await hands.settle()
            while len(set(hands.seqs)) < 60 or hands.open:
                await until(lambda: hands.open)
                await hands.settle()
            assert hands.peak == 4
            assert puller.in_hand == 0


async def test_what_nobody_saw_is_given_back_when_the_puller_stops(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        hands, others = Hands(), Hands()
        await t.fill(4)
        async with t.pulling(2, hands.take) as puller:
            await until(lambda: len(hands.open) == 2)
            # Two more come than there is room for, as from a pull request that was given up.
            reply = f"{puller._inbox.decode()}.late"
            await t.nc.publish("$JS.API.CONSUMER.MSG.NEXT.s.c", b'{"batch":2}', reply=reply)
            await until(lambda: len(puller._spare) == 2)
            await puller.stop()
            async with t.pulling(4, others.take):
                await until(lambda: others.seqs == [3, 4])
        assert hands.seqs == [1, 2]


async def test_message_that_is_handed_out_again_while_in_hand_has_the_new_lease(
    server: NatsServer, namespace: str
) -> None:
    async with wired(server.url, namespace) as t:
        await t.fill(1)
        hands = Hands()
        async with t.pulling(1, hands.take) as puller:
            await until(lambda: hands.open)
            (delivery,) = hands.open
            puller.say(delivery, b"-NAK")
            puller._in_hand_max = 2
            puller.reconnected()
            await until(lambda: delivery.delivered == 2)
            assert puller.in_hand == 1
            await delivery.ack()
            await until_unacked(t, 0)
        assert hands.taken == [delivery]


async def until_unacked(t: Wired, count: int) -> None:
    async with asyncio.timeout(10):
        while await t.unacked() != count:  # noqa: ASYNC110 (the server sets no event of ours)
            await asyncio.sleep(0.01)


# ---- leases --------------------------------------------------------------------------------------


def lease_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "baton leases"]


async def test_lease_outlives_a_loop_that_is_blocked_for_several(
    server: NatsServer, namespace: str, logs: list[MutableMapping[str, Any]]
) -> None:
    async with wired(server.url, namespace) as t, wired(server.url, namespace) as other:
        hands, others = Hands(), Hands()
        await t.fill(3)
        async with t.pulling(3, hands.take, lease_s=LEASE_S):
            await until(lambda: len(hands.open) == 3)
            async with other.pulling(3, others.take, lease_s=LEASE_S):
                await asyncio.sleep(LEASE_S / 3)
                time.sleep(3 * LEASE_S)  # noqa: ASYNC251 (what this is about)
                await until(lambda: [entry for entry in logs if entry["event"] == "loop.free"])
                await hands.settle()
                await until_unacked(t, 0)
        assert others.taken == []
        (blocked,) = [entry for entry in logs if entry["event"] == "loop.blocked"]
        assert (blocked["log_level"], blocked["seconds"] >= 1) == ("warning", True)
        assert "test_lease_outlives_a_loop" in blocked["by"]
        (free,) = [entry for entry in logs if entry["event"] == "loop.free"]
        assert free["seconds"] >= 2


async def test_lease_is_kept_from_the_first_moment_that_the_loop_is_blocked(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t, wired(server.url, namespace) as other:
        others = Hands()

        def blocks(delivery: Delivery) -> None:
            time.sleep(3 * LEASE_S)

        await t.fill(1)
        async with t.pulling(1, blocks, lease_s=LEASE_S), other.pulling(1, others.take, lease_s=LEASE_S):
            await until_unacked(t, 1)
            assert others.taken == []


async def test_leases_of_all_consumers_are_kept_by_one_thread_that_ends_with_the_connection(
    server: NatsServer, namespace: str
) -> None:
    before = len(lease_threads())
    async with wired(server.url, namespace) as t:
        await t.fill(2)
        hands, others = Hands(), Hands()
        async with t.pulling(2, hands.take, lease_s=LEASE_S), t.pulling(2, others.take, lease_s=LEASE_S, name="d"):
            await until(lambda: len(hands.open) == len(others.open) == 2)
            assert len(lease_threads()) == before + 1
            await asyncio.sleep(2 * LEASE_S)
            assert [delivery.delivered for delivery in hands.open + others.open] == [1] * 4
            assert len(hands.taken) == len(others.taken) == 2
    assert len(lease_threads()) == before


async def test_leases_hold_without_a_second_connection(tmp_path: Path) -> None:
    async with nats_server(tmp_path, max_connections=1) as server, wired(server.url) as t:
        await t.fill(1)
        hands = Hands()
        async with t.pulling(1, hands.take, lease_s=LEASE_S):
            await until(lambda: hands.open)
            await asyncio.sleep(3 * LEASE_S)
            await hands.settle()
            await until_unacked(t, 0)
        assert [delivery.delivered for delivery in hands.taken] == [1]


async def test_leases_hold_after_all_connections_were_cut(server: NatsServer, namespace: str) -> None:
    proxy = Proxy(server.port)
    async with (
        proxy.working(),
        wired(proxy.url, namespace) as t,
        wired(server.url, namespace) as other,
    ):
        await t.fill(1)
        hands, others = Hands(), Hands()
        async with t.pulling(1, hands.take, lease_s=2 * LEASE_S), other.pulling(1, others.take, lease_s=2 * LEASE_S):
            await until(lambda: hands.open or others.open)
            for _ in range(5):
                await asyncio.sleep(LEASE_S)
                proxy.cut_all()
            await until(lambda: t.nc.stats["reconnects"] == 5)
            await hands.settle()
            await others.settle()
            await until_unacked(other, 0)
        assert len(hands.taken + others.taken) == 1


# ---- what is strange -----------------------------------------------------------------------------

STRANGE = [b"caf\xe9", b"\xff\xfe", b"a" * 3000, b"a\x0bb", b"a\x0cb", b"a\x85b", b"a\x1cb", b"\xed\xa0\x80"]


async def publish_raw(server: NatsServer, *subjects: bytes) -> None:
    """Publish as a client does that cares for no encoding."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    for number, subject in enumerate(subjects):
        header = b"NATS/1.0\r\nodd: \xe9\r\n\r\n"
        if number % 2:
            writer.write(b"HPUB %b %d %d\r\n%bx\r\n" % (subject, len(header), len(header) + 1, header))
        else:
            writer.write(b"PUB %b 1\r\nx\r\n" % subject)
    writer.write(b"PING\r\n")
    while b"PONG" not in await reader.readline():
        pass
    writer.close()


@pytest.mark.parametrize("token", STRANGE)
async def test_strange_subject_arrives_and_is_terminated(server: NatsServer, namespace: str, token: bytes) -> None:
    async with wired(server.url, namespace) as t:
        await publish_raw(server, b"%b.%b" % (namespace.encode(), token))
        await t.fill(1)
        hands = Hands()
        async with t.pulling(5, hands.take):
            await until(lambda: len(hands.open) == 2)
            strange, good = hands.open
            strange.subject.encode()
            assert good.subject == f"{namespace}.0"
            await strange.term()
            await good.ack()
            await until_unacked(t, 0)
        assert t.nc.stats["reconnects"] == 0


async def test_many_tasks_on_strange_subjects_do_not_stop_a_consumer(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        name = namespace.encode()
        await publish_raw(server, *(b"%b.caf\xe9.%d" % (name, number) for number in range(1200)))
        await t.fill(1)
        hands = Hands()
        async with t.pulling(8, hands.take):
            while not any(delivery.subject == f"{namespace}.0" for delivery in hands.taken):
                await until(lambda: hands.open)
                for delivery in hands.open:
                    await delivery.term()
                hands.open.clear()
            await until_unacked(t, 0)
        assert len(hands.taken) == 1201
        assert t.nc.stats["reconnects"] == 0


async def test_strange_subject_does_not_end_what_a_plain_subscription_hears(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        heard: list[str] = []

        async def on_msg(msg: Msg) -> None:
            heard.append(msg.subject)

        await t.nc.subscribe(f"{namespace}.>", cb=on_msg)
        await t.nc.flush()
        await publish_raw(server, b"%b.caf\xe9" % namespace.encode())
        await t.fill(1)
        await until(lambda: len(heard) == 2)
        assert heard == [f"{namespace}.caf\\xe9", f"{namespace}.0"]


async def test_subscription_is_there_once_the_connection_is_flushed(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t, wired(server.url, f"{namespace}b") as other:
        heard: list[bytes] = []
        for number in range(300):  # without the order one in fifty is missed
            await t.nc.listen(f"{namespace}-live.{number}", lambda subject, *_: heard.append(subject))
            await t.nc.flush()
            await other.nc.publish(f"{namespace}-live.{number}", b"")
            await other.nc.flush()
        await t.nc.flush()
        assert len(heard) == 300


async def test_headers_of_a_delivery_can_be_read(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        await t.publisher.publish(f"{namespace}.1", b"x", {"Baton-Version": "2", "Odd": "a\r\nb: é"})
        hands = Hands()
        async with t.pulling(1, hands.take):
            await until(lambda: hands.open)
        assert hands.open[0].headers == {"Baton-Version": "2", "Odd": "a b: é"}


# ---- consumers that do not serve -----------------------------------------------------------------


async def test_paused_consumer_serves_again_when_it_is_resumed(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        hands = Hands()
        async with t.pulling(1, hands.take):
            pause = f"$JS.API.CONSUMER.PAUSE.{namespace}.c"
            await t.requests.ask(pause, b'{"pause_until":"2100-01-01T00:00:00Z"}')
            await t.fill(1)
            await t.nc.flush()
            assert hands.taken == []
            await t.requests.ask(pause, b"{}")
            await until(lambda: hands.open)


async def test_consumer_that_was_deleted_is_made_again_and_what_prevents_it_is_told(
    server: NatsServer, namespace: str, logs: list[MutableMapping[str, Any]]
) -> None:
    async with wired(server.url, namespace) as t:
        hands = Hands()
        tries = 0

        async def make() -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise OSError("not yet")
            await t.js.add_consumer(namespace, ConsumerConfig(durable_name="c"))

        async with t.pulling(1, hands.take, on_gone=make):
            await t.js.delete_consumer(namespace, "c")
            await t.fill(1)
            await until(lambda: hands.open)
        assert [entry["error"] for entry in logs if entry["event"] == "consumer.gone"] == ["not yet"]


async def test_closing_a_puller_never_hides_the_first_error(server: NatsServer, namespace: str) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise OSError("the second")

    async with wired(server.url, namespace) as t:
        with pytest.raises(ValueError, match="the first"):
            async with t.pulling(1, Hands().take) as puller:
                puller._subscription.unsubscribe = broken  # type: ignore[method-assign]
                raise ValueError("the first")
