"""An agent that is a flow: each of its steps is a run of that flow, whose end is the step's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_actors import Context, Fail
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.run.child_runs import parent_of, run_of_child, runs_asked
from baton_schemas.wire.outcomes import Done, Failed

from .nested_teams import TEXT, TEXTS, Hands, handled, inner, nested_team, one, over_texts
from .servers import NatsServer, until
from .team import value_of


async def test_step_is_a_run_of_its_own(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "A!"
        (child,) = await t.child_runs(run)
        assert child.startswith(f"{run}--k")
        assert await t.kinds(run) == ["handoff", "handoff", "answer", "result"]
        assert await t.kinds(child) == ["handoff", "handoff", "result"]
        _, first = await t.client.engine.runs.first(child)
        parent = parent_of(first)
        assert parent is not None
        assert (parent.run, parent.step, parent.actor) == (run, "whole", "outer--whole")


async def test_pipeline_per_item_has_no_barrier(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    texts = ["slow", *(f"t{number}" for number in range(1, 20))]
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run = await t.submit(texts=texts)
        # The last step of all others is done while the first item is still in its first.
        await until(lambda: sum(call.startswith("second") for call in hands.calls) == 19)
        assert "first slow" in hands.calls
        assert "second SLOW" not in hands.calls
        hands.open.set()
        assert value_of((await t.result(run)).outcome) == [f"{text.upper()}!" for text in texts]
        assert len(set(await t.child_runs(run))) == 20


async def test_a_thousand_items_take_a_bounded_number_of_messages_each(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run = await t.submit(texts=[f"t{number}" for number in range(1000)])
        outputs = value_of((await t.result(run)).outcome)
        assert outputs == [f"T{number}!" for number in range(1000)]
        assert len(hands.calls) == 2000
        info = await t.bus.js.stream_info(namespace)
        # Of each: its handoff, its child's, the run's three, the answer, the reply; once in a while a parking of two.
        assert info.state.messages <= 1000 * 9 + 100


async def test_what_is_given_comes_by_name_and_by_path(server: NatsServer, namespace: str) -> None:
    async def plan(about: str) -> dict[str, Any]:
        return {"topics": [{"name": f"{about} 1"}, {"name": f"{about} 2", "words": 7}]}

    async def write(topic: str, about: str, words: int, tone: str) -> list[Any]:
        return [topic, about, words, tone]

    async def merge(each: list[Any]) -> list[Any]:
        return each

    fields = {
        "topic": Field(),
        "about": Field(),
        "words": Field(type="int", default=Raw(b"3")),
        "tone": Field(default=Raw(b'"dry"')),
    }
    article = Flow(name="article", input=fields, agents=handled("write"), steps={"write": Step(agent="write")})
    flow = Flow(
        name="outer",
        input={"about": Field()},
        agents={
            "writer": Agent(flow="article", given={"topic": "item.name", "words": "item.words?"}),
            **handled("plan", "merge"),
        },
        steps={
            "plan": Step(agent="plan"),
            "each": Step(agent="writer", each="plan.topics"),
            "merge": Step(agent="merge", after=["each"]),
        },
        flows={"article": article},
    )
    async with nested_team(server, namespace, flow, {"plan": plan, "write": write, "merge": merge}) as t:
        found = value_of((await t.run(about="x")).outcome)
        assert found == [["x 1", "x", 3, "dry"], ["x 2", "x", 7, "dry"]]


async def test_path_that_leads_nowhere_fails_the_step(server: NatsServer, namespace: str) -> None:
    flow = over_texts()
    items = Field(type="list[dict]")
    agents = {**flow.agents, "whole": Agent(flow="inner", given={"text": "item.name"})}
    flow = replace(flow, input={"texts": items}, agents=agents)
    async with nested_team(server, namespace, flow, Hands().all) as t:
        outcome = (await t.run(texts=[{"nom": "a"}])).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "MissingValue"
        assert "has no 'name'; it has: nom" in outcome.error.message


async def test_large_output_comes_as_a_blob(server: NatsServer, namespace: str) -> None:
    async def first(text: str) -> str:
        return text * 300_000

    async def second(first: str) -> str:
        return first + "!"

    async with nested_team(server, namespace, one(), {"first": first, "second": second}) as t:
        run = await t.submit(text="a")
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Done)
        assert outcome.blob is not None
        (answer,) = await t.answers(run)
        assert isinstance(answer.outcome, Done)
        assert answer.outcome.blob == outcome.blob


async def test_large_input_is_a_blob_in_both_runs(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(), Hands().all) as t:
        run = await t.submit(text="a" * 300_000)
        await t.result(run)
        (child,) = await t.asked(run)
        _, first = await t.client.engine.runs.first(run_of_child(run, child.step))
        assert child.state.blobs == first.state.blobs
        assert list(child.state.blobs) == ["text"]


async def test_failed_run_is_the_failure_of_its_step(server: NatsServer, namespace: str) -> None:
    async with nested_team(server, namespace, one(), Hands().all) as t:
        run = await t.submit(text="bad")
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Failed)
        (child,) = await t.child_runs(run)
        assert outcome.error.type == "RunFailed"
        assert outcome.error.message == f"run {child} of flow 'inner' failed: step 'first': ValueError: bad"
        assert outcome.error.attempts == 1


async def test_failed_run_may_be_gone_on_from(server: NatsServer, namespace: str) -> None:
    async def merge(each: list[str], errors: list[Any]) -> list[Any]:
        return [each, [error["type"] for error in errors]]

    flow = over_texts(on_error="continue")
    flow = replace(flow, agents={**flow.agents, **handled("merge")})
    async with nested_team(server, namespace, flow, {**Hands().all, "merge": merge}) as t:
        assert value_of((await t.run(texts=["a", "bad", "c"])).outcome) == [["A!", "C!"], ["RunFailed"]]


async def test_runs_may_be_the_last_step_so_many_at_a_time(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    each = Step(agent="whole", each="texts", concurrency=2)
    flow = over_texts()
    flow = replace(flow, steps={"each": each}, agents={"whole": flow.agents["whole"]})
    async with nested_team(server, namespace, flow, hands.all) as t:
        run = await t.submit(texts=["slow", "b", "slow too", "d"])
        await until(lambda: {"second B", "second D"} <= set(hands.calls))  # one behind the other
        assert sum(call.startswith("first slow") for call in hands.calls) == 1
        hands.open.set()
        assert value_of((await t.result(run)).outcome) == ["SLOW!", "B!", "SLOW TOO!", "D!"]


async def test_flows_nest_three_deep(server: NatsServer, namespace: str) -> None:
    middle = replace(one(), name="middle")
    async with nested_team(server, namespace, one(middle), Hands().all) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "A!"
        (child,) = await t.child_runs(run)
        (grandchild,) = await t.child_runs(child)
        assert len({run, child, grandchild}) == 3


ASKING: dict[str, Any] = {"workers": ["writer"], "reads": ["text"]}


def asking(**boss: Any) -> Flow:
    """A handler that may ask for runs of the inner flow."""
    return Flow(
        name="outer",
        input=TEXT,
        agents={"writer": Agent(flow="inner"), **handled("boss", **ASKING | boss)},
        steps={"lead": Step(agent="boss")},
        flows={"inner": inner()},
    )


@pytest.mark.parametrize("named", ["writer", "inner"])
async def test_handler_runs_a_flow_by_the_name_of_the_agent_or_its_own(
    server: NatsServer, namespace: str, named: str
) -> None:
    async def boss(text: str, context: Context) -> list[Any]:
        return [await context.run_flow(named, text=text, returns=str), await context.ask("writer", text="b")]

    async with nested_team(server, namespace, asking(), {**Hands().all, "boss": boss}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == ["A!", "B!"]
        assert len(await t.child_runs(run)) == 2


async def test_plain_handler_runs_a_flow(server: NatsServer, namespace: str) -> None:
    def boss(text: str, context: Context) -> Any:
        return context.run_flow("writer", text=text)

    async with nested_team(server, namespace, asking(), {**Hands().all, "boss": boss}) as t:
        assert value_of((await t.run(text="a")).outcome) == "A!"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("wirter", {"text": "a"}, "Did you mean 'writer'?"),
        ("", {"text": "a"}, "the name of the flow is empty"),
        ("writer", {}, "agent 'writer', input 'text': missing"),
        ("writer", {"text": 1}, "expected str"),
        ("writer", {"text": "a", "txt": "b"}, "no such input"),
        ("writer", {"text": "\ud800"}, "a lone surrogate"),
    ],
)
async def test_run_that_cannot_be_is_refused(
    server: NatsServer, namespace: str, name: str, given: dict[str, Any], said: str
) -> None:
    async def boss(text: str, context: Context) -> Any:
        return await context.run_flow(name, **given)

    async with nested_team(server, namespace, asking(), {**Hands().all, "boss": boss}) as t:
        run = await t.submit(text="a")
        outcome = (await t.result(run)).outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "AskRefused"
        assert said in outcome.error.message
        assert await t.asked(run) == []


async def test_step_that_waits_for_a_run_is_parked_and_comes_back(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, one(agent={"park_after_s": 0.1}), hands.all) as t:
        run = await t.submit(text="slow")
        await t.until_settled("handoff", "whole")
        assert (await t.state(run)).steps["whole"].waits == "an answer of whole"
        hands.open.set()
        assert value_of((await t.result(run)).outcome) == "SLOW!"
        assert hands.calls == ["first slow", "second SLOW"]


async def test_run_that_nobody_asked_for_has_no_parent(server: NatsServer, namespace: str) -> None:
    """A stranger's id may look like that of a child: the first handoff says what it is."""
    async with nested_team(server, namespace, one(), Hands().all) as t:
        run = await t.submit("mine--k0123456789abcdefghjk", text="a")
        assert value_of((await t.result(run)).outcome) == "A!"
        _, first = await t.client.engine.runs.first(run)
        assert parent_of(first) is None


async def test_two_releases_of_the_inner_flow_at_once(server: NatsServer, namespace: str) -> None:
    """A run goes on with the version that it has, whichever the workers began with."""
    hands = Hands()
    new = one(inner(description="the next release"))
    async with nested_team(server, namespace, one(), hands.all, start=False) as t:
        run = await t.submit(text="a")
        old_digest = next(iter(t.plan.nested.values())).digest
        t.plan = check_flow(new)
        async with t.process(grace_s=0.5):
            assert value_of((await t.ended(run)).outcome) == "A!"
            (child,) = await t.child_runs(run)
            _, first = await t.client.engine.runs.first(child)
            assert first.digest == old_digest
            later = await t.submit(text="b")
            assert value_of((await t.ended(later)).outcome) == "B!"


async def test_retry_of_a_child_answers_nobody_twice(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, one(), hands.all) as t:
        run = await t.submit(text="bad")
        await t.result(run)
        (child,) = await t.child_runs(run)
        again = await t.client.fork(child)
        assert (await t.ended(again.id)).status == "failed"
        _, first = await t.client.engine.runs.first(again.id)
        assert parent_of(first) is None
        assert len(await t.answers(run)) == 1


async def test_fork_keeps_branches_and_starts_open_ones_anew(server: NatsServer, namespace: str) -> None:
    hands = Hands()
    async with nested_team(server, namespace, over_texts(), hands.all) as t:
        run = await t.submit(texts=["a", "slow", "c"])
        await until(lambda: {"second A", "second C", "first slow"} <= set(hands.calls))
        await t.until_settled("reply", "merge")
        await t.client.run(run).cancel()
        hands.open.set()
        forked = await t.client.fork(run)
        assert value_of((await t.ended(forked.id)).outcome) == ["A!", "SLOW!", "C!"]
        assert hands.calls.count("first a") == 1
        assert hands.calls.count("first slow") == 2
        assert len(await t.child_runs(forked.id)) == 1


async def test_fork_does_not_end_what_only_the_other_run_asked_for(server: NatsServer, namespace: str) -> None:
    """What a handler had of its runs comes along; runs that it does not ask for have no end either."""
    fail = True

    async def boss(text: str, context: Context) -> str:
        done = await context.run_flow("writer", text="a")
        if fail:
            raise Fail("not now")
        return str(done)

    hands = Hands()
    async with nested_team(server, namespace, asking(), {**hands.all, "boss": boss}) as t:
        run = await t.submit(text="a")
        assert (await t.result(run)).status == "failed"
        fail = False
        forked = await t.client.fork(run)
        assert value_of((await t.ended(forked.id)).outcome) == "A!"
        assert hands.calls.count("first a") == 1
        assert await t.log(run_of_child(forked.id, (await t.asked(run))[0].step)) == []
        assert runs_asked(await t.state(forked.id)) == {}


async def test_run_without_flows_within_it_pays_nothing(server: NatsServer, namespace: str) -> None:
    flow = replace(inner(), name="plain")
    async with nested_team(server, namespace, flow, Hands().all) as t:
        nesting = t.client.engine.nesting
        run = await t.submit(text="a")
        result = await t.result(run)
        assert not result.children
        reads: list[str] = []
        t.bus.log.at_sure = lambda seq: reads.append(str(seq))  # type: ignore[method-assign,assignment,return-value]
        await asyncio.wait_for(nesting.follow(result), 1)
        assert reads == []


def test_input_of_a_step_may_be_a_list() -> None:
    """What is given by name is checked against the type of what is there."""
    batch = replace(
        inner(), input={"texts": Field(type="list[str]")}, agents=handled("first", "second", reads=["texts"])
    )
    flow = Flow(
        name="outer",
        input=TEXTS,
        agents={"whole": Agent(flow="inner")},
        steps={"whole": Step(agent="whole")},
        flows={"inner": batch},
    )
    assert check_flow(flow).reads["whole"] == {"texts"}
