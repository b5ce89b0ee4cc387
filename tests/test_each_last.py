"""A step with `each` that is the last of its flow, and one that joins before it fans out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from baton_actors import Baton, Branch, Flow
from baton_actors.agents.fitting import misfits
from baton_actors.agents.handlers import Handler
from baton_actors.cli.commands.graph import _facts
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.errors import Fail
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Agent, Field, JoinPolicy, Step
from baton_schemas.flow.flow import Flow as WrittenFlow
from baton_schemas.run.branches import BranchEnd, BranchEnds, came_of, ends_of
from baton_schemas.run.fold import fold
from baton_schemas.run.refs import StepRef, parse
from baton_schemas.show.rows import rows_of
from baton_schemas.show.seeing import see, wanted
from baton_schemas.show.step import step_of
from baton_schemas.wire import codec
from baton_schemas.wire.messages import FIRST, VERSION
from baton_schemas.wire.outcomes import Done, Error, Failed

from .clients import fork_run
from .dying import MORTAL, at_once, dying
from .servers import WAIT_S, NatsServer
from .team import flow_of, team, value_of
from .timed import SOON_S, timed, until_so

TOPICS = {"topics": Field(type="list[str]")}
LAST = Step(agent="read", each="topics")


async def read(item: str) -> str:
    if item.startswith("bad"):
        raise Fail(f"{item} is no page")
    return item.upper()


def last(join: JoinPolicy | None = None, **step: Any) -> WrittenFlow:
    return flow_of({"read": Step(agent="read", each="topics", join=join, **step)}, TOPICS)


# ---- the last step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [[], ["a"], ["c", "a", "b"], [str(number) for number in range(30)]])
async def test_run_puts_out_what_its_branches_do_in_the_order_of_the_list(
    topics: list[str], server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, last(), {"read": read}) as t:
        result = await t.run(topics=topics)
        assert (result.status, value_of(result.outcome)) == ("done", [topic.upper() for topic in topics])


async def test_list_of_nothing_that_a_step_puts_out_is_put_out(server: NatsServer, namespace: str) -> None:
    async def plan(topics: list[str]) -> dict[str, list[str]]:
        return {"pages": topics}

    flow = flow_of({"plan": Step(agent="plan"), "read": Step(agent="read", each="plan.pages")}, TOPICS)
    async with team(server.url, namespace, flow, {"plan": plan, "read": read}) as t:
        assert value_of((await t.run(topics=[])).outcome) == []
        assert value_of((await t.run(topics=["x"])).outcome) == ["X"]


async def test_branch_that_fails_ends_the_run_unless_its_step_or_its_join_says_otherwise(
    server: NatsServer, namespace: str
) -> None:
    topics = ["a", "bad", "c"]
    async with team(server.url, f"{namespace}-1", last(), {"read": read}) as t:
        result = await t.run(topics=topics)
        assert (result.status, result.step) == ("failed", "read-1")
    skips = [last(on_error="continue"), last(JoinPolicy(failed="skip"))]
    for number, flow in enumerate(skips):
        async with team(server.url, f"{namespace}-2{number}", flow, {"read": read}) as t:
            assert value_of((await t.run(topics=topics)).outcome) == ["A", "C"]
    async with team(server.url, f"{namespace}-3", last(JoinPolicy(failed="pass")), {"read": read}) as t:
        first, second, third = value_of((await t.run(topics=topics)).outcome)
        assert (first, third) == ("A", "C")
        assert second["error"]["step"] == "read-1"
        assert "bad is no page" in second["error"]["message"]


async def test_list_that_falls_short_fails_the_run_and_names_the_step_that_is_written(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, last(JoinPolicy(failed="skip", min_done=2)), {"read": read}) as t:
        result = await t.run(topics=["a", "bad"])
        assert isinstance(result.outcome, Failed)
        assert (result.status, result.outcome.error.step, result.outcome.error.type) == ("failed", "read", "JoinShort")


async def test_list_of_the_first_that_end_well_has_no_more(server: NatsServer, namespace: str) -> None:
    go_on = asyncio.Event()

    async def waits(item: str) -> str:
        if item == "slow":
            await go_on.wait()
        return item

    async with team(server.url, namespace, last(JoinPolicy(wait=2)), {"read": waits}) as t:
        result = await t.run(topics=["slow", "a", "b"])
        assert value_of(result.outcome) == ["a", "b"]
        go_on.set()


async def test_list_whose_time_is_up_has_what_is_there(server: NatsServer, namespace: str) -> None:
    go_on = asyncio.Event()

    async def waits(item: str) -> str:
        if item == "slow":
            await go_on.wait()
        return item

    async with timed(server, namespace, last(JoinPolicy(deadline_s=SOON_S)), {"read": waits}) as t:
        assert value_of((await t.run(topics=["slow", "a", "b"])).outcome) == ["a", "b"]
        go_on.set()


async def test_list_larger_than_a_message_is_put_out(server: NatsServer, namespace: str) -> None:
    async def long(item: str) -> str:
        return item * 100_000

    async with team(server.url, namespace, last(), {"read": long}) as t:
        outcome = (await t.run(topics=["a", "b", "c", "d"])).outcome
        assert isinstance(outcome, Done)
        assert outcome.blob is not None
        whole = msgspec.json.decode(await t.bus.blobs.get(outcome.blob))
        assert whole == [letter * 100_000 for letter in "abcd"]


# ---- a step that joins -----------------------------------------------------------------------------


def joining(*, join: JoinPolicy | None = None, on_error: Any = None, **more: Step) -> WrittenFlow:
    """Two first steps, of which one has a list; a fan-out over it that waits for both; its list is put out."""
    steps = {
        "plan": Step(agent="plan"),
        "rules": Step(agent="rules", on_error="continue"),
        "read": Step(agent="read", after=["plan", "rules"], each="plan.pages", join=join, on_error=on_error),
    }
    return flow_of({**steps, **more}, TOPICS)


async def plan(topics: list[str]) -> dict[str, list[str]]:
    return {"pages": topics}


async def rules(topics: list[str]) -> str:
    if "rules" in topics:
        raise Fail("no rules")
    return f"{len(topics)} rules"


async def read_by(item: str, index: int, rules: str | None, plan: dict[str, list[str]], errors: list[Error]) -> str:
    assert plan["pages"][index] == item
    return f"{item} by {rules or errors[0].message}"


JOINING = {"plan": plan, "rules": rules, "read": read_by}


async def test_fan_out_that_joins_sees_all_that_it_waits_for(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, joining(), JOINING) as t:
        assert value_of((await t.run(topics=["a", "b"])).outcome) == ["a by 2 rules", "b by 2 rules"]
        assert value_of((await t.run(topics=[])).outcome) == []
        assert value_of((await t.run(topics=["rules"])).outcome) == ["rules by no rules"]
        state = await t.state(await t.submit("r1", topics=["a"]))
        assert state.run == "r1"


async def test_fan_out_over_what_a_fan_out_did_begins_when_all_of_that_is_done(
    server: NatsServer, namespace: str
) -> None:
    seen: list[int] = []

    async def count(item: str, read: list[str]) -> int:
        seen.append(len(read))
        return len(item)

    steps = {"read": LAST, "count": Step(agent="count", each="read")}
    async with team(server.url, namespace, flow_of(steps, TOPICS), {"read": read, "count": count}) as t:
        assert value_of((await t.run(topics=["a", "bb", "ccc"])).outcome) == [1, 2, 3]
        assert seen == [3, 3, 3]
        assert value_of((await t.run(topics=[])).outcome) == []


@pytest.mark.parametrize(("on_error", "status"), [("fail", "failed"), ("continue", "done")])
async def test_join_that_falls_short_before_a_fan_out_is_the_failure_of_its_step(
    on_error: str, status: str, server: NatsServer, namespace: str
) -> None:
    async def after(read: list[str] | None, errors: list[Error]) -> list[str]:
        return [f"{error.step}: {error.type}" for error in errors]

    flow = joining(join=JoinPolicy(min_done=2), on_error=on_error, after=Step(agent="after", after=["read"]))
    async with team(server.url, namespace, flow, {**JOINING, "after": after}) as t:
        result = await t.run(topics=["rules", "b"])
        assert (result.status, result.step) == (status, "after" if status == "done" else "read--join")
        if status == "done":
            assert value_of(result.outcome) == ["rules: Fail", "read: JoinShort"]
        else:
            assert isinstance(result.outcome, Failed)
            assert result.outcome.error.step == "read"


async def test_what_is_no_list_when_all_is_there_is_the_failure_of_the_join(server: NatsServer, namespace: str) -> None:
    async def no_list(topics: list[str]) -> Any:
        return {"pages": "x"}

    async with team(server.url, namespace, joining(), {**JOINING, "plan": no_list}) as t:
        result = await t.run(topics=["a"])
        assert isinstance(result.outcome, Failed)
        assert (result.step, result.outcome.error.type) == ("read--join", "BadOutput")
        assert "'plan.pages' is to be fanned out over: expected a list, found a string" in str(result.outcome.error)


async def test_handler_after_an_implied_join_gets_each_branch_with_its_place_and_item(
    server: NatsServer, namespace: str
) -> None:
    asked: list[list[Branch[str]]] = []

    async def count(item: str, read: list[Branch[str]]) -> str:
        asked.append(read)
        return item.lower()

    steps = {
        "read": Step(agent="read", each="topics", on_error="continue"),
        "count": Step(agent="count", each="read", concurrency=1),
    }
    async with team(server.url, namespace, flow_of(steps, TOPICS), {"read": read, "count": count}) as t:
        assert value_of((await t.run(topics=["a", "bad", "c"])).outcome) == ["a", "c"]
        assert [(each.index, each.item, each.value) for each in asked[0]] == [
            (0, "a", "A"),
            (1, "bad", None),
            (2, "c", "C"),
        ]
        assert asked[0][1].error is not None
        assert asked[0][1].error.step == "read-1"
        assert asked[0] == asked[1]
        assert value_of((await t.run(topics=["a", "c"])).outcome) == ["a", "c"]
        assert [each.value for each in asked[2]] == ["A", "C"]


@pytest.mark.parametrize("failed", ["skip", "pass"])
def test_branches_that_were_joined_come_back_from_what_the_join_put_out(failed: Any) -> None:
    steps = {
        "read": Step(agent="x", each="topics"),
        "count": Step(agent="x", each="read", join=JoinPolicy(failed=failed)),
    }
    made = check_flow(WrittenFlow(name="f", input=TOPICS, agents={"x": Agent(handler="a:b")}, steps=steps))
    error = Error(step="read-3", type="Fail", message="no")
    ends = [BranchEnd(0, msgspec.Raw(b'"A"')), BranchEnd(3, None, error), BranchEnd(4, msgspec.Raw(b'"E"'))]
    found = BranchEnds(ends, 6, failed == "pass")
    listed = msgspec.Raw(b'["A","E"]' if failed == "skip" else b'["A",{"error":{}},"E"]')
    again = ends_of(made, "count", msgspec.Raw(came_of({"read": found})), {"read": listed})
    assert again == {"read": found}
    whole = BranchEnds([BranchEnd(0, msgspec.Raw(b"1"))], 1, failed == "pass")
    assert came_of({"read": whole}) == b"{}"
    assert ends_of(made, "count", msgspec.Raw(b"{}"), {"read": msgspec.Raw(b"[1]")}) == {"read": whole}


# ---- crashes ---------------------------------------------------------------------------------------


async def test_workers_that_die_between_any_two_writes_are_taken_over(server: NatsServer, namespace: str) -> None:
    steps = {"read": LAST, "count": Step(agent="count", each="read")}

    async def count(item: str) -> str:
        return item.lower()

    flow, handlers = flow_of(steps, TOPICS), {"read": read, "count": count}

    async def dies_after(writes: int) -> int:
        async with team(server.url, f"{namespace}-{writes}", flow, handlers, start=False, **MORTAL) as t:
            async with dying(t, writes) as process:
                run = await t.submit(topics=["a", "b"])
                ends = asyncio.create_task(t.result(run))
                dead = asyncio.create_task(process.until_dead())
                await asyncio.wait([ends, dead], return_when=asyncio.FIRST_COMPLETED)
                dead.cancel()
            async with t.process(grace_s=0.5):
                assert value_of((await ends).outcome) == ["a", "b"]
            return process.left

    left = await at_once(dies_after, 16)
    assert left[:9] == [0] * 9  # there are so many writes at the least
    assert left[-1] > 0  # and no more: it died in each of them


# ---- going on --------------------------------------------------------------------------------------


async def test_fork_does_again_only_the_branch_that_failed_and_makes_the_list(
    server: NatsServer, namespace: str
) -> None:
    calls: list[str] = []
    mended = False
    others = asyncio.Event()

    async def sometimes(item: str) -> str:
        calls.append(item)
        if item == "b" and not mended:
            await others.wait()
            raise Fail("not yet")
        return item.upper()

    async def count(item: str) -> str:
        calls.append(item)
        return item * 2

    steps = {"read": LAST, "count": Step(agent="count", each="read")}
    async with team(server.url, namespace, flow_of(steps, TOPICS), {"read": sometimes, "count": count}) as t:
        run = await t.submit(topics=["a", "b", "c"])

        async def two_are_done() -> bool:
            return (await t.kinds(run)).count("reply") == 2

        await until_so(two_are_done)
        others.set()
        assert (await t.result(run)).step == "read-1"
        calls.clear()
        mended = True
        forked = await fork_run(t.client, run)
        assert value_of((await t.result(forked)).outcome) == ["AA", "BB", "CC"]
        assert sorted(calls) == ["A", "B", "C", "b"]
        calls.clear()
        again = await fork_run(t.client, forked)
        assert value_of((await t.result(again)).outcome) == ["AA", "BB", "CC"]
        assert calls == []


# ---- other releases --------------------------------------------------------------------------------


def test_first_handoff_says_that_earlier_releases_cannot_do_the_run_and_the_digest_is_of_what_is_written() -> None:
    old = flow_of({"read": LAST, "all": Step(agent="all", after=["read"])}, TOPICS)
    assert check_flow(old).version == FIRST
    for flow in (last(), joining(), flow_of({"read": Step(agent="read", each="topics", concurrency=2)}, TOPICS)):
        made = check_flow(flow)
        assert made.version == VERSION
        assert made.flow is flow
        assert b"--" not in made.body


async def test_worker_of_an_earlier_release_gives_such_a_run_back_and_one_of_this_does_it(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.processes.worker.NEWER_RETRY_S", 0.05)
    async with team(server.url, namespace, last(), {"read": read}, start=False) as t:
        monkeypatch.setattr(codec, "VERSION", FIRST)
        async with t.process():
            run = (await t.client.start(t.plan, {"topics": ["a"]})).id

            async def has_come_again() -> bool:
                info = await t.bus.js.consumer_info(namespace, f"handoff-{t.actor('read')}")
                return bool(info.num_redelivered)

            await until_so(has_come_again)
        assert await t.kinds(run) == ["handoff"]
        monkeypatch.undo()
        async with t.process():
            assert value_of((await t.result(run)).outcome) == ["A"]


# ---- what people see -------------------------------------------------------------------------------

FILE = """
name = "pages"
input = { topics = "list[str]", title = "str" }
agents.read = { handler = "m:read", reads = ["topics"] }
agents.sum = { model = "worker", prompt = "Sum {item} of {read} up." }
agents.rate = { model = "worker", prompt = "{title}: rate {item}" }
steps.read = { each = "topics", concurrency = 5 }
steps.sum = { each = "read", join = { failed = "skip" } }
steps.rate = { after = ["read", "sum"], each = "sum", join = 3 }
"""


def test_graph_shows_the_flow_as_it_is_written() -> None:
    made = check_flow(load_flow(FILE))
    drawn = "\n".join(draw(made, 200))
    assert "--" not in drawn
    assert "\N{MULTIPLICATION SIGN} each topics, 5 at once" in drawn
    assert "joins the first 3" in drawn
    assert "puts out a list" in drawn
    listed = "\n".join(draw(made, 20))
    assert "rate  after read, sum" in listed
    assert "--join" not in listed
    chart = mermaid_of(made)
    assert '-->|"\N{MULTIPLICATION SIGN} each topics, 5 at once"| s0' in chart
    assert chart.endswith("out([output])\n  s2 --> out\n")
    facts = _facts(made)["steps"]
    assert [fact["step"] for fact in facts] == ["read", "sum", "rate"]
    assert [(fact["after"], fact["joins"], fact["concurrency"]) for fact in facts] == [
        ((), False, 5),
        (("read",), True, None),
        (("read", "sum"), True, None),
    ]


def test_types_of_a_fan_out_over_a_fan_out_are_checked_by_what_one_branch_puts_out() -> None:
    def one(item: str) -> dict[str, int]:
        return {"n": len(item)}

    def fits(item: dict[str, int], read: list[dict[str, int]]) -> int:
        return len(item) + len(read)

    def other(item: list[int]) -> int:
        return len(item)

    agents = {name: Agent(handler=f"m:{name}") for name in ("one", "fits", "other")}
    handlers = {"m:one": Handler(one), "m:fits": Handler(fits), "m:other": Handler(other)}
    for name, wrong in (("fits", []), ("other", ["steps.sum"])):
        steps = {"read": Step(agent="one", each="topics"), "sum": Step(agent=name, each="read")}
        used = {"one": agents["one"], name: agents[name]}
        made = check_flow(WrittenFlow(name="f", input=TOPICS, agents=used, steps=steps))
        assert [place for place, _ in misfits(made, handlers)] == wrong
    asked = check_flow(load_flow(FILE.replace('"m:read"', '"m:one"')))
    assert list(misfits(asked, handlers)) == []


async def test_show_names_what_is_implied_and_says_how_it_stands(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, last(), {"read": read}) as t:
        run = await t.submit(topics=["a", "b"])
        await t.result(run)
        state, entries = await t.state(run), await t.log(run)
        assert [(row.step, row.status) for row in rows_of(state, t.plan)] == [("read", "done"), ("read--list", "done")]
        listed = msgspec.Raw(b'["A","B"]')
        seen = see(t.plan, state, entries, step_of(t.plan, state, "read--list"))
        assert (seen.status, seen.values, seen.output) == ("done", {"read": listed}, listed)
        assert seen.asked is None
        assert state.result is not None
        assert state.result.step == "read--list"


async def test_prompt_after_an_implied_join_numbers_branches_by_their_places_also_where_it_is_shown() -> None:
    flow = Flow("asking", input={"topics": list[str]})
    flow.step(read, each="topics", on_error="continue")
    flow.ask("sum", "Sum {item} of:\n{read}", each="read")
    async with Baton.local(flow, data_dir=None) as t:
        run = await t.start(topics=["a", "bad" * 400, "c"])
        assert len(await run.result(WAIT_S)) == 2
        bus = t.client.bus
        entries = [entry async for entry in bus.log.read([bus.subjects.run(run.id)])]
        made, state = flow.check(), fold(entries)
        fetched = {blob.sha256: await bus.blobs.get(blob) for blob in wanted(made, state, entries, "sum-1")}
        seen = see(made, state, entries, "sum-1", fetched=fetched)
    assert seen.asked is not None
    assert seen.asked.prompt == "Sum C of:\n[1] A\n\n[3] C"
    assert seen.proof


def test_implied_steps_have_rounds_and_keys_of_their_own() -> None:
    for name in ("read--list", "read--join"):
        for ref in (StepRef(name), StepRef(name, round=2), StepRef(name, round=2, key="ab")):
            assert parse(ref.token) == ref


async def test_flow_that_is_built_in_python_may_end_in_a_fan_out() -> None:
    flow = Flow("built", input={"topics": list[str]})
    flow.step(read, each="topics", each_concurrency=2, concurrency=7, join={"failed": "skip"})
    made = flow.check()
    assert made.final == "read--list"
    assert (made.flow.steps["read"].concurrency, made.flow.agents["read"].concurrency) == (2, 7)
    assert made.join_policy("read--list").failed == "skip"
    assert isinstance(flow.found().functions["in-process:read"], Handler)
