"""The list of runs: what it counts, finds and leaves out, in which order; and finding anything from anywhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest
from msgspec import Struct

from baton_actors.console.listing import Query
from baton_bus import Settings, connect
from baton_bus.index.finding import Order
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.child_runs import run_of_child
from baton_schemas.wire.messages import Parent

from .consoles import Served, served
from .servers import NatsServer, until
from .team import flow_of, team

PLAN = check_flow(flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, {"topic": Field(type="str")}))
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x1b[31m \u202e"


class Listed(Struct):
    """A console with some runs, all of which are in its index."""

    console: Served
    runs: list[str]
    """In the order in which they began."""

    async def ids(self, path: str) -> list[str]:
        answer = await self.console.get(path)
        assert answer.status_code == 200, answer.text
        return [each["run"] for each in answer.json()]

    async def text(self, path: str) -> str:
        answer = await self.console.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text


@asynccontextmanager
async def listed(server: NatsServer, namespace: str, folder: Path, topics: list[str]) -> AsyncIterator[Listed]:
    """Have a run for each topic, none of them done by anybody; every third is cancelled."""
    settings = Settings(url=server.url, namespace=namespace)
    async with connect(settings) as client:
        runs = [(await client.start(PLAN, topic=topic)).id for topic in topics]
        for run in runs[::3]:
            await client.run(run).cancel()
    async with served(settings, folder / "index.sqlite") as console:
        await until_indexed(console, len(runs), ended=len(runs[::3]))
        yield Listed(console, runs)


async def until_indexed(console: Served, runs: int, *, ended: int = 0) -> None:
    """Wait until the index has so many runs, of which so many have ended."""

    def has_all() -> bool:
        index = console.console.index
        if (reach := index.reach()) is None or not reach.is_whole or reach.runs < runs:
            return False
        assert index.database is not None
        (over,) = index.database.execute("SELECT count(*) FROM runs WHERE status != 'running'").fetchone()
        return bool(over >= ended)

    await until(has_all)


def chips(text: str) -> dict[str, str]:
    """The counts of a page, by what they are of."""
    (chips,) = re.findall(r'<nav id="chips".*?</nav>', text, re.DOTALL)
    found = {}
    for chip in re.findall(r"<a .*?</a>", chips, re.DOTALL):
        words = re.sub(r"<[^>]+>", " ", chip).split()
        found[" ".join(word for word in words if word.isalpha())] = words[-1]
    return found


async def test_chips_count_what_would_be_found_and_filters_find_it(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with listed(server, namespace, tmp_path, ["acme one", "acme two", "other", "acme three"]) as t:
        assert chips(await t.text("/")) == {
            "all": "4",
            "running": "2",
            "done": "0",
            "failed": "0",
            "cancelled": "2",
            "expired": "0",
            "waiting for people": "0",
        }
        assert await t.ids("/runs.json") == t.runs[::-1]
        assert await t.ids("/runs.json?status=cancelled") == [t.runs[3], t.runs[0]]
        assert await t.ids("/runs.json?status=cancelled,running&flow=flow&since=1h") == t.runs[::-1]
        assert await t.ids("/runs.json?text=acme&status=running") == [t.runs[1]]
        assert chips(await t.text("/?text=acme&status=running"))["cancelled"] == "2"
        assert await t.ids("/runs.json?until=1h") == []
        assert await t.ids("/runs.json?waiting=yes") == []
        assert await t.ids("/runs.json?flow=none") == []
        assert (await t.console.get("/?status=odd")).status_code == 400
        assert (await t.console.get("/?sort=odd")).status_code == 400
        bad = await t.console.get("/?since=tomorrow")
        assert bad.status_code == 400
        assert "Expected 7d, 12h" in unescape(bad.text)


@pytest.mark.parametrize("sort", ["started", "cost", "time", "tokens"])
@pytest.mark.parametrize("order", ["", "asc"])
async def test_pages_follow_one_another_and_have_each_run_once(
    server: NatsServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sort: Order, order: str
) -> None:
    monkeypatch.setattr("baton_actors.console.pages.runs.SHOWN", 3)
    async with listed(server, namespace, tmp_path, [f"topic {number}" for number in range(8)]) as t:
        path, found, pages = "/?" + urlencode({"status": "cancelled,running", "sort": sort, "order": order}), [], 0
        while path:
            text = await t.text(path)
            found += re.findall(r'<tr id="run-(\S+)"', text)
            older = re.search(r'<a href="([^"]+)" rel="next">', text)
            path, pages = unescape(older[1]) if older else "", pages + 1
        assert pages == 3
        assert sorted(found) == sorted(t.runs)
        if sort == "started":
            assert found == (t.runs if order else t.runs[::-1])


async def test_neighbours_of_a_run_are_those_of_the_list_that_it_was_found_in(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with listed(server, namespace, tmp_path, [f"topic {number}" for number in range(5)]) as t:
        for query, order in (
            ("", t.runs[::-1]),
            ("order=asc", t.runs),
            ("status=running", [t.runs[4], *t.runs[2:0:-1]]),
        ):
            for at, run in enumerate(order):
                beside = (await t.console.get("/beside.json", params={"run": run, "list": query})).json()
                assert beside == {
                    "before": f"/runs/{order[at - 1]}" if at else "",
                    "after": f"/runs/{order[at + 1]}" if at + 1 < len(order) else "",
                }
        moved = await t.console.get("/beside", params={"run": t.runs[1], "list": "", "to": "after"})
        assert (moved.status_code, moved.headers["location"]) == (303, f"/runs/{t.runs[0]}")


async def test_where_nothing_fits_it_is_said_what_excludes_most(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with listed(server, namespace, tmp_path, ["acme", "acme", "acme", "other"]) as t:
        text = await t.text("/?status=failed&text=acme")
        assert "No run fits" in text
        said = re.findall(r"Without <b>(\w+)</b> = “(\w+)”, (\d+)", text)
        assert said == [("status", "failed", "3")]
        assert 'href="/?text=acme"' in text
        text = await t.text("/?text=zebra&status=running")
        assert re.findall(r"Without <b>(\w+)</b> = “(\w+)”, (\d+)", text) == [("text", "zebra", "2")]


async def test_runs_that_a_run_asked_for_are_a_list_of_their_own(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with connect(settings) as client:
        outer = (await client.start(PLAN, topic="outer")).id
        child, inner = "a--k1", run_of_child(outer, "a--k1")
        parent = Parent(run=outer, step="a", flow="flow", actor="flow--a", child=child, digest=PLAN.digest, start_seq=1)
        given = await client.encoded({"topic": "inner"})
        await client.engine.runs.start(PLAN, given, inner, parent=parent)
    async with served(settings, tmp_path / "index.sqlite") as console:
        await until_indexed(console, 2)
        assert [each["run"] for each in (await console.get("/runs.json")).json()] == [outer]
        page = await console.get("/", params={"of": outer})
        assert re.findall(r'<tr id="run-(\S+)"', page.text) == [inner]
        assert f"asked for by {outer}" in page.text


async def test_rows_are_made_once_for_each_version_and_parts_that_did_not_change_are_the_same(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with listed(server, namespace, tmp_path, ["one", "two", "three"]) as t:
        first = await t.text("/")
        made = t.console.console.rows.made
        second = await t.text("/")
        assert t.console.console.rows.made == made
        table = re.compile(r'<div id="runs">.*</div>', re.DOTALL)
        assert table.findall(first) == table.findall(second)
        await t.console.console.client.run(t.runs[1]).cancel()
        await until_indexed(t.console, 3, ended=2)
        assert f'value="{t.runs[1]}"' in await t.text("/")
        assert t.console.console.rows.made == made + 1


async def test_row_says_what_broke_a_run_how_long_it_took_for_its_flow_and_what_was_done(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def a(topic: str) -> str:
        if topic == "bad":
            raise ValueError("no such topic")
        return topic

    flow = flow_of({"a": Step(agent="a")}, {"topic": Field(type="str")}, {"a": {"max_attempts": 2}})
    async with team(server.url, namespace, flow, {"a": a}) as t:
        for topic in ("good", "good", "bad"):
            await t.result(await t.submit(topic=topic))
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            await until_indexed(console, 3, ended=3)
            text = (await console.get("/")).text
            rows = re.findall(r'<tr id="run-.*?</tr>', text, re.DOTALL)
            assert "no such topic" in rows[0]
            assert "↻" in rows[0]
            assert "of this flow the median is" in rows[1]
            assert "1/1" in rows[1]
            assert 'aria-label="Runs by the hour' in text
            assert re.search(r"<title>[^<]*: 2 done, 1 failed</title>", text)


async def test_marked_runs_lead_to_a_question_and_two_to_their_comparison(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with listed(server, namespace, tmp_path, ["one", "two", "three"]) as t:
        one, two, _ = t.runs

        async def leads(does: str, *runs: str) -> tuple[int, str]:
            answer = await t.console.get("/chosen?" + urlencode([("do", does), *(("run", run) for run in runs)]))
            return answer.status_code, answer.headers.get("location", answer.text)

        for runs in ((one, two), (two, one)):  # the earlier is what the later is compared with
            assert await leads("compare", *runs) == (303, f"/compare/{one}/{two}")
        assert await leads("cancel", one, two) == (303, f"/acts/cancel?run={one}&run={two}")
        assert await leads("retry", one) == (303, f"/acts/retry?run={one}")
        status, text = await leads("export", one)
        assert status == 200
        assert f"baton export {one}" in text
        for does, few in (("compare", [one]), ("cancel", []), ("odd", [one])):
            assert (await leads(does, *few))[0] == 400
        asked = await t.console.get(f"/acts/cancel?run={one}&run={two}")
        assert asked.status_code == 200


async def test_anything_is_found_by_some_letters(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with listed(server, namespace, tmp_path, ["acme rockets", "tides"]) as t:

        async def found(words: str) -> list[tuple[str, str]]:
            answer = (await t.console.get("/find.json", params={"q": words})).json()
            return [(each["kind"], each["path"]) for each in answer]

        first = ("run", f"/runs/{t.runs[0]}")
        assert (await found(t.runs[0][-8:]))[0] == first
        assert (await found(t.runs[0]))[0] == first
        assert (await found("rock"))[0] == first
        assert ("flow", "/flows/report") in await found("repo")
        assert ("runs", "/?flow=flow") in await found("flo")
        assert ("page", "/spend") in await found("spe")
        assert ("search", "/?text=zebra+x") in await found("zebra x")
        assert len(await found("")) > 5
        page = await t.console.get("/find", params={"q": HOSTILE})
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text


async def test_hostile_texts_are_texts_in_the_list(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with listed(server, namespace, tmp_path, [HOSTILE, HOSTILE]) as t:
        text = await t.text("/?" + urlencode({"flow": HOSTILE, "since": "1d"}))
        for page in (await t.text("/"), text):
            assert "<script>alert" not in page
            assert "<img" not in page


async def test_list_is_shown_before_there_is_an_index(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with connect(settings) as client:
        run = (await client.start(PLAN, topic="early")).id
    async with served(settings, tmp_path / "no" / "such" / "folder" / "index.sqlite") as console:
        page = await console.get("/")
        assert page.status_code == 200
        assert run in page.text


def test_address_of_a_list_says_all_of_it_and_its_parts_can_be_changed() -> None:
    query = Query({"status": "failed", "text": "a b", "before": "r", "sort": "cost", "token": "secret"})
    assert "secret" not in query.text
    assert query.with_(text="") == "/?status=failed&sort=cost"
    assert query.toggled("failed") == "/?text=a+b&sort=cost"
    assert query.toggled("done") == "/?status=failed%2Cdone&text=a+b&sort=cost"
    assert query.sorted_by("cost") == "/?status=failed&text=a+b&sort=cost&order=asc"
    assert query.sorted_by("started") == "/?status=failed&text=a+b"
    assert Query({}).with_() == "/"
