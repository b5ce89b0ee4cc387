"""`again`: a loop, each of whose rounds has its own steps in the log, and reads what the round before came to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from baton_actors import Branch
from baton_actors import Flow as BuiltFlow
from baton_actors.agents.fitting import misfits
from baton_actors.agents.handlers import Handler
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_bus.engine.engine import Engine
from baton_bus.errors import RunFailed
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.conditions import unmet
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Again, Agent, Field, Flow, JoinPolicy, Step, decode_flow, encode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import MissingValue
from baton_schemas.run.fits import misfit
from baton_schemas.run.fold import fold
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.refs import name_of
from baton_schemas.run.rounds import in_round, round_of
from baton_schemas.run.state import Entry
from baton_schemas.show.asked import asked_by
from baton_schemas.show.rows import rows_of
from baton_schemas.show.seeing import see
from baton_schemas.show.step import step_of
from baton_schemas.wire.messages import After, Begins, Handoff, OutcomeRecord, Reply, Started
from baton_schemas.wire.outcomes import Done

from . import test_forks_property, test_lifecycle
from .servers import NatsServer
from .simulator import Simulator
from .strategies import flows
from .team import flow_of, team, value_of
from .test_flow_schema import agrees
from .test_forks_property import Fork
from .test_lifecycle import CHOICES, outcomes_of, simulated

MANY = settings(max_examples=30, deadline=None)
LOOPS = flows(loops=True)
TEXT = {"text": Field()}

# ---- what holds of every flow --------------------------------------------------------------------------

HOLDS = [
    test_lifecycle.test_every_run_ends_in_exactly_one_result,
    test_lifecycle.test_all_that_the_log_tells_of_a_step_is_one_outcome,
    test_lifecycle.test_working_through_any_message_again_changes_nothing,
    test_lifecycle.test_a_handoff_carries_no_more_than_is_read_later,
    test_lifecycle.test_a_step_sees_all_that_it_reads_and_every_error_before_it,
    test_lifecycle.test_a_join_hands_over_the_branches_it_names_and_closes_once,
    test_lifecycle.test_a_join_closes_with_what_its_chain_says,
    test_lifecycle.test_every_message_is_the_same_after_encoding_and_decoding,
]


@pytest.mark.parametrize("holds", HOLDS, ids=lambda test: test.__name__)
def test_what_holds_of_every_run_holds_of_one_with_loops(holds: Any) -> None:
    @MANY
    @given(LOOPS, CHOICES)
    def check(flow: Flow, choose: Random) -> None:
        holds.hypothesis.inner_test(flow, choose)

    check()
    assert holds.hypothesis.inner_test is not None


@MANY
@given(LOOPS, CHOICES)
def test_there_is_another_round_while_the_condition_holds_and_none_after_the_last(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan, outcomes = simulator.plan, outcomes_of(simulator)
    handed = {message.message.step for message in simulator.log if isinstance(message.message, Handoff)}
    begun = {in_round(name_of(token), round_of(token)) for token in (*handed, *outcomes)}
    for last in plan.loops:
        again, first = plan.step(last).again, plan.first_of_loop(last)
        assert again is not None
        for number in range(1, again.max_rounds + 2):
            outcome = outcomes.get(in_round(last, number))
            holds = isinstance(outcome, Done) and not unmet(again.when, {last: outcome.output})
            more = in_round(first, number + 1) in begun
            assert more == (holds and number < again.max_rounds) or (holds and simulator.dropped)
            if holds and number == again.max_rounds:
                result = simulator.results[0]
                assert again.on_last == "continue" or result.status == "failed"


@MANY
@given(LOOPS, CHOICES)
def test_every_message_of_a_run_with_loops_is_one_that_there_can_be(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    for stored in simulator.log:
        if isinstance(stored.message, Handoff | Reply):
            assert misfit(simulator.plan, stored.message) == ""


@settings(max_examples=40, deadline=None)
@given(LOOPS, CHOICES, st.integers(0, 60))
def test_run_that_goes_on_from_one_with_loops_does_nothing_again(flow: Flow, choose: Random, until: int) -> None:
    origin = Simulator(flow, choose)
    origin.run()
    fork = Fork(flow, origin, min(until, len(origin.log)), choose)
    fork.run()
    for holds in (
        test_forks_property.test_fork_ends_in_exactly_one_result,
        test_forks_property.test_finished_steps_keep_their_outcome_and_are_not_done_again,
        test_forks_property.test_all_that_is_copied_points_to_the_fork,
    ):
        holds.hypothesis.inner_test((origin, fork))  # type: ignore[attr-defined]
    assert len(fork.results) == 1


# ---- mistakes in flow files -----------------------------------------------------------------------------------

FLOW_FILE = """
name = "article"
[input]
topics = "list[str]"
[agents.any]
handler = "./h.py:any"
[agents.say]
model = "worker"
prompt = "Say {{write}}."
[steps.plan]
agent = "any"
[steps.each]
agent = "any"
each = "topics"
after = "plan"
[steps.write]
agent = "any"
after = "each"
[steps.facts]
agent = "any"
after = "write"
[steps.style]
agent = "any"
after = "write"
[steps.review]
agent = "say"
after = ["facts", "style"]
[steps.publish]
agent = "any"
after = "review"
[steps.{step}.again]
{again}
"""

GOOD = 'from = "facts"\nwhen = { review = "no" }\nmax_rounds = 3'
WHOLE = GOOD.replace('"facts"', '"each"')


@pytest.mark.parametrize(
    ("step", "again", "says"),
    [
        ("review", 'from = "write"\nwhen = { review = "no" }', "no 'max_rounds'; expected max_rounds = a whole number"),
        ("review", 'from = "write"\nmax_rounds = 3', "no 'when'; expected when = a table"),
        ("review", 'when = { review = "no" }\nmax_rounds = 3', "no 'from'; expected from = a string"),
        ("review", GOOD.replace("3", "1"), "found 1; expected a whole number from 2 to 1000: the first round counts"),
        ("review", GOOD.replace("3", "9999"), "expected a whole number from 2 to 1000"),
        ("review", GOOD.replace("3", '"3"'), "again.max_rounds: found the string '3'"),
        ("review", GOOD.replace('"facts"', '"fact"'), "the unknown step 'fact'; expected 'review' itself, or a step"),
        ("review", GOOD.replace('"facts"', '"publish"'), "found the step 'publish'; expected 'review' itself"),
        ("review", GOOD.replace("review =", "reveiw ="), "'reveiw'; expected a path into an input, into 'review'"),
        ("review", WHOLE.replace("review =", '"review.verdict" ='), "What a model answers is text"),
        ("review", WHOLE.replace('"no"', "1"), "found 1; expected a text: review is of type str"),
        ("review", GOOD.replace('"no"', "[]"), "found an empty list"),
        ("review", GOOD + '\non_last = "stop"', "expected 'continue' or 'fail'"),
        ("review", GOOD + "\nrounds = 3", "the unknown key 'rounds'"),
        ("review", GOOD, "step 'review' within the loop from 'facts' to 'review', and after 'style', which is outside"),
        ("facts", 'from = "write"\nwhen = { facts = "no" }\nmax_rounds = 3', "half a fan-out within the loop"),
        ("review", 'from = "write"\nwhen = { review = "no" }\nmax_rounds = 3', "joins the branches of 'each'"),
        ("facts", 'from = "each"\nwhen = { facts = "no" }\nmax_rounds = 3', "a loop that is left by 'facts' alone"),
        ("each", 'from = "plan"\nwhen = { plan = "no" }\nmax_rounds = 3', "`again` on a step with `each`"),
    ],
)
def test_mistake_in_a_loop_is_told_with_its_line(step: str, again: str, says: str) -> None:
    with pytest.raises(FlowError) as caught:
        load_flow(FLOW_FILE.format(step=step, again=again), "article.toml")
    assert says in str(caught.value)
    assert f"steps.{step}.again" in str(caught.value)
    assert "line 3" in str(caught.value)


def test_loops_that_share_a_step_are_refused() -> None:
    outer = 'from = "each"\nwhen = { review = "no" }\nmax_rounds = 3'
    text = FLOW_FILE.format(step="review", again=outer)
    with pytest.raises(FlowError, match="step 'facts' in this loop and in that of 'facts'"):
        load_flow(text + '[steps.facts.again]\nfrom = "facts"\nwhen = { facts = "no" }\nmax_rounds = 3\n')


def test_loop_with_a_fan_out_wholly_in_it_is_taken_and_written_as_it_was_read() -> None:
    flow = load_flow(FLOW_FILE.format(step="review", again=WHOLE))
    assert flow.steps["review"].again == Again(start="each", when={"review": "no"}, max_rounds=3)
    assert decode_flow(encode_flow(flow)) == flow
    assert b'"from":"each"' in encode_flow(flow)
    assert Plan(flow).loops == {"review": {"each", "write", "facts", "style", "review"}}


LLM: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 10}


def looped(prompt: str, **more: Any) -> Plan:
    agents = {"write": Agent(prompt=prompt, **LLM), "review": Agent(prompt="Review {write}", **LLM)}
    again = Again(start="write", when={"review": "revise"}, max_rounds=3)
    steps = {"write": Step(agent="write"), "review": Step(agent="review", after=["write"], again=again)}
    return check_flow(Flow(name="x", input=TEXT, agents=agents, steps=steps, **more))


@pytest.mark.parametrize("name", ["review", "write"])
def test_placeholder_of_the_round_before_wants_a_question_mark(name: str) -> None:
    with pytest.raises(FlowError, match=f"'{name}' is that of the round before, and there is none in the first"):
        looped(f"Write on {{text}}. {{{name}}}")
    assert looped(f"Write on {{text}}. {{{name}?}}").reads["write"] == {"text", name}


def test_prompt_of_the_first_round_has_nothing_of_a_round_before() -> None:
    plan = looped("On {text}.{review?}")
    values = {"text": Raw(b'"x"')}
    assert asked_by(plan, "write", values, {}).prompt == "On x."
    assert asked_by(plan, "write--r2", {**values, "review": Raw(b'" Shorter!"')}, {}).prompt == "On x. Shorter!"
    unsure = replace(plan.flow.agents["write"], prompt="{review}")
    stored = check_flow(replace(plan.flow, agents={**plan.flow.agents, "write": unsure}), stored=True)
    with pytest.raises(MissingValue, match="review is that of the round before, which had none"):
        asked_by(stored, "write", values, {})


class Verdict(TypedDict):
    verdict: Literal["revise", "good"]


def test_check_finds_what_a_loop_can_never_be_told() -> None:
    def write(text: str, review: Verdict) -> str:
        return text

    def review(write: str) -> Verdict:
        return {"verdict": "good"}

    flow = BuiltFlow("x", input={"text": "str"})
    flow.step(write)
    flow.step(review, after="write", again={"from": "write", "when": {"review.verdict": "revize"}, "max_rounds": 2})
    found = flow.found()
    handlers = {name: handler for name, handler in found.functions.items() if isinstance(handler, Handler)}
    said = dict(misfits(found.plan, handlers))
    assert said["steps.review.again.when"] == "review.verdict is never 'revize': it is 'good' or 'revise'"
    assert "'review' is that of the round before, and there is none in the first: take None too" in said["steps.write"]


def test_graph_shows_the_loop_as_an_arrow_back() -> None:
    plan = looped("Write on {text}.")
    drawn = "\n".join(draw(plan, 100))
    assert "│ write │◄" in drawn.replace("  ", " ")
    assert "again if review is 'revise'" in drawn
    assert "at most 3 rounds" in drawn
    assert "again from write" in "\n".join(draw(plan, 40))
    assert "s1 -.->|\"again if review is 'revise'<br/>at most 3 rounds\"| s0" in mermaid_of(plan)


@pytest.mark.parametrize(
    ("step", "cause", "why"),
    [
        ("write--r2", After(step="review"), ""),
        ("write--r3", After(step="review--r2"), ""),
        ("review--r2", After(step="write--r2"), ""),
        ("write--r4", After(step="review--r3"), "it is round 4 of step 'write', which has 3"),
        ("write--r3", After(step="review"), "does not come after"),
        ("review--r2", After(step="write"), "does not come after"),
        ("review", After(step="write--r2"), "does not come after"),
    ],
)
def test_forged_handoff_of_a_round_that_cannot_be_is_refused(step: str, cause: After, why: str) -> None:
    plan = looped("Write on {text}.")
    handoff = Handoff(run="r", flow="x", digest=plan.digest, step=step, cause=cause)
    assert why in misfit(plan, handoff)
    assert bool(why) == bool(misfit(plan, handoff))


# ---- runs -----------------------------------------------------------------------------------------------------------


def steps_of(**more: Any) -> dict[str, Step]:
    again = Again(start="write", when={"review.verdict": "revise"}, max_rounds=3, **more)
    return {
        "plan": Step(agent="plan"),
        "write": Step(agent="write", after=["plan"]),
        "review": Step(agent="review", after=["write"], again=again),
        "publish": Step(agent="publish", after=["review"]),
    }


class Desk:
    """Handlers that note their calls; the review is content with a draft of `enough` words."""

    def __init__(self, enough: int, padding: int = 0) -> None:
        self.enough, self.padding = enough, padding
        self.calls: list[str] = []

    async def plan(self, text: str) -> str:
        self.calls.append("plan")
        return text

    async def write(self, plan: str, write: str | None = None, review: dict[str, Any] | None = None) -> str:
        self.calls.append("write")
        assert (write is None) == (review is None)
        return f"{write} {review['word']}" if write and review else plan

    async def review(self, write: str) -> dict[str, Any]:
        self.calls.append("review")
        words = len(write.split())
        verdict = "revise" if words < self.enough else "good"
        return {"verdict": verdict, "word": f"w{words}", "padding": "x" * self.padding}

    async def publish(self, write: str, review: dict[str, Any]) -> str:
        self.calls.append("publish")
        return f"{review['verdict']}: {write}"

    @property
    def all(self) -> dict[str, Any]:
        return {"plan": self.plan, "write": self.write, "review": self.review, "publish": self.publish}


AGENTS = {"write": {"reads": ["plan", "write", "review"]}, "publish": {"reads": ["write", "review"]}}


@pytest.mark.parametrize("padding", [0, 400_000])  # more than a message holds: it is beside the log
async def test_each_round_reads_what_the_one_before_came_to(padding: int, server: NatsServer, namespace: str) -> None:
    desk = Desk(enough=3, padding=padding)
    async with team(server.url, namespace, flow_of(steps_of(), TEXT, AGENTS), desk.all) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "good: a w1 w2"
        state = await t.state(run)
        rounds = ["write", "review", "write--r2", "review--r2", "write--r3", "review--r3"]
        assert [row.step for row in rows_of(state, t.plan)] == ["plan", *rounds, "publish"]
        assert {step.status for step in state.steps.values()} == {"done"}
        seen = see(t.plan, state, await t.log(run), step_of(t.plan, state, "write--r2"))
        assert (seen.of, set(seen.values)) == ("write", {"plan", "write", "review"})
        assert not any(message.subject.endswith(".write--r4.review--r3") for message in await t.log(run))


async def test_run_goes_on_after_the_last_round_with_what_there_is(server: NatsServer, namespace: str) -> None:
    desk = Desk(enough=99)
    async with team(server.url, namespace, flow_of(steps_of(), TEXT, AGENTS), desk.all) as t:
        assert value_of((await t.run(text="a")).outcome) == "revise: a w1 w2"
        assert desk.calls == ["plan", *["write", "review"] * 3, "publish"]


async def test_run_fails_after_the_last_round_where_that_is_set_and_a_retry_asks_once_more(
    server: NatsServer, namespace: str
) -> None:
    desk = Desk(enough=99)
    async with team(server.url, namespace, flow_of(steps_of(on_last="fail"), TEXT, AGENTS), desk.all) as t:
        run = await t.submit(text="a")
        with pytest.raises(RunFailed) as caught:
            await t.client.run(run, "flow").result(10)
        assert "after 3 rounds from 'write' to 'review' still review.verdict is 'revise'" in str(caught.value)
        assert (await t.state(run)).steps["review--r3"].status == "done"
        desk.enough = 1
        desk.calls.clear()
        forked = await t.client.run(run, "flow").fork()
        assert value_of((await forked.ended(10)).outcome) == "good: a w1 w2"
        assert desk.calls == ["review", "publish"]


async def test_run_under_a_flow_with_more_rounds_keeps_the_steps_before_the_step_that_changed(
    server: NatsServer, namespace: str
) -> None:
    desk = Desk(enough=5)
    async with team(server.url, namespace, flow_of(steps_of(), TEXT, AGENTS), desk.all) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "revise: a w1 w2"
        steps = steps_of()
        assert steps["review"].again is not None
        longer = replace(steps["review"], again=replace(steps["review"].again, max_rounds=9))
        later = check_flow(flow_of({**steps, "review": longer}, TEXT, AGENTS))
        desk.calls.clear()
        forked = await t.client.run(run, "flow").fork(plan=later)
        assert value_of((await forked.ended(10)).outcome) == "good: a w1 w2 w3 w4"
        assert desk.calls == ["review", *["write", "review"] * 4, "publish"]
        assert {name for name, step in (await forked.state()).steps.items() if step.reused} == {"plan", "write"}


async def test_run_whose_last_step_was_changed_keeps_all_rounds_of_a_loop_before_it(
    server: NatsServer, namespace: str
) -> None:
    desk = Desk(enough=3)

    async def shout(write: str) -> str:
        return write.upper()

    flow = flow_of(steps_of(), TEXT, AGENTS)
    async with team(server.url, namespace, flow, {**desk.all, "shout": shout}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        desk.calls.clear()
        other = replace(flow.agents["publish"], handler="team:shout", reads=["write"])
        later = check_flow(replace(flow, agents={**flow.agents, "publish": other}))
        forked = await t.client.run(run, "flow").fork(plan=later)
        assert value_of((await forked.ended(10)).outcome) == "A W1 W2"
        assert desk.calls == []


async def test_fan_out_and_join_within_a_loop_have_their_own_branches_in_each_round(
    server: NatsServer, namespace: str
) -> None:
    async def split(text: str, merge: list[str] | None = None) -> list[str]:
        return [*(merge or [text]), "more"]

    async def upper(item: str) -> str:
        return item + "!"

    async def merge(each: list[Branch[str]]) -> list[str]:
        assert all(branch.item + "!" == branch.value for branch in each)
        return [branch.value or "" for branch in each]

    async def show(merge: list[str]) -> list[str]:
        return merge

    again = Again(start="split", when={"merge.0": ["a!", "a!!"]}, max_rounds=9)
    steps = {
        "split": Step(agent="split"),
        "each": Step(agent="upper", each="split"),
        "merge": Step(agent="merge", after=["each"], join=JoinPolicy(deadline_s=60), again=again),
        "show": Step(agent="show", after=["merge"]),
    }
    agents = {"split": {"reads": ["text", "merge"]}}
    handlers = {"split": split, "upper": upper, "merge": merge, "show": show}
    async with team(server.url, namespace, flow_of(steps, TEXT, agents), handlers) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == ["a!!!", "more!!!", "more!!", "more!"]
        state = await t.state(run)
        assert state.steps["merge--r3"].branches == [f"each-{index}--r3" for index in range(4)]
        assert (state.steps["merge--r2"].expected, state.late) == (3, [])
        rows = {row.step: (row.ended, row.count) for row in rows_of(state, t.plan) if row.count}
        assert rows == {"each": (2, 2), "each--r2": (3, 3), "each--r3": (4, 4)}
        assert step_of(t.plan, state, "each--r2") == "each--r2"


async def test_step_that_is_its_own_loop_and_the_last_of_its_flow(server: NatsServer, namespace: str) -> None:
    async def count(text: str, count: int | None = None) -> int:
        return (count or 0) + 1

    again = Again(start="count", when={"count": [1, 2, 3]}, max_rounds=50)
    agents = {"count": {"reads": ["text", "count"]}}
    async with team(
        server.url, namespace, flow_of({"count": Step(agent="count", again=again)}, TEXT, agents), {"count": count}
    ) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == 4
        assert await t.kinds(run) == ["handoff", "outcome"] * 4 + ["result"]


async def test_step_that_was_skipped_in_a_round_has_no_output_of_the_round_before(
    server: NatsServer, namespace: str
) -> None:
    """A value of another round would look like one of this."""
    read: list[Any] = []

    async def write(text: str, review: int | None = None) -> dict[str, Any]:
        return {"round": (review or 0) + 1}

    async def pictures(write: dict[str, Any]) -> str:
        return f"pictures of {write['round']}"

    async def review(write: dict[str, Any], pictures: str | None = None) -> int:
        read.append(pictures)
        return int(write["round"])

    steps = {
        "write": Step(agent="write"),
        "pictures": Step(agent="pictures", after=["write"], when={"write.round": [1, 3]}),
        "review": Step(
            agent="review",
            after=["write", "pictures"],
            again=Again(start="write", when={"review": [1, 2]}, max_rounds=5),
        ),
    }
    agents = {"write": {"reads": ["text", "review"]}, "review": {"reads": ["write", "pictures"]}}
    handlers = {"write": write, "pictures": pictures, "review": review}
    async with team(server.url, namespace, flow_of(steps, TEXT, agents), handlers) as t:
        assert value_of((await t.run(text="x")).outcome) == 3
        assert read == ["pictures of 1", None, "pictures of 3"]


async def test_crashes_between_record_and_what_follows_neither_lose_nor_repeat_a_round(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, died = Desk(enough=3), set[str]()
    deadly = {"OutcomeRecord review", "OutcomeRecord review--r2", "Handoff review--r3"}
    derive = Engine.derive

    async def dies_once(self: Engine, plan: Plan, record: Any, handoff: Handoff | None = None) -> None:
        who = f"{type(record).__name__} {record.step}"
        if who in deadly - died:
            died.add(who)
            raise RuntimeError("as a crash would")  # the delivery is given back, and comes again
        await derive(self, plan, record, handoff)

    monkeypatch.setattr(Engine, "derive", dies_once)
    async with team(server.url, namespace, flow_of(steps_of(), TEXT, AGENTS), desk.all) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "good: a w1 w2"
        assert died == deadly
        outcomes = [entry.subject for entry in await t.log(run) if ".outcome." in entry.subject]
        assert len(outcomes) == len(set(outcomes)) == 3


async def test_worker_that_is_gone_in_the_middle_of_a_round_is_followed_by_another(
    server: NatsServer, namespace: str
) -> None:
    desk, held = Desk(enough=3), asyncio.Event()
    review = desk.review

    async def hangs(write: str) -> dict[str, Any]:
        if len(write.split()) == 2 and not held.is_set():
            held.set()
            await asyncio.sleep(60)
        return await review(write)

    flow = flow_of(steps_of(), TEXT, AGENTS)
    async with team(server.url, namespace, flow, {**desk.all, "review": hangs}, start=False) as t:
        async with t.process(grace_s=0.0):
            run = await t.submit(text="a")
            await held.wait()
        async with t.process():
            assert value_of((await t.result(run)).outcome) == "good: a w1 w2"
        assert desk.calls == ["plan", *["write", "review"] * 3, "publish"]


async def test_two_hundred_rounds_are_as_fast_each_as_the_first(server: NatsServer, namespace: str) -> None:
    async def count(text: str, count: int | None = None) -> int:
        return (count or 0) + 1

    again = Again(start="count", when={"count": list(range(1, 200))}, max_rounds=1_000)
    flow = flow_of({"count": Step(agent="count", again=again)}, TEXT, {"count": {"reads": ["text", "count"]}})
    async with team(server.url, namespace, flow, {"count": count}) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == 200
        log = await t.log(run)
        largest = max(len(entry.data) for entry in log[10:])
        assert len(log) == 2 * 200 + 1
        assert largest < 2 * len(log[3].data)
        assert [row.step for row in rows_of(await t.state(run), t.plan)][-1] == "count--r200"


def test_rounds_that_a_stranger_makes_up_fill_nobodys_memory() -> None:
    plan = looped("Write on {text}.")
    told = Done(output=Raw(b'"x"'))
    for number in ("4", "999999999", "9" * 5_000):
        record = OutcomeRecord(run="r", flow="x", digest=plan.digest, step=f"write--r{number}", outcome=told)
        begins = Begins(flow_body=Raw(plan.body))
        first = Handoff(run="r", flow="x", digest=plan.digest, step="write", cause=Started(begins=begins))
        past = past_of([Logged(1, "x--write", first), Logged(2, "x--write", record)])
        assert past is not None
        assert past.rounds("write") == ["write"]
        at = datetime(2026, 1, 1, tzinfo=UTC)
        begun = Entry(seq=1, at=at, subject="s", data=b"", message=first)
        made_up = Entry(seq=2, at=at, subject="s", data=b"", message=record)
        assert len(rows_of(fold([begun, made_up]), plan)) <= 7


@pytest.mark.parametrize(
    ("again", "fits"),
    [
        (WHOLE, True),
        (WHOLE.replace("3", "1"), False),
        (WHOLE.replace("max_rounds = 3", ""), False),
        (WHOLE + "\nrounds = 3", False),
        (WHOLE.replace('"no"', "[]"), False),
        (WHOLE.replace('{ review = "no" }', '{ topics.0 = ["a", "b"] }'), True),
    ],
)
def test_schema_for_editors_agrees_on_loops_and_conditions(again: str, fits: bool) -> None:
    agrees(FLOW_FILE.format(step="review", again=again), fits)
