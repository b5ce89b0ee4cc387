"""Acts of the console: asked first, done once, whoever presses what how often, and by the client's calls only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

from baton_actors import Context
from baton_actors.console.acts import ACTS
from baton_actors.console.guard import Secrets
from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.state import RunState
from baton_schemas.wire.names import retry_run, sortable_id

from .consoles import Served, served
from .servers import WAIT_S, NatsServer
from .team import Team, flow_of, team
from .test_people import BOSS, Counted, until_parked
from .timed import process, timed, until_so

TWO = flow_of({"one": Step(agent="one"), "two": Step(agent="two", after=["one"])}, {"value": Field(type="int")})


class Two:
    """Two steps, of which the second fails until it is mended."""

    def __init__(self) -> None:
        self.ones, self.mended = 0, False

    async def one(self, value: int) -> int:
        self.ones += 1
        return value

    async def two(self, one: int) -> int:
        if not self.mended:
            raise ValueError(f"cannot do {one}")
        return one * 2

    @property
    def handlers(self) -> dict[str, Any]:
        return {"one": self.one, "two": self.two}


ONCE = {agent: {"max_attempts": 1} for agent in ("one", "two")}
FAILING = flow_of(dict(TWO.steps), {"value": Field(type="int")}, ONCE)


@asynccontextmanager
async def both(
    server: NatsServer, namespace: str, tmp_path: Path, two: Two, **options: Any
) -> AsyncIterator[tuple[Team, Served]]:
    """A team of these two, and a console."""
    async with (
        team(server.url, namespace, FAILING, two.handlers) as t,
        served(t.bus.settings, tmp_path / "index.sqlite", **options) as console,
    ):
        yield t, console


def field(page: httpx2.Response, name: str) -> str:
    """What a hidden field of a form holds."""
    found = re.search(rf'name="{re.escape(name)}" value="([^"]*)"', page.text)
    assert found is not None, page.text
    return found[1]


async def state(t: Team, run: str) -> RunState:
    await t.client.run(run, t.plan.flow.name).ended(WAIT_S)
    return await t.state(run)


async def test_retry_is_asked_first_and_pressed_twice_by_two_it_is_one_run(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two) as (t, console):
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "failed"
        page = await console.get(f"/runs/{run}/retry")
        assert page.status_code == 200
        assert "cannot do 4" in page.text
        assert "Takes over one" in page.text
        assert "autofocus" in page.text
        assert f"baton retry {run}" in page.text
        assert len(await t.client.runs()) == 1  # asking does nothing
        two.mended = True
        fields = {"digest": field(page, "digest")}
        answers = await asyncio.gather(*(console.post(f"/runs/{run}/retry", fields) for _ in range(6)))
        assert {each.status_code for each in answers} == {303}
        (path,) = {each.headers["location"] for each in answers}
        assert path == f"/runs/{retry_run(run)}"
        assert (await state(t, retry_run(run))).status == "done"
        assert two.ones == 1
        assert len(await t.client.runs()) == 2
        again = await console.get(f"/runs/{run}/retry")
        assert "It was retried" in again.text
        assert '<button class="confirms' not in again.text
        assert (await console.get(path)).status_code == 200


async def test_fork_has_its_id_from_the_form_and_says_what_is_taken_over(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    two = Two()
    two.mended = True
    async with both(server, namespace, tmp_path, two) as (t, console):
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "done"
        asked = await console.get(f"/runs/{run}/fork")
        assert f"/runs/{run}/fork?after=one" in asked.text
        page = await console.get(f"/runs/{run}/fork", params={"after": "one"})
        facts = (await console.get(f"/runs/{run}/fork.json", params={"after": "one"})).json()
        assert facts["reused"] == ["one"]
        assert [(each["step"], each["fate"]) for each in facts["steps"]] == [("one", "reused"), ("two", "again")]
        new = field(page, "new")
        fields = {"new": new, "after": "one", "digest": field(page, "digest")}
        first, second = await asyncio.gather(
            console.post(f"/runs/{run}/fork", fields), console.post(f"/runs/{run}/fork", fields)
        )
        assert first.headers["location"] == second.headers["location"] == f"/runs/{new}"
        forked = await state(t, new)
        assert (forked.forked_from, forked.status, two.ones) == (run, "done", 1)
        # Of another run, the id is not taken for this fork's.
        other = await t.submit(value=9)
        await t.result(other)
        taken = await console.post(f"/runs/{other}/fork", fields)
        assert (taken.status_code, f'href="/runs/{new}"' in taken.text) == (409, True)
        # A point by its number, as a message has it; one that there is not is told.
        at = await console.get(f"/runs/{run}/fork", params={"at": "1"})
        assert "Takes over no step" in at.text
        assert (await console.get(f"/runs/{run}/fork", params={"at": "999"})).status_code == 409
        assert (await console.get(f"/runs/{run}/fork", params={"at": "x"})).status_code == 400
        assert (await console.get(f"/runs/{run}/fork", params={"after": "nonsense"})).status_code == 409


async def test_cancel_says_who_did_it_and_the_second_changes_nothing(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        timed(server, namespace, BOSS, {"boss": Counted().boss}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(text="it")
        await until_parked(t, run)
        page = await console.get(f"/runs/{run}/cancel")
        assert "Cancel the run" in page.text
        first, second = await asyncio.gather(
            console.post(f"/runs/{run}/cancel", {"note": "not needed"}),
            console.post(f"/runs/{run}/cancel", {"note": "nor wanted"}),
        )
        assert first.headers["location"] == second.headers["location"] == f"/runs/{run}"
        ended = await state(t, run)
        assert ended.result is not None
        assert ended.result.status == "cancelled"
        reason = ended.result.reason
        assert reason.startswith(f"cancelled by {console.console.who}: no")
        assert (await console.post(f"/runs/{run}/cancel", {"note": "again"})).status_code == 303
        assert (await t.state(run)).result == ended.result
        assert "has ended" in (await console.get(f"/runs/{run}/cancel")).text


async def test_question_is_answered_once_with_who_and_mistakes_keep_what_was_typed(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def boss(text: str, context: Context) -> Any:
        first = await context.ask_person("editors", f"Publish {text}?", answers=["yes", "no"])
        score = await context.ask_person("chiefs", "Score?", returns=int)
        return f"{first} {score}"

    async with (
        timed(server, namespace, BOSS, {"boss": boss}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(text="<b>it</b>")
        await until_parked(t, run)
        listed = await console.get("/attention")
        assert "Publish &lt;b&gt;it&lt;/b&gt;?" in listed.text
        page = await console.get(f"/runs/{run}/answer", params={"step": "editors"})
        name = field(page, "step")
        wrong = await console.post(f"/runs/{run}/answer", {"step": name, "value": "perhaps", "note": "a <i>"})
        assert wrong.status_code == 422
        assert "found the string" in wrong.text
        assert 'value="a &lt;i&gt;"' in wrong.text
        fields = {"step": name, "value": "yes", "note": "fine"}
        both_of = await asyncio.gather(*(console.post(f"/runs/{run}/answer", fields) for _ in range(2)))
        assert sorted(each.status_code for each in both_of)[0] == 303
        assert {each.status_code for each in both_of} <= {303, 409}

        async def is_asked() -> bool:
            return (await console.get(f"/runs/{run}/answer", params={"step": "chiefs"})).status_code == 200

        await until_so(is_asked)
        wrong = await console.post(f"/runs/{run}/answer", {"step": "chiefs", "value": "many"})
        assert (wrong.status_code, ">many<" in wrong.text or 'value="many"' in wrong.text) == (422, True)
        done = await console.post(f"/runs/{run}/answer", {"step": "chiefs", "value": "7", "back": "attention"})
        assert (done.status_code, done.headers["location"]) == (303, "/attention")
        ended = await state(t, run)
        assert ended.status == "done"
        answered = {step.answered_by for step in ended.steps.values() if step.asked == "person"}
        assert answered == {console.console.who}
        late = await console.post(f"/runs/{run}/answer", fields)
        assert late.status_code == 409


async def test_many_are_cancelled_and_retried_at_once_and_what_is_refused_is_told(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two) as (t, console):
        runs = [await t.submit(value=value) for value in range(3)]
        for run in runs:
            assert (await t.result(run)).status == "failed"
        page = await console.get("/acts/retry", params={"run": runs})
        assert "Retry 3 runs" in page.text
        assert all(run in page.text for run in runs)
        two.mended = True
        form = [("csrf", field(page, "csrf")), *(("run", run) for run in runs)]
        sent = [await post_raw(console, "/acts/retry", form) for _ in range(2)]
        assert [each.status_code for each in sent] == [303, 303]
        for run in runs:
            assert (await state(t, retry_run(run))).status == "done"
        assert len(await t.client.runs()) == 6
        shown = await console.get(sent[0].headers["location"])
        assert "Nothing to retry here" in shown.text
        assert all(retry_run(run) in shown.text for run in runs)
        # Of several, those that can be are, and the page says which were not and why.
        other = await t.submit(value=5)
        assert (await t.result(other)).status == "done"
        refused = await post_raw(console, "/acts/retry", [form[0], ("run", other), ("run", runs[0])])
        assert refused.status_code == 409
        assert "1 of 2 retried" in refused.text
        assert "is done, there is nothing to retry" in refused.text
        cancelled = await post_raw(console, "/acts/cancel", form)
        assert cancelled.status_code == 303
        assert "Nothing to cancel here" in (await console.get(cancelled.headers["location"])).text
        assert (await console.get("/acts/retry")).status_code == 400
        assert (await console.get("/acts/cancel", params={"run": ["nosuchrun"]})).text.count("no such run") == 1


async def test_reading_console_has_no_route_that_writes_and_shows_no_button(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two, read_only=True) as (t, console):
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "failed"
        pages = [
            "/attention",
            "/flows",
            "/flows/ask",
            "/flows/ask/send",
            f"/runs/{run}/retry",
            f"/runs/{run}/fork?after=one",
        ]
        pages += [f"/runs/{run}/cancel", f"/acts/retry?run={run}"]
        for path in pages:
            page = await console.get(path)
            assert page.status_code == 200, path
            assert 'method="post"' not in page.text, path
        assert f"baton retry {run}" in (await console.get(f"/runs/{run}/retry")).text
        for path in ACTS:
            there = path.format(run=run, flow="ask")
            assert (await console.post(there, {"run": sortable_id()})).status_code in (404, 405), path
        assert len(await t.client.runs()) == 1


async def test_fork_under_a_flow_that_changed_after_the_page_was_made_is_refused(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two) as (t, console):
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "failed"
        refused = await console.post(f"/runs/{run}/retry", {"digest": "of another version"})
        assert refused.status_code == 409
        assert "its file was changed since" in refused.text
        assert len(await t.client.runs()) == 1


async def test_acts_on_a_run_that_is_none_say_so(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        for act in ("retry", "fork", "cancel", "answer", "allow"):
            assert (await console.get(f"/runs/nosuchrun/{act}")).status_code == 404, act
            fields = {"new": sortable_id(), "budget": "1", "step": "x"}
            assert (await console.post(f"/runs/nosuchrun/{act}", fields)).status_code == 404, act


async def test_act_on_a_part_of_an_id_does_nothing(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two) as (t, console):
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "failed"
        for part in (run[:-1], run[4:], run[-4:]):
            assert (await console.get(f"/runs/{part}/retry")).status_code == 200  # asks, and names it in full
            for act in ("retry", "fork", "cancel", "answer", "allow"):
                fields = {"new": sortable_id(), "after": "one", "budget": "1", "step": "x"}
                assert (await console.post(f"/runs/{part}/{act}", fields)).status_code == 404, act
        refused = await post_raw(console, "/acts/retry", [("csrf", csrf_of(console)), ("run", run[:-1])])
        assert "0 of 1 retried" in refused.text
        assert len(await t.client.runs()) == 1


def csrf_of(console: Served) -> str:
    return Secrets(token=console.address.token).csrf


async def post_raw(console: Served, path: str, form: list[tuple[str, str]]) -> httpx2.Response:
    """Send a form in which a name comes several times."""
    headers = {
        "origin": console.address.url.rstrip("/"),
        "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    }
    return await console.http.post(path, content=urlencode(form), headers=headers)


async def test_answer_that_nobody_takes_yet_is_kept_and_the_page_says_so(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        timed(server, namespace, BOSS, {"boss": Counted().boss}, start=False) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        async with process(t):
            run = await t.submit(text="it")
            await until_parked(t, run)
        answered = await console.post(f"/runs/{run}/answer", {"step": "editors", "value": "yes"})
        assert answered.status_code == 303
        kept = await console.get(answered.headers["location"])
        assert (kept.status_code, "Your answer is kept" in kept.text) == (200, True)
        assert 'method="post"' not in kept.text
        async with process(t):
            assert (await t.client.run(run).ended(WAIT_S)).status == "done"
