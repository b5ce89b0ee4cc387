"""What waits for people, on one page: questions, failures by cause, what is rejected, parked, or stands still."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from baton_actors.console.needs import Seen, stamp
from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.names import retry_run

from .consoles import Served, served
from .sdk_clients import providing
from .servers import NatsServer
from .team import flow_of, team
from .test_budgets import asking, crewed, until_waits, usd
from .timed import until_so

ONE = flow_of({"one": Step(agent="one")}, {"value": Field(type="int")}, {"one": {"max_attempts": 1}})


async def facts(console: Served, **given: str) -> dict[str, Any]:
    answer = await console.get("/attention.json", params=given)
    assert answer.status_code == 200
    return dict(answer.json())


async def test_failures_are_grouped_by_cause_retried_as_a_group_and_marked_as_seen(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    mended = asyncio.Event()

    async def one(value: int) -> int:
        if not mended.is_set():
            raise ValueError(f"order {value} of 99 is <b>gone</b>" if value < 3 else "another")
        return value

    async with (
        team(server.url, namespace, ONE, {"one": one}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        runs = [await t.submit(value=value) for value in range(4)]
        for run in runs:
            assert (await t.result(run)).status == "failed"

        async def are_told() -> bool:
            found = (await facts(console))["causes"]
            return found is not None and sum(each["count"] for each in found) == 4

        await until_so(are_told)
        causes = {each["cause"]["message"]: each for each in (await facts(console))["causes"]}
        assert {message: each["count"] for message, each in causes.items()} == {
            "order # of # is <b>gone</b>": 3,
            "another": 1,
        }
        page = await console.get("/attention")
        assert "order # of # is &lt;b&gt;gone&lt;/b&gt;" in page.text
        key = causes["order # of # is <b>gone</b>"]["cause"]["key"]
        one_cause = await console.get("/attention", params={"cause": key})
        assert all(run in one_cause.text for run in runs[:3])
        assert runs[3] not in one_cause.text
        # What is in the top bar is what nobody has seen.
        assert ">2</b>" in page.text
        last = stamp(msgspec.convert(causes["another"]["last_at"], type=datetime))
        seen = await console.post("/attention/seen", {"cause": causes["another"]["cause"]["key"], "last": last})
        assert (seen.status_code, seen.headers["location"]) == (303, "/attention")
        assert [each["cause"]["key"] for each in (await facts(console))["causes"]] == [key]
        assert len((await facts(console, seen="yes"))["causes"]) == 2
        # The group is retried, twice, and is one run each.
        mended.set()
        asked = await console.get("/acts/retry", params={"cause": key})
        assert "Retry 3 runs" in asked.text
        for _ in range(2):
            answer = await console.post("/acts/retry", {"run": runs[:3]})  # type: ignore[dict-item] # each is a field
            assert answer.status_code == 303
        for run in runs[:3]:
            assert (await t.client.run(retry_run(run)).ended(10)).status == "done"
        assert len(await t.client.runs()) == 7

        # What was retried and is done is nobody's affair any more; it is shown where one asks for it.
        async def is_over() -> bool:
            return not (await facts(console))["causes"]

        await until_so(is_over)
        shown = await console.get("/attention", params={"cause": key})
        assert all(f"/runs/{retry_run(run)}" in shown.text for run in runs[:3])
        # A later failure for a cause that was seen comes up again.
        mended.clear()
        again = await t.submit(value=7)
        assert (await t.result(again)).status == "failed"

        async def is_back() -> bool:
            return [each["cause"]["message"] for each in (await facts(console))["causes"]] == ["another"]

        await until_so(is_back)


async def test_nothing_to_do_is_said_in_one_line_and_rejected_bytes_are_shown_as_text(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        team(server.url, namespace, ONE, {"one": lambda value: value}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        await t.client.run(await t.submit(value=1)).ended(10)

        async def has_index() -> bool:
            return (await facts(console))["causes"] is not None

        await until_so(has_index)
        page = await console.get("/attention")
        assert '<p id="nothing">Nothing waits for anybody' in page.text
        bad = b'{"</pre><script>alert(1)</script>'
        await t.bus.js.publish(f"{namespace}.handoff.flow--one.nosuch.one.start", bad)

        async def is_rejected() -> bool:
            return bool((await facts(console))["rejected"])

        await until_so(is_rejected)
        page = await console.get("/attention")
        assert "{&#34;&lt;/pre&gt;&lt;script&gt;alert(1)" in page.text
        assert "<script>alert" not in page.text
        assert '<p id="nothing" hidden>' in page.text


async def test_actor_that_is_down_with_work_waiting_is_told_and_the_command_that_starts_it(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, ONE, {"one": lambda value: value}, start=False) as t:
        async with t.process():
            await t.client.run(await t.submit(value=1)).ended(10)
        await t.submit(value=2)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:

            async def is_told() -> bool:
                found = (await facts(console))["findings"] or []
                return any("no process takes them" in each["says"] for each in found)

            await until_so(is_told)
            assert "Start it: `baton up FLOW`" in (await console.get("/attention")).text
        async with t.process():
            assert (await t.client.run((await t.client.runs(1))[0].run).ended(10)).status == "done"


async def test_page_says_when_there_is_no_server_and_no_log(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        page = await console.get("/attention")
        assert page.status_code == 200
        unknown = await console.get("/acts/retry", params={"cause": "nosuchcause"})
        assert unknown.status_code == 400


def test_what_was_seen_is_kept_for_the_next_console_and_broken_files_are_no_matter(tmp_path: Path) -> None:
    path, now = tmp_path / "index.seen.json", datetime.now(UTC)
    seen = Seen(path)
    assert not seen.has("a", now)
    seen.mark("a", stamp(now))
    later = Seen(path)
    assert later.has("a", now)
    assert later.has("a", now - timedelta(days=1))
    assert not later.has("a", now + timedelta(microseconds=1))
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{")
    assert not Seen(path).has("a", now)
    for wrong in ("", "never", "2026"):
        with pytest.raises(ValueError, match="isoformat"):
            seen.mark("a", wrong)


async def test_run_that_is_parked_for_its_budget_is_told_and_goes_on_by_a_form(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    found = asking(3, budget=usd(1), on_budget="park")
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        run = await crew.start()
        async with crew.working(), served(crew.bus.settings, tmp_path / "index.sqlite") as console:
            await until_waits(console.console.client, run)

            async def is_told() -> bool:
                return [each["run"] for each in (await facts(console))["parked"] or []] == [run]

            await until_so(is_told)
            page = await console.get("/attention")
            assert f"/runs/{run}/allow" in page.text
            assert f"baton retry {run} --budget AMOUNT" in page.text
            assert "1 step parked" in (await console.get(f"/runs/{run}/allow")).text
            for wrong in ("", "much", "0", "-1"):
                assert (await console.post(f"/runs/{run}/allow", {"budget": wrong})).status_code == 400, wrong
            little = await console.post(f"/runs/{run}/allow", {"budget": "0.0001"})
            assert (little.status_code, "has spent $0.000150 already" in little.text) == (409, True)
            answers = await asyncio.gather(*(console.post(f"/runs/{run}/allow", {"budget": "$0.01"}) for _ in range(2)))
            assert 303 in {each.status_code for each in answers}
            assert (await crew.result(run)).status == "done"
            assert len(provider.asked) == 3  # none was asked twice
            late = await console.post(f"/runs/{run}/allow", {"budget": "1"})
            assert (late.status_code, "the run has ended" in late.text) == (409, True)


async def test_failure_that_somebody_went_on_from_anywhere_is_left_out_while_that_goes_on_and_when_it_is_done(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    mended, going = asyncio.Event(), asyncio.Event()

    async def one(value: int) -> int:
        if not mended.is_set():
            raise ValueError("no")
        await going.wait()
        return value

    async with (
        team(server.url, namespace, ONE, {"one": one}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(value=1)
        assert (await t.result(run)).status == "failed"

        async def counted() -> int | None:
            found = (await facts(console))["causes"]
            return sum(each["count"] for each in found) if found is not None else None

        async def are(count: int) -> None:
            async def is_so() -> bool:
                return await counted() == count

            await until_so(is_so)

        await are(1)
        (cause,) = (await facts(console))["causes"]
        forked = [(await t.client.fork(run)).id]
        assert (await t.result(forked[0])).status == "failed"
        await are(2)
        mended.set()
        forked.append((await t.client.fork(run)).id)
        # The fork that failed, too, is a failure of its own.
        await are(1)
        shown = await console.get("/attention", params={"cause": cause["cause"]["key"]})
        assert f'goes on as <a href="/runs/{forked[1]}">' in shown.text
        assert f'href="/runs/{forked[0]}/retry">Retry' in shown.text
        page = await console.get(f"/runs/{run}")
        assert re.findall(r"[\w-]+", page.text.split("Forks: ")[1].split("</p>")[0]).count("running") == 2
        assert all(f'<a href="/runs/{fork}"><code>{fork}' in page.text for fork in forked)
        listed = (await console.get("/runs.json", params={"from": run})).json()
        assert [(each["run"], each["forked_from"]) for each in listed] == [(fork, run) for fork in forked[::-1]]
        going.set()
        assert (await t.result(forked[1])).status == "done"
        forked.append((await t.client.fork(forked[0])).id)
        assert (await t.result(forked[2])).status == "done"
        await are(0)
