"""`when`: a step is done if its condition holds, and else left out, with all that comes after it alone."""

from __future__ import annotations

from random import Random
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from baton_actors import Flow as BuiltFlow
from baton_actors.agents.fitting import misfits
from baton_actors.agents.handlers import Handler
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.cli.show.step_lines import skips_of
from baton_bus.engine.engine import Engine
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.conditions import unmet
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Agent, Conditions, Field, Flow, JoinPolicy, Step, decode_flow, encode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fits import misfit
from baton_schemas.run.keeping import keeping
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.refs import base_of, name_of, whole
from baton_schemas.run.rounds import in_round, round_of
from baton_schemas.show.lines import one_line
from baton_schemas.show.rows import rows_of
from baton_schemas.wire.messages import Handoff, Reply, Result
from baton_schemas.wire.outcomes import Failed, Skipped

from .servers import NatsServer
from .simulator import Simulator
from .strategies import flows
from .team import Team, flow_of, team, value_of
from .test_lifecycle import CHOICES, left_out, simulated

MANY = settings(max_examples=60, deadline=None)
TEXT = {"text": Field()}

# ---- what holds of every flow --------------------------------------------------------------------------


@MANY
@given(flows(), CHOICES)
def test_no_handler_of_a_step_that_is_left_out_is_called(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    out = left_out(simulator)
    for handoff, state in simulator.calls:
        step = base_of(handoff)
        assert whole(handoff.step) not in out
        # Branches are not given what their fan-out was decided by.
        assert handoff.branch or not simulator.unmet(step, state)


@MANY
@given(flows(), CHOICES)
def test_a_step_is_left_out_for_its_condition_or_as_all_before_it_were(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan, out = simulator.plan, left_out(simulator)
    for token, why in out.items():
        step, number = name_of(token), round_of(token)
        sources = [in_round(source, number) for source in plan.sources[step]]
        if number > 1 and step == plan.first_of_loop(plan.loop_of[step]):
            sources = []
        if any(source in plan.loops and step not in plan.loops[source] for source in plan.sources[step]):
            continue  # one of its rounds was
        followed = bool(sources) and out.keys() >= set(sources)
        assert step in plan.skippable
        assert followed or flow.steps[step].when
        assert followed == (why.endswith(("was skipped", "were skipped")))


@MANY
@given(flows(), CHOICES)
def test_what_is_left_out_counts_as_come_and_neither_as_failed_nor_as_done(flow: Flow, choose: Random) -> None:
    simulator = simulated(flow, choose)
    plan, out = simulator.plan, left_out(simulator)
    for step in plan.joins:
        chain = simulator.chain_of(step)
        if chain is None or not chain.closed:
            continue
        cause = chain.closing().cause
        gone = set(getattr(cause, "left_out", {}))
        assert gone <= {name_of(token) for token in out}
        assert gone <= set(getattr(cause, "branches", {}))
        if gone == set(plan.sources[step]):
            assert getattr(cause, "error", None) is None
            assert step in out or simulator.results[0].status == "failed"


@MANY
@given(flows(), CHOICES, st.integers(0, 2))
def test_a_changed_condition_is_a_change_of_its_step(flow: Flow, choose: Random, which: int) -> None:
    simulator = simulated(flow, choose)
    past = past_of([Logged(*stored) for stored in simulator.log])
    assert past is not None
    step = list(flow.steps)[which % len(flow.steps)]
    later = check_flow(
        replace(flow, steps={**flow.steps, step: replace(flow.steps[step], when={"topic": "another"})}), stored=True
    )
    kept = keeping(past, later, simulator.input)
    assert kept.again[step] == "another when"
    assert not {name for name in kept.steps if simulator.plan.name_of(name) == step}


# ---- whether a condition holds -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "value", "why"),
    [
        ({"a.kind": "x"}, b'{"kind":"x"}', ""),
        ({"a.kind": ["y", "x"]}, b'{"kind":"x"}', ""),
        ({"a.kind": "x"}, b'{"kind":"praise"}', "a.kind is 'praise'"),
        ({"a.kind": "x"}, b"{}", "a.kind is missing"),
        ({"a.kind": "x"}, b'{"kind":null}', "a.kind is missing"),
        ({"a.kind.b": "x"}, b'{"kind":"x"}', "a.kind.b is missing"),
        ({"a": 1}, b"1.0", ""),
        ({"a": 1}, b"true", "a is true"),
        ({"a": True}, b"1", "a is 1"),
        ({"a": False}, b"0", "a is 0"),
        ({"a": "1"}, b"1", "a is 1"),
        ({"a": 0}, b"false", "a is false"),
        ({"a": True}, b"true", ""),
        ({"a": "x"}, b'" x\\n"', ""),
        ({"a": "X"}, b'"x"', "a is 'x'"),
        ({"a.1": "y"}, b'["x","y"]', ""),
        ({"a.2": "y"}, b'["x","y"]', "a.2 is missing"),
        ({"a": "x"}, b"[1]", "a is a list"),
        ({"a.x": 1, "a.y": 2}, b'{"x":1,"y":3}', "a.y is 3"),
        ({"a": "x"}, b'"' + b"y" * 500 + b'"', "a is '" + "y" * 59 + "…'"),
    ],
)
def test_condition_holds_for_the_very_value_and_says_else_what_it_found(
    conditions: Conditions, value: bytes, why: str
) -> None:
    assert unmet(conditions, {"a": Raw(value)}) == why


def test_condition_on_what_is_not_there_does_not_hold() -> None:
    assert unmet({"a.kind": "x"}, {}) == "a.kind is missing"


# ---- mistakes in flow files -----------------------------------------------------------------------------------

FLOW_FILE = """
name = "mail"
[input]
topic = "str"
count = "int"
tags = "list[str]"
[input.mail]
type = "dict"
fields = {{ kind = "str", prio = "int?" }}
[agents.classify]
handler = "./h.py:classify"
[agents.sum]
model = "worker"
prompt = "Sum up {{topic}}."
[agents.reply]
model = "worker"
prompt = "{prompt}"
[steps.classify]
[steps.sum]
[steps.reply]
after = ["classify", "sum"]
when = {when}
"""


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ('{ "clasify.kind" = "x" }', "'clasify.kind'; expected a path into an input, or into a step that comes before"),
        ('{ "clasify.kind" = "x" }', "Did you mean 'classify'?"),
        ('{ "reply.kind" = "x" }', "steps.reply.when.reply.kind: found 'reply.kind'"),
        ('{ "mail.knd" = "x" }', "'mail.knd'; expected a field that mail has: kind, prio. Did you mean 'mail.kind'?"),
        ('{ "mail.kind" = 3 }', "found 3; expected a text: mail.kind is of type str"),
        ('{ "mail.prio" = "high" }', "found the string 'high'; expected a whole number: mail.prio is of type int"),
        ("{ count = 1.5 }", "found 1.5; expected a whole number: count is of type int"),
        ("{ count = true }", "found true; expected a whole number"),
        ('{ mail = "x" }', "expected a path to a text, a number, or true or false: mail is of type dict"),
        ('{ tags = "x" }', "tags is of type list[str]"),
        ('{ "tags.first" = "x" }', "the number of an item, as 'tags.0'"),
        ('{ "topic.kind" = "x" }', "'topic' alone: it is of type str, which has no keys"),
        ('{ "sum.kind" = "x" }', "What a model answers is text"),
        ("{}", "found an empty table; expected at least one condition"),
        ("{ topic = [] }", "found an empty list; expected a value, or a list of at least one"),
        ("{ topic = [[]] }", "expected a text, a number, true or false, or a list of them"),
        ("{ topic = {} }", "found a table; expected a text, a number"),
        ("{ topic = 1979-05-27 }", "expected a text, a number"),
        ("{ count = nan }", "found nan; expected a finite number"),
        ("{ count = 99999999999999999999 }", "found a number of 20 digits; expected one of 64 bits"),
        ('{ "topic?" = "x" }', "no `?` is needed"),
        ('{ "" = "x" }', "expected a path such as 'classify.kind'"),
        ('{ "item.kind" = "x" }', "A condition is on the whole step, before there are items."),
        ('{ errors = "x" }', "equals nothing"),
        ('"classify"', "found the string 'classify'; expected a table"),
        ('["classify"]', "expected a table"),
    ],
)
def test_mistake_in_a_condition_is_told_with_its_line(when: str, says: str) -> None:
    with pytest.raises(FlowError) as caught:
        load_flow(FLOW_FILE.format(when=when, prompt="Go."), "mail.toml")
    assert says in str(caught.value)
    assert "line 22, steps.reply.when" in str(caught.value)


@pytest.mark.parametrize(
    "when", ['{ "classify.kind" = "x", count = [1, 2.0] }', "{ classify.kind = 'x', count = [1, 2.0] }"]
)
def test_condition_may_be_written_with_dots_as_a_table_or_in_quotes(when: str) -> None:
    flow = load_flow(FLOW_FILE.format(when=when, prompt="Go."))
    assert flow.steps["reply"].when == {"classify.kind": "x", "count": [1, 2.0]}
    assert decode_flow(encode_flow(flow)) == flow


def test_flow_without_conditions_has_the_bytes_that_it_had_before_there_were_any() -> None:
    flow = Flow(name="a", agents={"a": Agent(handler="m:a")}, steps={"a": Step(agent="a")})
    assert b"when" not in encode_flow(flow)


def skips(prompt: str, **more: Any) -> Plan:
    """A flow in which `refund` may be skipped, and `reply`, which has this prompt, is done all the same."""
    flow = Flow(
        name="mail",
        input={"topic": Field()},
        tiers={},
        agents={
            "any": Agent(handler="m:f", reads=[]),
            "reply": Agent(model="claude-haiku-4-5", max_tokens=10, prompt=prompt),
        },
        steps={
            "refund": Step(agent="any", when={"topic": "refund"}),
            "other": Step(agent="any"),
            "reply": Step(agent="reply", after=["refund", "other"], **more),
        },
    )
    return check_flow(flow)


def test_placeholder_of_a_step_that_may_be_skipped_wants_a_question_mark() -> None:
    with pytest.raises(FlowError, match=r"step 'refund' may have been skipped") as caught:
        skips("Say {refund.text}.")
    assert "expected {refund.text?}" in str(caught.value)
    assert skips("Say {refund.text?} or {refund?.text}.").skippable == {"refund"}


def test_placeholder_of_a_step_that_the_condition_looks_into_needs_none() -> None:
    assert skips("Say {refund.text}.", when={"refund.ok": True}).skippable == {"refund", "reply"}


def test_placeholder_of_a_step_on_every_way_to_this_one_needs_none() -> None:
    agents = {"any": Agent(handler="m:f", reads=[]), "say": Agent(model="claude-x", max_tokens=1, prompt="{refund}")}
    steps = {
        "refund": Step(agent="any", when={"topic": "refund"}),
        "a": Step(agent="any", after=["refund"]),
        "b": Step(agent="any", after=["refund"]),
        "say": Step(agent="say", after=["a", "b"]),
    }
    plan = check_flow(Flow(name="x", input={"topic": Field()}, agents=agents, steps=steps))
    assert plan.skippable == {"refund", "a", "b", "say"}


class Kind(TypedDict):
    kind: Literal["refund", "praise"]
    prio: int


def test_condition_on_what_a_handler_never_returns_is_found_by_a_check() -> None:
    def classify(text: str) -> Kind:
        return {"kind": "praise", "prio": len(text)}

    def reply(classify: Kind, refund: str) -> str:
        return refund

    flow = BuiltFlow("mail", input={"text": "str"})
    flow.step(classify)
    flow.step(lambda classify: "x", name="refund", after="classify", when={"classify.kind": ["refnd", "refund"]})
    flow.step(lambda classify: "x", name="b", after="classify", when={"classify.knd": "x", "classify.prio": "high"})
    flow.step(reply, after=["refund", "b", "classify"])
    found = flow.found()
    handlers = {name: handler for name, handler in found.functions.items() if isinstance(handler, Handler)}
    said = dict(misfits(found.plan, handlers))
    assert said["steps.refund.when"] == "classify.kind is never 'refnd': it is 'praise' or 'refund'"
    assert [text for place, text in misfits(found.plan, handlers) if place == "steps.b.when"] == [
        "classify.knd leads to nothing: classify has no 'knd'; it has kind, prio",
        "classify.prio is never 'high': it is a number",
    ]
    assert "step 'refund' may have been skipped: take None too" in said["steps.reply"]


def test_graph_shows_conditions_on_the_arrows() -> None:
    plan = skips("Go.", when={"refund.ok": True, "topic": ["a", 'b"']})
    drawn = draw(plan, 200)
    above = next(number for number, line in enumerate(drawn) if "if refund.ok is true" in line)
    assert "and topic is 'a' or 'b\"'" in drawn[above + 1]
    assert "▼" in drawn[above + 2]
    assert any("if refund.ok is true  and topic is" in line for line in draw(plan, 30))
    assert "-->|\"if refund.ok is true<br/>and topic is 'a' or 'b#34;'\"|" in mermaid_of(plan)


# ---- runs -----------------------------------------------------------------------------------------------------------

WAYS = {
    "classify": Step(agent="classify"),
    "refund": Step(agent="echo", after=["classify"], when={"classify.kind": "refund"}),
    "praise": Step(agent="echo", after=["classify"], when={"classify.kind": ["praise", "thanks"]}),
    "reply": Step(agent="reply", after=["refund", "praise"]),
}


async def classify(text: str) -> dict[str, str]:
    return {"kind": text, "big": "x" * (400_000 if text == "thanks" else 0)}


async def echo(classify: dict[str, str]) -> str:
    return classify["kind"]


async def reply(refund: str | None = None, praise: str | None = None) -> str:
    return f"refund={refund} praise={praise}"


HANDLERS = {"classify": classify, "echo": echo, "reply": reply}


async def skipped_in(t: Team, run: str) -> dict[str, str]:
    return {name: step.reason for name, step in (await t.state(run)).steps.items() if step.status == "skipped"}


async def test_run_takes_the_way_that_a_condition_says(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(WAYS, TEXT), HANDLERS) as t:
        run = await t.submit(text="refund")
        assert value_of((await t.result(run)).outcome) == "refund=refund praise=None"
        assert await skipped_in(t, run) == {"praise": "classify.kind is 'refund'"}
        lines = [line.plain for line in skips_of(rows_of(await t.state(run), t.plan))]
        assert lines == ["\N{EN DASH} praise  skipped: classify.kind is 'refund'"]
        log = [one_line(entry) for entry in await t.log(run)]
        assert any("closes with 1 branch, praise skipped" in line for line in log)


async def test_condition_looks_into_what_is_kept_beside_the_log(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(WAYS, TEXT), HANDLERS) as t:
        assert value_of((await t.run(text="thanks")).outcome) == "refund=None praise=thanks"


async def test_run_whose_last_step_is_left_out_is_done_with_nothing(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(WAYS, TEXT), HANDLERS) as t:
        run = await t.submit(text="rant")
        result = await t.result(run)
        assert (result.status, result.step) == ("done", "reply")
        assert result.outcome == Skipped(reason="refund and praise were skipped", left_out=True)
        assert await t.client.run(run, "flow").result() is None
        assert (await skipped_in(t, run))["reply"] == "refund and praise were skipped"


async def test_fan_out_with_a_condition_is_done_wholly_or_not_at_all(server: NatsServer, namespace: str) -> None:
    async def plan(text: str) -> dict[str, Any]:
        return {"kind": text, "items": ["a", "b"] if text == "many" else "none"}

    async def upper(item: str) -> str:
        return item.upper()

    async def merge(each: list[str] | None, other: str) -> str:
        return f"{each} {other}"

    steps = {
        "plan": Step(agent="plan"),
        "each": Step(agent="upper", each="plan.items", when={"plan.kind": "many"}),
        "other": Step(agent="other", after=["plan"]),
        "merge": Step(agent="merge", after=["each", "other"], join=JoinPolicy(min_done=1)),
    }

    async def other(plan: dict[str, Any]) -> str:
        return "x"

    handlers = {"plan": plan, "upper": upper, "other": other, "merge": merge}
    async with team(server.url, namespace, flow_of(steps, TEXT), handlers) as t:
        assert value_of((await t.run(text="many")).outcome) == "['A', 'B'] x"
        run = await t.submit(text="one")  # whose list is none: nobody looks at it
        assert value_of((await t.result(run)).outcome) == "None x"
        assert await skipped_in(t, run) == {"each": "plan.kind is 'one'"}


@pytest.mark.parametrize("texts", [["a"], []])
async def test_run_that_begins_with_fan_outs_that_are_left_out_is_done(
    texts: list[str], server: NatsServer, namespace: str
) -> None:
    async def upper(item: str) -> str:
        return item.upper()

    async def merge(each: list[str] | None = None, more: list[str] | None = None) -> str:
        return f"{each} {more}"

    steps = {
        "each": Step(agent="upper", each="texts", when={"text": "go"}),
        "more": Step(agent="upper", each="texts", when={"texts.0": "a"}),
        "merge": Step(agent="merge", after=["each", "more"]),
    }
    fields = {**TEXT, "texts": Field(type="list[str]")}
    async with team(server.url, namespace, flow_of(steps, fields), {"upper": upper, "merge": merge}) as t:
        if texts:
            assert value_of((await t.run(text="no", texts=texts)).outcome) == "None ['A']"
        else:
            run = await t.submit(text="no", texts=texts)
            assert isinstance((await t.result(run)).outcome, Skipped)
            assert await skipped_in(t, run) == {
                "each": "text is 'no'",
                "more": "texts.0 is missing",
                "merge": "each and more were skipped",
            }
        assert value_of((await t.run(text="go", texts=["a"])).outcome) == "['A'] ['A']"


async def test_min_done_does_not_count_what_was_left_out(server: NatsServer, namespace: str) -> None:
    steps = {**WAYS, "reply": Step(agent="reply", after=["refund", "praise"], join=JoinPolicy(min_done=2))}
    async with team(server.url, namespace, flow_of(steps, TEXT), HANDLERS) as t:
        result = await t.run(text="refund")
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.message == "1 of 1 branches ended well, 1 was skipped; min_done is 2"


async def test_condition_on_a_step_that_failed_does_not_hold(server: NatsServer, namespace: str) -> None:
    async def fails(text: str) -> dict[str, str]:
        raise ValueError(text)

    agents = {"classify": {"max_attempts": 1}}
    flow = flow_of(WAYS, TEXT, agents, on_error="continue")
    async with team(server.url, namespace, flow, {**HANDLERS, "classify": fails}) as t:
        run = await t.submit(text="refund")
        assert (await t.result(run)).status == "done"
        assert (await skipped_in(t, run))["refund"] == "classify.kind is missing"


async def test_worker_that_dies_between_record_and_what_follows_leaves_nothing_undone(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[str] = []
    derive = Engine.derive

    async def dies_once(self: Engine, plan: Plan, record: Any, handoff: Handoff | None = None) -> None:
        who = f"{type(record).__name__} {record.step}"
        if who not in died:
            died.append(who)
            raise RuntimeError("as a crash would")  # the delivery is given back, and comes again
        await derive(self, plan, record, handoff)

    monkeypatch.setattr(Engine, "derive", dies_once)
    async with team(server.url, namespace, flow_of(WAYS, TEXT), HANDLERS) as t:
        run = await t.submit(text="praise")
        assert value_of((await t.result(run)).outcome) == "refund=None praise=praise"
        assert {"OutcomeRecord classify", "Reply reply"} <= set(died)
        assert await skipped_in(t, run) == {"refund": "classify.kind is 'praise'"}


async def test_run_that_goes_on_keeps_what_was_left_out_and_goes_another_way_when_that_changes(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, flow_of(WAYS, TEXT), HANDLERS) as t:
        run = await t.submit(text="rant")
        await t.result(run)
        forked = await t.client.run(run, "flow").fork()
        assert isinstance((await forked.ended(10)).outcome, Skipped)
        assert (await forked.state()).steps["refund"].reused

        steps = {**WAYS, "praise": replace(WAYS["praise"], when={"classify.kind": "rant"})}
        mended = await t.client.run(run, "flow").fork(plan=check_flow(flow_of(steps, TEXT)))
        result = await mended.ended(10)
        assert value_of(result.outcome) == "refund=None praise=rant"
        state = await mended.state()
        assert {name for name, step in state.steps.items() if step.reused} == {"classify", "refund"}


def test_forged_word_that_a_step_was_left_out_is_refused() -> None:
    plan = check_flow(flow_of(WAYS, TEXT))
    told = Skipped(reason="x", left_out=True)
    here = Reply(run="r", flow="flow", digest=plan.digest, step="reply", source="refund", outcome=told)
    assert misfit(plan, here) == ""
    never = check_flow(flow_of({**WAYS, "refund": Step(agent="echo", after=["classify"])}, TEXT))
    assert "was left out, which cannot be" in misfit(never, here)


def test_result_of_a_last_step_that_is_left_out_says_so_in_the_log() -> None:
    flow = flow_of({"only": Step(agent="only", when={"topic": "go"})}, {"topic": Field()})
    simulator = Simulator(flow, Random(1))
    simulator.run()
    handoff, result = (stored.message for stored in simulator.log)
    assert isinstance(handoff, Handoff)
    assert isinstance(result, Result)
    assert (result.status, result.outcome) == ("done", Skipped(reason="topic is 't'", left_out=True))


def test_all_ways_behind_a_step_that_is_left_out_are_left_out() -> None:
    steps = {
        "first": Step(agent="x"),
        "a": Step(agent="x", after=["first"], when={"topic": "go"}),
        "b": Step(agent="x", after=["a"]),
        "c": Step(agent="x", after=["a"]),
        "many": Step(agent="x", after=["a"], each="topics"),
        "d": Step(agent="x", after=["b", "c", "many"]),
    }
    fields = {"topic": Field(), "topics": Field(type="list[str]")}
    for seed in range(10):
        simulator = Simulator(flow_of(steps, fields, on_error="continue"), Random(seed))
        simulator.run()
        assert {call.handoff.step for call in simulator.calls} == {"first"}
        assert simulator.results[0].outcome == Skipped(reason="b, c and many were skipped", left_out=True)
