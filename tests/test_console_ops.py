"""Queues, spend, schedules and the server as pages: the same figures as the commands have, and what to do next."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from baton_actors.services.clerk import Clerk
from baton_bus import Settings, connect
from baton_bus.client.budgets import budgets_today
from baton_bus.client.schedules import add_schedule, schedules_of
from baton_bus.store.bus import open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step
from baton_schemas.show.cron import cron_in_words, next_times
from baton_schemas.wire.money import Budget, packed

from .commands import baton, here
from .consoles import Served, served
from .indexed import mixed, publish, recorded
from .servers import NatsServer, until
from .team import flow_of, team
from .test_console_runs import until_indexed

PLAN = check_flow(flow_of({"a": Step(agent="a")}, {"topic": Field(type="str")}))
ASK = "/schedules/ask"


async def json_of(console: Served, path: str) -> Any:
    answer = await console.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


# ---- queues ----------------------------------------------------------------------------------------


async def test_actor_that_was_never_up_is_named_with_its_work_and_the_command_that_starts_it(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with connect(settings) as client:
        run = (await client.start(PLAN, topic="x")).id
    async with served(settings, tmp_path / "index.sqlite") as console:
        await until_indexed(console, 1)
        (actor,) = await json_of(console, "/queues.json")
        assert (actor["actor"], actor["waiting"], actor["is_down"]) == ("flow--a", 1, True)
        assert actor["command"] == "baton actor flow a"
        assert "never up" in actor["says"][0]
        page = await console.get("/queues/flow--a")
        assert f'href="/runs/{run}"' in page.text
        assert "baton actor flow a" in page.text
        none = await console.get("/queues/flow--b")
        assert none.status_code == 404
        assert "baton actor flow b" in none.text


async def test_queue_says_what_waits_what_is_in_hand_who_is_there_and_what_comes_and_goes(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def a(topic: str) -> str:
        begun.set()
        await go.wait()
        return topic

    flow = flow_of({"a": Step(agent="a")}, {"topic": Field(type="str")}, {"a": {"max_in_flight": 1}})
    async with team(server.url, namespace, flow, {"a": a}) as t:
        runs = [await t.submit(topic=str(number)) for number in range(3)]
        await begun.wait()
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            here_now = console.console
            async with here_now.queues.watching():
                await until(lambda: here_now.queues.rate("handoff-flow--a"))
                (actor,) = await json_of(console, "/queues.json")
                assert (actor["waiting"], actor["in_hand"], actor["in_hand_max"]) == (2, 1, 1)
                assert not actor["is_down"]
                assert datetime.fromisoformat(actor["oldest_at"]) <= datetime.now(UTC)
                assert [worker["in_hand"] for worker in actor["workers"]] == [1]
                found = await json_of(console, "/queues/flow--a.json")
                assert [each["run"] for each in found["waiting"]] == runs[1:]
                go.set()
                for run in runs:
                    await t.result(run)
                await until(lambda: any(each.went for each in here_now.queues.rates("handoff-flow--a")))
                page = await console.get("/queues")
                assert '<polyline class="out"' in page.text
            assert here_now.queues._task is None, "looked at only while somebody does"


async def test_queue_of_actors_that_are_down_comes_first_in_the_words_of_the_doctor(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    flow = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, {"topic": Field(type="str")})
    async with (
        team(server.url, namespace, flow, {"a": lambda topic: topic, "b": lambda: 1}, start=False) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        async with t.process():
            await t.result(await t.submit(topic="first"))
        run = await t.submit(topic="waits")
        console.console.crew.forget()
        first, second = await json_of(console, "/queues.json")
        assert (first["actor"], first["waiting"], first["workers"]) == ("flow--a", 1, [])
        assert "1 message waits and no process takes them" in first["says"][0]
        assert (second["actor"], second["waiting"]) == ("flow--b", 0)
        await t.client.run(run).cancel()


# ---- spend -----------------------------------------------------------------------------------------


def test_page_and_command_agree_on_what_was_spent(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    settings = Settings(url=server.url, namespace=namespace)

    async def record() -> int:
        async with open_bus(settings) as bus:
            runs = recorded(namespace)
            await publish(bus, mixed(runs, Random(5)))
            return len(runs)

    async def shown(runs: int) -> dict[str, list[dict[str, Any]]]:
        async with served(settings, tmp_path / "index.sqlite") as console:
            await until_indexed(console, runs // 2)
            await until(lambda: console.console.index.reach().is_whole)  # type: ignore[union-attr]
            await console.console.index.bell.wait(console.console.index.bell.count - 1)
            page = await console.get("/spend?by=flow&days=30")
            assert page.status_code == 200
            assert "The most expensive runs" in page.text
            bys = ("flow", "agent", "model", "day")
            return {by: (await json_of(console, f"/spend.json?by={by}&days=7"))["sums"] for by in bys}

    found = asyncio.run(shown(asyncio.run(record())))
    env = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
    since = (datetime.now(UTC).date() - timedelta(days=6)).isoformat()
    for by, sums in found.items():
        done = here("spend", "--by", by, "--since", since, "--json", cwd=tmp_path, **env)
        told = {each[by]: each for each in json.loads(done.stdout)["sums"]}
        assert told
        assert {each[by] for each in sums} == told.keys()
        for each in sums:
            ours = told[each[by]]
            for name in ("calls", "rehearsed"):
                assert each[name] == ours[name], (by, each[by], name)
            for name in ("cost_usd", "waste_usd"):
                assert each[name] == pytest.approx(ours[name]), (by, each[by], name)
            usage = ours["usage"]
            read = sum(usage.get(name, 0) for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens"))
            assert (each["prompt_tokens"], each["output_tokens"]) == (read, usage["output_tokens"])


async def test_budgets_of_today_say_how_much_of_them_is_used(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace, budget_tokens_per_day=1_000)
    budget = Budget(usd_per_day=2.0)
    plan = check_flow(replace(PLAN.flow, budget=budget))
    async with connect(settings) as client:
        await client.start(plan, topic="x")
        day = datetime.fromtimestamp(client.bus.now_s(), UTC).date().isoformat()
        await client.bus.counters.add(("flow", "flow", day, "usd"), packed(500_000_000, 1_000_000_000), "one")
        await client.bus.counters.add(("all", day, "tokens"), packed(1_000, 0), "two")
        used = await budgets_today(client.bus, {"flow": budget})
        assert [(each.flow, each.unit, each.share) for each in used] == [("", "tokens", 1.0), ("flow", "usd", 0.75)]
    async with served(settings, tmp_path / "index.sqlite") as console:
        await until_indexed(console, 1)
        text = (await console.get("/spend")).text
        rows = re.findall(r"<tr><td>(all runs|flow)</td>.*?(\d+) %", text, re.DOTALL)
        assert rows == [("all runs", "100"), ("flow", "75")]
        assert "$0.50" in text
        assert "$2.00" in text


async def test_spend_refuses_what_there_is_not_and_says_so(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        for query in ("by=week", "days=0", "days=-1", "days=x", "days=99999"):
            assert (await console.get(f"/spend?{query}")).status_code == 400
        await until(lambda: console.console.index.reach() is not None)
        assert "Nothing was asked of a model" in (await console.get("/spend")).text


# ---- schedules -------------------------------------------------------------------------------------


async def test_schedule_is_added_by_a_form_listed_in_words_and_removed_again(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with served(settings, tmp_path / "index.sqlite") as console:
        assert "Nothing is scheduled" in (await console.get("/schedules")).text
        assert 'name="input.question"' in (await console.get(f"{ASK}/new")).text
        fields = {"cron": "0 30 8 * * mon-fri", "name": "daily", "input.question": "What is new?"}
        for _ in range(2):  # twice is once
            added = await console.post(f"{ASK}/new", fields)
            assert (added.status_code, added.headers["location"]) == (303, "/schedules")
        (row,) = await json_of(console, "/schedules.json")
        assert (row["name"], row["flow"], row["cron"]) == ("daily", "ask", "0 30 8 * * mon-fri")
        assert row["words"] == "at 08:30 UTC on working days (Monday to Friday)"
        assert len(row["next_times"]) == 5
        page = await console.get("/schedules")
        assert "What is new?" in page.text
        told = await asyncio.to_thread(
            baton, "schedules", "--json", cwd=tmp_path, BATON_URL=server.url, BATON_NAMESPACE=namespace
        )
        (said,) = json.loads(told.stdout)
        assert {key: row[key] for key in said} == said
        assert "Remove it" in (await console.get("/schedules/ask/daily/remove")).text
        for _ in range(2):
            removed = await console.post("/schedules/remove", {"flow": "ask", "name": "daily"})
            assert (removed.status_code, removed.headers["location"]) == (303, "/schedules")
        assert await json_of(console, "/schedules.json") == []


async def test_schedule_with_mistakes_comes_back_with_what_was_filled_in(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        for fields, said in (
            ({"input.question": "q"}, "When?"),
            ({"input.question": "q", "cron": "0 0 6 * * *", "at": "+1h"}, "When?"),
            ({"input.question": "q", "cron": "6 o'clock"}, "cannot be read"),
            ({"input.question": "q", "at": "yesterday"}, "cannot be read"),
            ({"input.question": "q", "at": "2020-01-01T00:00"}, "is past"),
            ({"input.question": "q", "at": "+1h", "name": "a b"}, "schedule"),
            ({"input.question": "", "at": "+1h"}, "Nothing was scheduled"),
        ):
            answer = await console.post(f"{ASK}/new", fields)
            assert answer.status_code == 422, fields
            assert said in unescape(answer.text), fields
            if fields["input.question"]:
                assert ">\nq</textarea>" in answer.text
        assert await json_of(console, "/schedules.json") == []


async def test_schedule_that_is_run_now_begins_one_run_however_often_it_is_pressed(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with connect(settings) as client:
        await add_schedule(client, "ask", {"question": "Why?"}, cron="0 0 6 * * *", name="daily")
    async with served(settings, tmp_path / "index.sqlite") as console:
        page = await console.get("/schedules")
        run = re.search(r'name="run" value="([^"]+)"', page.text)
        assert run
        fields = {"flow": "ask", "name": "daily", "run": run[1]}
        for _ in range(2):
            sent = await console.post("/schedules/run", fields)
            assert sent.status_code == 303
            assert sent.headers["location"] == f"/schedules?sent={run[1]}&flow=ask"
        assert "begins as soon as" in (await console.get(sent.headers["location"])).text
        tasks = [entry.message async for entry in console.console.bus.log.read([f"{namespace}.task.ask"])]
        assert {task.run for task in tasks} == {run[1]}  # type: ignore[union-attr]
        gone = await console.post("/schedules/run", {**fields, "name": "none"})
        assert gone.status_code == 400
        assert "not there any more" in gone.text


async def test_console_that_only_reads_has_no_way_to_schedule(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with served(settings, tmp_path / "index.sqlite", read_only=True) as console:
        assert "<form" not in (await console.get("/schedules")).text
        assert "<button class" not in (await console.get(f"{ASK}/new")).text.partition("<main")[2]
        for path in (f"{ASK}/new", "/schedules/remove", "/schedules/run"):
            assert (await console.post(path, {"flow": "ask", "name": "x", "run": "r"})).status_code in (404, 405)


async def test_last_runs_of_a_schedule_and_its_next_times_are_those_of_the_broker(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, flow_of({"a": Step(agent="a")}), {"a": lambda: 1}) as t:
        await add_schedule(t.client, "flow", {}, cron="*/1 * * * * *", name="often")
        async with Clerk(t.client.engine).working(), served(t.bus.settings, tmp_path / "i.sqlite") as console:

            async def came() -> Any:
                (row,) = await json_of(console, "/schedules.json")
                return row if len(row["last_runs"]) >= 2 else None

            row = None
            while row is None:
                row = await came()
                await asyncio.sleep(0.1)
            (scheduled,) = await schedules_of(t.client)
            tasks = [entry.message async for entry in t.bus.log.read([f"{namespace}.task.flow"])]
            assert {each["run"] for each in row["last_runs"]} <= {task.run for task in tasks}  # type: ignore[union-attr]
            assert scheduled.last_at is not None
            (expected,) = next_times(scheduled.cron, scheduled.last_at, 1)
            assert scheduled.next_at == expected


@pytest.mark.parametrize(
    ("cron", "words", "times"),
    [
        ("0 0 6 * * *", "at 06:00 UTC each day", ["26 06:00:00", "27 06:00:00"]),
        ("0 */5 * * * *", "every 5 min", ["26 02:45:00", "26 02:50:00"]),
        ("*/10 * * * * *", "every 10 s", ["26 02:40:10", "26 02:40:20"]),
        ("@hourly", "every hour", ["26 03:00:00", "26 04:00:00"]),
        ("0 0 */6 * * *", "every 6 h", ["26 06:00:00", "26 12:00:00"]),
        ("0 0 9,17 * * MON", "at 09:00 and 17:00 UTC on Mondays", ["30 09:00:00", "30 17:00:00"]),
        ("0 0 0 1,15 * fri", "at 00:00 UTC on day 1 and 15, or on Fridays", ["27 00:00:00", "01 00:00:00"]),
        ("@every 1h30m", "every 90 min", ["26 02:40:00", "26 04:10:00"]),
        ("0 0-10 6 * * *", "0 0-10 6 * * *", ["26 06:00:00", "26 06:01:00"]),
        ("0 0 0 30 2 *", "at 00:00 UTC on day 30 of the month in February", []),
        ("99 * * * * *", "99 * * * * *", []),
        ("@every soon", "@every soon", []),
        ("x", "x", []),
    ],
)
def test_schedule_in_words_and_its_next_times(cron: str, words: str, times: list[str]) -> None:
    now = datetime(2026, 11, 26, 2, 40, tzinfo=UTC)
    assert cron_in_words(cron) == words
    assert [f"{at:%d %H:%M:%S}" for at in next_times(cron, now, 2, now)] == times


# ---- server ----------------------------------------------------------------------------------------


async def test_server_page_says_what_the_doctor_does_who_is_there_and_how_the_index_stands(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    flow = flow_of({"a": Step(agent="a")}, {"topic": Field(type="str")})
    async with team(server.url, namespace, flow, {"a": lambda topic: topic}) as t:
        await t.result(await t.submit(topic="x"))
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            await until_indexed(console, 1, ended=1)
            findings = await json_of(console, "/server.json")
            assert {each["what"] for each in findings} >= {"server", "flushing", "replicas of the log", "consumers"}
            await until(lambda: console.console.workers())
            text = unescape((await console.get("/server")).text)
            assert "Set `sync_interval: always`" in text
            assert "flow--a" in text
            assert "1 runs, all of the log" in text or "1 run" in text
            assert "The log grew by" in text
            assert ">1 worker</a>" in text, "in the bar at the bottom too"


async def test_server_without_a_log_says_what_makes_one(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        await console.console.bus.js.delete_stream(namespace)
        text = unescape((await console.get("/server")).text)
        assert "There is no log yet" in text
        assert "No worker answers the roll call" in text
        await console.console.bus.js.add_stream(name=namespace, subjects=[f"{namespace}.none"])
