"""Pages of more than anybody can read: what is left out is said, and what takes long is waited for by nobody."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import Raw

from baton_actors.console.needs import Needs
from baton_bus import Settings
from baton_bus.client.people import Waiting
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Result, Task
from baton_schemas.wire.outcomes import Error, Failed

from .consoles import served
from .indexed import publish
from .servers import NatsServer
from .team import first_of, flow_of
from .timed import until_so

FLOW = flow_of({"do": Step(agent="do")}, {"text": Field()})


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


async def test_schedules_are_shown_a_hundred_at_a_time_and_none_is_left_out(bus: Bus, tmp_path: Path) -> None:
    task = encode(Task(input={"text": Raw(b'"x"')}))
    await asyncio.gather(*(bus.timers.repeat("flow", f"s{number}", "0 0 6 * * *", task) for number in range(130)))
    async with served(bus.settings, tmp_path / "index.sqlite") as console:
        pages = [(await console.get("/schedules", params={"from": start})).text for start in (0, 100)]
        shown = [re.findall(r'id="schedule-flow-(s\d+)"', page) for page in pages]
        assert [len(names) for names in shown] == [100, 30]
        assert len({*shown[0], *shown[1]}) == 130
        assert "1 to 100 of 130 schedules" in pages[0]
        assert 'href="/schedules?from=100"' in pages[0]
        assert "101 to 130 of 130 schedules" in pages[1]
        assert len((await console.get("/schedules.json")).json()) == 130
        assert "1 to 100" in (await console.get("/schedules", params={"from": "9999"})).text


async def test_causes_beyond_those_that_are_shown_are_counted(bus: Bus, tmp_path: Path) -> None:
    plan = check_flow(FLOW)
    sent = []
    for number in range(103):
        run, first = f"run{number}", first_of(plan, f"run{number}", text="x")
        begin = first.message
        assert isinstance(begin, Handoff)
        error = Error(step="do", type="Bad", message=f"no {'abcdefghij'[number % 10]}{'klmnopqrstu'[number // 10]}")
        end = Result(
            run=run,
            flow=begin.flow,
            digest=begin.digest,
            start_seq=1,
            status="failed",
            step="do",
            outcome=Failed(error=error),
        )
        sent += [(bus.subjects.of(first.actor, begin), encode(begin)), (bus.subjects.of("", end), encode(end))]
    await publish(bus, sent)
    async with served(bus.settings, tmp_path / "index.sqlite") as console:

        async def says_how_many() -> bool:
            page = (await console.get("/attention")).text
            return "and 3 more causes" in page and ">103</b>" in page and page.count('id="c-') == 100

        await until_so(says_how_many)


async def test_page_waits_for_nothing_that_takes_long_and_its_json_does(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, found = asyncio.Event(), asyncio.Event()

    async def questions(self: Needs) -> list[Waiting]:
        looked.set()
        await found.wait()
        return []

    monkeypatch.setattr(Needs, "questions", questions)
    async with served(bus.settings, tmp_path / "index.sqlite") as console:
        page = (await console.get("/attention")).text
        assert looked.is_set()
        assert "are being looked up" in page
        assert re.search(r'<p id="nothing" hidden>', page)
        facts = asyncio.create_task(console.get("/attention.json"))
        found.set()
        assert (await facts).json()["questions"] == []
        assert "are being looked up" not in (await console.get("/attention")).text


async def test_error_of_a_megabyte_is_shown_a_part_at_a_time_on_every_page(bus: Bus, tmp_path: Path) -> None:
    plan, end = check_flow(FLOW), "the very end"
    first = first_of(plan, "long", text="x")
    begin = first.message
    assert isinstance(begin, Handoff)
    broken = Failed(error=Error(step="do", type="T" * 5_000, message="x " * 450_000 + end, traceback="y " * 20_000))
    result = Result(
        run="long", flow=begin.flow, digest=begin.digest, start_seq=1, status="failed", step="do", outcome=broken
    )
    sent = [(bus.subjects.of(first.actor, begin), encode(begin)), (bus.subjects.of("", result), encode(result))]
    await publish(bus, sent)
    async with served(bus.settings, tmp_path / "index.sqlite") as console:
        paths = [
            "/runs/long",
            "/runs/long/messages/2",
            "/runs/long/steps/do",
            "/runs/long/steps/do?attempt=1",
            "/",
            "/log",
        ]
        for path in paths:
            page = await console.get(path)
            assert (page.status_code, len(page.content) < 200_000) == (200, True), path
        last = await console.get("/runs/long/steps/do", params={"show": "error", "from": str(14 * 65_536 - 32_768)})
        assert end in last.text
