"""Flows in the console: which there are, and a task that is sent by a form, with mistakes at their fields."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step
from baton_schemas.show.rows import rows_of
from baton_schemas.show.step_figures import nearest
from baton_schemas.wire.names import sortable_id

from .consoles import Served, served
from .servers import NatsServer
from .team import flow_of, team
from .timed import until_so

FORM = """
name = "form"
[input]
topic = { description = "what it is <i>about</i>" }
count = { type = "int", default = 3 }
tone = ["dry", "warm"]
tags = { type = "list[str]", default = ["a"] }
who = { type = "dict?", fields = { name = {}, age = { type = "int?" } } }
doc = { type = "file?" }
more = { type = "list[file]", default = [] }
sure = { type = "bool", default = true }
[agents.write]
model = "worker"
prompt = "About {topic}"
[steps.write]
"""


@pytest.fixture
async def console(
    server: NatsServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A console in a directory with a flow, and with a file that is none."""
    (tmp_path / "form.toml").write_text(FORM)
    (tmp_path / "broken.toml").write_text(FORM.replace('"form"', '"<b>bad"'))
    monkeypatch.chdir(tmp_path)
    settings = Settings(url=server.url, namespace=namespace)
    async with served(settings, tmp_path / "index.sqlite") as found:
        yield found


async def send(
    console: Served, fields: dict[str, Any], files: list[tuple[str, tuple[str, bytes]]] | None = None
) -> httpx2.Response:
    given = {name if name in ("run", "budget") else f"input.{name}": value for name, value in fields.items()}
    return await console.post("/flows/form/send", given, files=files or [("none", ("", b""))])


async def input_of(console: Served, run: str) -> dict[str, Any]:
    state = await console.console.client.run(run).state()
    return {name: msgspec.json.decode(value) for name, value in state.input.items()}


async def test_flows_are_those_shipped_those_in_files_and_those_of_runs(
    server: NatsServer, namespace: str, tmp_path: Path, console: Served
) -> None:
    listed = {each["flow"]: each for each in (await console.get("/flows.json")).json()}
    assert listed["ask"]["found"] == "shipped"
    assert (listed["form"]["source"], listed["form"]["takes"][:3]) == ("./form.toml", ["topic*", "count", "tone*"])
    page = await console.get("/flows")
    assert "broken.toml" in page.text
    assert "&lt;b&gt;bad" in page.text
    assert "<b>bad" not in page.text
    assert "baton up ask" in page.text  # no runs, and nobody plays the first flow
    own = flow_of({"one": Step(agent="one")}, {"value": Field(type="int")})
    async with team(server.url, namespace, own, {"one": lambda value: value}) as t:
        run = await t.submit(value=1)
        assert (await t.result(run)).status == "done"

        async def is_listed() -> bool:
            found = {each["flow"]: each for each in (await console.get("/flows.json")).json()}
            return bool("flow" in found and found["flow"]["figures"]["by_status"] == {"done": 1})

        await until_so(is_listed)
        one = (await console.get("/flows/flow.json")).json()
        assert (one["source"], [each["runs"] for each in one["versions"]]) == ("", [1])
        assert one["actors"] == [{"actor": "flow--one", "played": "somebody", "waiting": 0}]
        assert one["versions"][0]["digest"] == one["digest"] == t.plan.digest
        # One that is in the log only can be sent: it is the version that its last run had.
        answer = await console.post("/flows/flow/send", {"run": sortable_id(), "input.value": "5"})
        again = answer.headers["location"].rpartition("/")[2]
        assert (await t.client.run(again).ended(10)).status == "done"
    assert (await console.get("/flows/nosuchflow")).status_code == 404
    assert "ask" in (await console.get("/flows/aks")).text


async def test_form_has_a_field_for_each_input_and_addresses_fill_it_in(console: Served) -> None:
    page = await console.get("/flows/form/send", params={"topic": '"><script>x</script>', "tone": "warm"})
    assert page.status_code == 200
    assert "what it is &lt;i&gt;about&lt;/i&gt;" in page.text
    assert "&lt;script&gt;x&lt;/script&gt;</textarea>" in page.text
    assert "<option selected>warm</option>" in page.text
    assert "as by default: true" in page.text
    assert page.text.count('type="file"') == 2
    runs = {re.search(r'name="run" value="([^"]+)"', (await console.get("/flows/form/send")).text)[1] for _ in "ab"}  # type: ignore[index]
    assert len(runs) == 2
    assert "baton submit ./form.toml" in page.text


async def test_values_are_as_their_types_want_them_and_sent_twice_it_is_one_run(console: Served) -> None:
    run = sortable_id()
    fields = {
        "run": run,
        "topic": "two\r\nlines",
        "count": " 7 ",
        "tone": "dry",
        "tags": "x\r\ny y\r\n",
        "who": '{"name": "ann"}',
        "sure": "false",
    }
    files = [("input.doc", ("a.txt", b"hello")), ("input.more", ("b.txt", b"1")), ("input.more", ("c.txt", b"2"))]
    answers = await asyncio.gather(*(send(console, fields, files) for _ in range(3)))
    assert {(each.status_code, each.headers.get("location")) for each in answers} == {(303, f"/runs/{run}")}
    assert len(await console.console.client.runs()) == 1
    given = await input_of(console, run)
    assert [given[name] for name in ("topic", "count", "tone", "tags", "sure")] == [
        "two\nlines",
        7,
        "dry",
        ["x", "y y"],
        False,
    ]
    assert given["who"]["name"] == "ann"
    assert given["doc"]["file"]["name"] == "a.txt"
    assert [each["file"]["name"] for each in given["more"]] == ["b.txt", "c.txt"]
    assert await console.console.client.download(given["more"][1]) == b"2"
    # What is empty is as by default.
    other = sortable_id()
    assert (await send(console, {"run": other, "topic": "t", "tone": "warm", "count": ""})).status_code == 303
    given = await input_of(console, other)
    assert (given["count"], given["tags"], given["sure"], given["doc"]) == (3, ["a"], True, None)


async def test_each_mistake_is_told_at_its_field_and_what_was_typed_is_kept(console: Served) -> None:
    fields = {
        "run": sortable_id(),
        "topic": "  ",
        "count": "many <b>",
        "tone": "loud",
        "tags": '["x", 1]',
        "who": '{"age": 3',
    }
    page = await send(console, fields)
    assert page.status_code == 422
    wrong = dict(re.findall(r'id="input\.(\w+)-wrong" role="alert">([^<]+)<', page.text))
    assert set(wrong) == {"topic", "count", "tone", "tags", "who"}
    assert "expected a whole number" in wrong["count"]
    assert "missing" in wrong["topic"]
    assert "tags[1]" in wrong["tags"]
    assert 'value="many &lt;b&gt;"' in page.text
    assert "{&#34;age&#34;: 3</textarea>" in page.text
    assert f'name="run" value="{fields["run"]}"' in page.text
    missing = await send(console, {"run": sortable_id(), "topic": "t", "tone": "dry", "who": '{"age": 3}'})
    assert "who.name" in missing.text
    wrong_file = await send(
        console, {"run": sortable_id(), "topic": "t", "tone": "dry"}, [("input.doc", ("a.pdf", b"no pdf"))]
    )
    assert wrong_file.status_code == 422
    budget = await send(console, {"run": sortable_id(), "topic": "t", "tone": "dry", "budget": "much"})
    assert (budget.status_code, "budget" in budget.text) == (422, True)
    assert await console.console.client.runs() == []


async def test_form_that_was_sent_and_then_changed_is_told_of_the_run_that_it_began(console: Served) -> None:
    run = sortable_id()
    fields = {"run": run, "topic": "t", "tone": "dry"}
    assert (await send(console, fields)).status_code == 303
    changed = await send(console, {**fields, "topic": "another"})
    assert changed.status_code == 409
    assert f'href="/runs/{run}"' in changed.text
    found = re.search(r'name="run" value="([^"]+)"', changed.text)
    assert found is not None
    assert found[1] != run
    assert (await send(console, {**fields, "run": found[1], "topic": "another"})).status_code == 303
    for bad in ("", "a.b", "x" * 65, "a b", "../x"):
        assert (await send(console, {**fields, "run": bad})).status_code == 400, bad
    assert len(await console.console.client.runs()) == 2


async def test_flow_is_drawn_with_what_is_in_its_steps_now_and_what_they_took_lately(
    server: NatsServer, namespace: str, tmp_path: Path, console: Served
) -> None:
    going = asyncio.Event()

    async def each(item: int) -> int:
        if item:
            await going.wait()
        return item

    async def merge(each: list[int]) -> int:
        return sum(each)

    steps = {"each": Step(agent="each", each="numbers"), "merge": Step(agent="merge", after=["each"])}
    flow = flow_of(steps, {"numbers": Field(type="list[int]")})
    async with team(server.url, namespace, flow, {"each": each, "merge": merge}) as t:
        runs = [await t.submit(numbers=[0, 1, 2, 3]) for _ in range(2)]

        async def steps_now() -> dict[str, Any]:
            found = (await console.get("/flows/flow.json")).json().get("steps")  # not before the index has a run
            return dict(found) if found else {}

        async def are_open() -> bool:
            return bool((await steps_now()).get("now", {}).get("each", {}).get("open") == 6)

        await until_so(are_open)
        assert (await steps_now())["now"]["merge"] == {"open": 0, "joining": 2, "failed": 0}
        page = await console.get("/flows/flow")
        assert 'class="box running"' in page.text and ">6 now<" in page.text and ">2 joining<" in page.text
        assert 'class="edge open"' in page.text
        going.set()
        for run in runs:
            assert (await t.result(run)).status == "done"

        async def are_looked_at() -> bool:
            return bool((await steps_now())["runs"] == 2)

        await until_so(are_looked_at)
        found = await steps_now()
        assert found["now"] == {}
        rows = [row for run in runs for row in rows_of(await t.client.run(run).state(), t.plan)]
        for name in ("each", "merge"):
            took = sorted(row.elapsed_s for row in rows if row.step == name and row.elapsed_s is not None)
            figures = found["by_step"][name]
            assert (figures["times"], figures["p50_s"], figures["p95_s"]) == (2, took[0], took[1])
        assert "of the last 2 runs that are done" in (await console.get("/flows/flow")).text


@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_share_of_values_is_not_above_the_one_that_is_told(values: list[float]) -> None:
    for share in (0.5, 0.95):
        found = nearest(sorted(values), share)
        assert (found is None) == (not values)
        if found is not None:
            assert sum(value <= found for value in values) >= share * len(values)
            assert sum(value < found for value in values) < share * len(values)
