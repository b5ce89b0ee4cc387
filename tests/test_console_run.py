"""The page of a run over HTTP: as it is, as it was after any message, live and loaded anew, and a thousand branches."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from baton_actors.console.following import _Parts
from baton_actors.console.page import Page
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.branching import branches_in
from baton_schemas.show.export import dump
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import Row, rows_of

from .consoles import Served, served
from .servers import NatsServer, until
from .team import Team, flow_of, team

NUMBERS = Field(type="list[int]")
PARTIAL = re.compile(r'<hx-partial hx-target="#(\w+)" hx-swap="outerMorph">(.*?)</hx-partial>', re.DOTALL)


def over_numbers(policy: JoinPolicy | None = None, **agents: Any) -> Flow:
    """Over numbers, each of which may fail; what is left is merged."""
    steps = {
        "each": Step(agent="each", each="numbers", on_error="continue"),
        "merge": Step(agent="merge", after=["each"], join=policy),
    }
    return flow_of(steps, {"numbers": NUMBERS}, agents)


async def merge(each: list[int]) -> int:
    return sum(each)


def rows_in(state: RunState, entry: Entry) -> list[Any]:
    """The steps of a run, as its page has them as JSON."""
    rows: list[Row] = rows_of(state, plan_of(state), now=entry.at)
    return list(msgspec.json.decode(msgspec.json.encode(rows)))


async def assert_each_message_is_shown_as_the_fold_has_it(console: Served, t: Team, run: str) -> None:
    entries = await t.log(run)
    # Forth, and back again: what was worked out for a neighbour is gone on from.
    for number in [*range(1, len(entries) + 1), *range(len(entries) - 1, 0, -1)]:
        state = fold(entries[:number])
        shown = (await console.get(f"/runs/{run}.json", params={"at": number})).json()
        assert shown["steps"] == rows_in(state, entries[number - 1]), number
        assert (shown["status"], shown["at"], shown["late"]) == (state.status, number, state.late)
        assert shown["branches"] == {name: each.signs for name, each in branches_in(state).items()}


async def test_page_at_each_message_is_what_the_messages_so_far_say(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    merging, late, tried = asyncio.Event(), asyncio.Event(), set[int]()

    async def each(item: int) -> int:
        if item == 3:
            await merging.wait()  # too late
        if item == 1 and item not in tried:
            tried.add(item)
            raise RuntimeError("again, please")
        if item == 2:
            raise ValueError("never")
        return item

    async def waits(each: list[int]) -> int:
        merging.set()
        await late.wait()
        if not tried & {9}:
            tried.add(9)
            raise RuntimeError("the merger, too")
        return sum(each)

    async with (
        team(server.url, namespace, over_numbers(JoinPolicy(wait=2)), {"each": each, "merge": waits}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(numbers=[0, 1, 2, 3])
        await merging.wait()
        async with asyncio.timeout(20):  # until nothing is left but the merger
            while not {"each-2", "each-3"} <= {n for n, s in (await t.state(run)).steps.items() if s.ended_at}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        late.set()
        assert (await t.result(run)).status == "done"
        state = await t.state(run)
        assert state.late
        assert any(step.retries for step in state.steps.values())
        assert any(step.status == "failed" for step in state.steps.values())
        await assert_each_message_is_shown_as_the_fold_has_it(console, t, run)

        fork = await t.client.fork(run)
        await fork.ended(20)
        await assert_each_message_is_shown_as_the_fold_has_it(console, t, fork.id)
        page = await console.get(f"/runs/{fork.id}")
        assert f'href="/runs/{run}"' in page.text
        assert f'data-key="D" href="/compare/{run}/{fork.id}"' in page.text


class Following:
    """A stream of a page, and what it has sent of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self.said: dict[str, str] = {}
        """What it said last in events that have a name."""
        self._text: list[str] = []
        self._name = ""

    def take(self, line: str) -> None:
        if line.startswith("event: "):
            self._name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            self._text.append(line.removeprefix("data: "))
        elif not line:
            text = "\n".join(self._text)
            if self._name:
                self.said[self._name] = text
            else:
                self.parts |= dict(PARTIAL.findall(text))
            self._text, self._name = [], ""


@asynccontextmanager
async def following(console: Served, path: str, *, at_once: bool = False) -> AsyncIterator[Following]:
    """Follow a page while the context is open; it has its first parts, unless `at_once`."""
    found = Following()
    begun = asyncio.Event()

    async def follow() -> None:
        async with console.http.stream("GET", "/live", params={"of": path}, timeout=None) as answer:
            async for line in answer.aiter_lines():
                found.take(line)
                if found.parts:
                    begun.set()

    task = asyncio.create_task(follow())
    try:
        if not at_once:
            await asyncio.wait([task, asyncio.ensure_future(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_page_that_was_followed_is_the_page_that_is_loaded_anew(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    tried = set[int]()

    async def each(item: int) -> int:
        if item % 3 == 1 and item not in tried:
            tried.add(item)
            raise RuntimeError(f"no {item}")
        if item % 7 == 2:
            raise ValueError(f"never {item}")
        return item

    async with (
        team(server.url, namespace, over_numbers(), {"each": each, "merge": merge}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(numbers=list(range(40)))
        async with following(console, f"/runs/{run}") as live:
            assert (await t.result(run)).status == "done"
            await until(lambda: 'class="state done"' in live.parts["head"])
            loaded = dict(PARTIAL.findall((await console.get("/parts", params={"of": f"/runs/{run}"})).text))
            await until(lambda: {**live.parts, "status": ""} == {**loaded, "status": ""})
            whole = (await console.get(f"/runs/{run}")).text
            assert all(part in whole for name, part in live.parts.items() if name != "status")


async def test_thousand_branches_are_the_cells_that_the_fold_has(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def each(item: int) -> int:
        if item % 50 == 7:
            raise ValueError(f"no title in piece {item}")
        return item

    flow = over_numbers(each={"max_attempts": 1})
    async with (
        team(server.url, namespace, flow, {"each": each, "merge": merge}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(numbers=list(range(1_000)))
        assert (await t.result(run)).status == "done"
        entries = await t.log(run)
        for number in (None, len(entries) // 2):
            page = await console.get(f"/runs/{run}", params={"at": number} if number else {})
            (cells,) = re.findall(r'data-cells="([^"]*)"', page.text)
            assert cells == branches_in(fold(entries[:number]))["each"].signs
            assert len(cells) == 1_000
        assert (cells.count("f"), cells.count(".")) != (0, 0)

        path = f"/runs/{run}/steps/each"
        failures = (await console.get(path, params={"status": "failed"})).text
        assert {*re.findall(r'id="branch-(\d+)"', failures)} == {str(n) for n in range(7, 1_000, 50)}
        (cause,) = set(re.findall(r"cause=(\w+)", failures))
        assert "20 of 1,000" in (await console.get(path, params={"cause": cause})).text
        one = (await console.get(path, params={"text": "PIECE 957"})).text
        assert re.findall(r'id="branch-(\d+)"', one) == ["957"]
        first = (await console.get(path)).text
        assert {*re.findall(r'id="branch-(\d+)"', first)[:20]} == {str(n) for n in range(7, 1_000, 50)}
        assert "No branch fits" in (await console.get(path, params={"text": "nothing like it"})).text
        refused = await console.get(path, params={"status": "fast"})
        assert (refused.status_code, "the status &#39;fast&#39; is none of" in refused.text) == (400, True)
        assert len((await console.get(f"{path}.json")).json()["branches"]) == 1_000


async def test_message_is_shown_with_what_it_brought_its_bytes_and_its_headers(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def double(value: int) -> int:
        return value * 2

    flow = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
    async with (
        team(server.url, namespace, flow, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(value=21)
        await t.result(run)
        entries = await t.log(run)
        last = len(entries)
        page = await console.get(f"/runs/{run}/messages/{last}")
        assert page.status_code == 200
        assert html.escape(entries[-1].subject) in page.text
        assert "put out" in page.text
        assert "<dt>Nats-" in page.text
        assert f'data-key="ArrowLeft" data-step href="/runs/{run}/messages/{last - 1}"' in page.text
        assert 'data-key="ArrowRight"' not in page.text
        assert '<tr id="step-do"' in page.text
        assert 'class="changed"' in page.text
        facts = (await console.get(f"/runs/{run}/messages/{last}.json")).json()
        assert (facts["seq"], facts["changed"]) == (entries[-1].seq, ["do"])
        assert facts["message"] == msgspec.json.decode(entries[-1].data)

        for wrong in (0, last + 1, "x", "9" * 40):
            assert (await console.get(f"/runs/{run}/messages/{wrong}")).status_code == 400
        beyond = await console.get(f"/runs/{run}", params={"at": last + 1})
        assert (beyond.status_code, f"has {last} messages" in beyond.text) == (400, True)
        # A time names the last message until then.
        assert (await console.get(f"/runs/{run}.json", params={"at": "0ms"})).json()["at"] == 1
        assert (await console.get(f"/runs/{run}.json", params={"at": "999999ms"})).json()["at"] == last

        exported = await console.get(f"/runs/{run}/export")
        assert exported.content == b"".join(map(dump, entries))
        assert f'filename="{run}.jsonl"' in exported.headers["content-disposition"]


async def test_log_is_shown_a_page_at_a_time(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async def each(item: int) -> int:
        return item

    async with (
        team(server.url, namespace, over_numbers(), {"each": each, "merge": merge}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(numbers=list(range(150)))
        await t.result(run)
        count = len(await t.log(run))

        async def lines(**given: Any) -> list[int]:
            page = await console.get(f"/runs/{run}", params=given)
            return [int(number) for number in re.findall(r'<li id="m(\d+)"', page.text)]

        assert await lines() == list(range(count - 49, count + 1))
        assert await lines(log=1) == list(range(1, 201))
        assert await lines(log=201) == list(range(201, min(count, 400) + 1))
        assert await lines(at=60) == list(range(51, 101))


async def test_texts_of_a_run_are_shown_as_texts(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    bad = '</script><script>x</script><img onerror=y> <b hx-get="/">\r\n\ndata: forged \x1b[31m \u202e \'"'

    async def fails(text: str) -> str:
        raise ValueError(text)

    flow = flow_of({"do": Step(agent="do")}, {"text": Field(type="str")}, {"do": {"max_attempts": 1}})
    async with (
        team(server.url, namespace, flow, {"do": fails}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(text=bad)
        assert (await t.result(run)).status == "failed"
        for path in (f"/runs/{run}", f"/runs/{run}?at=1", f"/runs/{run}/messages/1", f"/runs/{run}/messages/2"):
            page = (await console.get(path)).text
            assert "onerror" in page
            assert not re.findall(r"<(?:img|b hx)|<script>x", page)
        async with following(console, f"/runs/{run}") as live:
            await until(lambda: "onerror" in live.parts.get("output", ""))
            assert not re.findall(r"<(?:img|b hx)|<script>x", "".join(live.parts.values()))


def test_part_is_sent_no_sooner_than_its_pace_and_what_came_meanwhile_is_sent_then() -> None:
    page = Page(template="", title="", facts={}, paces={"slow": 1.0})
    parts = _Parts()

    def sent(now: float, **made: str) -> dict[str, str]:
        due = parts.due(page, now)
        return dict(parts.changed([(name, text) for name, text in made.items() if due(name)], now))

    assert sent(0.0, slow="1", fast="1") == {"slow": "1", "fast": "1"}
    assert sent(0.1, slow="2", fast="2") == {"fast": "2"}
    assert (parts.held, parts.next_at) == ({"slow"}, 1.0)
    assert sent(0.2, slow="3", fast="2") == {}
    assert sent(1.0, slow="3", fast="2") == {"slow": "3"}
    assert parts.held == set()
