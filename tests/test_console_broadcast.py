"""Pages that many have open are made once; whoever is slow gets the last of each part; a browser has some streams."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from baton_actors.console.broadcast import Broadcast, Broadcasts, Seat, sending
from baton_actors.console.streams import OPEN_MAX, Streams
from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step

from .consoles import served
from .servers import NatsServer, until
from .team import flow_of, team


async def test_one_works_for_all_who_have_a_page_open_and_ends_with_the_last() -> None:
    begun, ended = 0, 0

    async def work(there: Broadcast) -> None:
        nonlocal begun, ended
        begun += 1
        there.send({"a": "<p id=a>1</p>", "b": "<p id=b>1</p>"}, 0.0)
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    broadcasts = Broadcasts()
    async with AsyncExitStack() as stack:
        there, first = await stack.enter_async_context(broadcasts.joined("page", work))
        await first.came.wait()
        there.send({"b": "<p id=b>2</p>"}, 5.0)
        _, late = await stack.enter_async_context(broadcasts.joined("page", work))
        taken = late.take()
        assert taken is not None
        assert taken.parts == {"a": "<p id=a>1</p>", "b": "<p id=b>2</p>"}
        assert (begun, ended) == (1, 0)
    assert ended == 1


def test_who_is_slow_gets_the_last_of_each_part_and_is_as_late_as_the_oldest_of_them() -> None:
    seat = Seat()
    for number in range(3):
        seat.put(sending({"a": str(number), f"only-{number}": "x"}, 10.0 + number))
    taken = seat.take()
    assert taken is not None
    assert taken.parts == {"a": "2", "only-0": "x", "only-1": "x", "only-2": "x"}
    assert taken.waits_s == 10.0
    assert seat.take() is None


async def test_work_that_breaks_is_told_to_who_waits_and_begun_anew_for_who_comes_later() -> None:
    begun = 0

    async def work(there: Broadcast) -> None:
        nonlocal begun
        begun += 1
        raise ValueError("a mistake of ours")

    broadcasts = Broadcasts()
    for count in (1, 2):
        async with broadcasts.joined("page", work) as (there, seat):
            await seat.came.wait()
            await until(lambda there=there: there.is_over)  # type: ignore[misc]
            assert begun == count


def test_a_further_stream_of_a_browser_sends_its_oldest_to_sleep_and_nobody_elses() -> None:
    streams = Streams()
    other = streams.open("other")
    own = [streams.open("one") for _ in range(OPEN_MAX + 2)]
    assert [each.asleep.is_set() for each in own] == [True, True] + [False] * OPEN_MAX
    assert not other.asleep.is_set()


async def test_two_streams_of_a_page_are_sent_the_same_bytes(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def double(value: int) -> int:
        return value * 2

    async def heard(console_stream: AsyncExitStack, http: object, word: bytes) -> bytes:
        response = await console_stream.enter_async_context(http.stream("GET", "/live?of=/"))  # type: ignore[attr-defined]
        found = b""
        async for chunk in response.aiter_raw():
            found = chunk
            if word in chunk:
                break
        return found

    flow = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
    async with team(server.url, namespace, flow, {"do": double}) as t, AsyncExitStack() as stack:
        console = await stack.enter_async_context(served(t.bus.settings, tmp_path / "index.sqlite"))
        run = t.bus.settings.namespace + "-run"
        both = [asyncio.create_task(heard(stack, console.http, run.encode())) for _ in range(2)]
        await until(lambda: console.console.broadcasts.seats == 2)
        await t.submit(run, value=1)
        one, other = [chunk[chunk.index(b"data: <hx-partial") :] for chunk in await asyncio.gather(*both)]
        assert one == other
        assert console.console.broadcasts.pages == 1


async def test_run_is_read_once_by_its_page_its_stream_and_the_page_that_is_loaded_again(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def double(value: int) -> int:
        return value * 2

    flow = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
    async with team(server.url, namespace, flow, {"do": double}) as t, AsyncExitStack() as stack:
        console = await stack.enter_async_context(served(t.bus.settings, tmp_path / "index.sqlite"))
        run = await t.submit(value=1)
        await t.result(run)
        feeds = console.console.feeds
        feed = await feeds.read(run)
        async with feeds.watching(run) as watched:
            assert watched is feed
            assert await feeds.read(run) is feed
        assert await feeds.read(run) is feed


async def test_browser_is_told_from_others_by_a_cookie_that_it_keeps(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        first = await console.get("/", headers={"accept": "text/html"})
        (cookie,) = first.headers.get_list("set-cookie")
        name, _, value = cookie.partition(";")[0].partition("=")
        assert name.endswith("-browser")
        assert len(value) >= 12
        again = await console.get("/", headers={"accept": "text/html"})
        assert again.headers.get_list("set-cookie") == []
