"""Places of steps: every line leads down, nothing stands on anything else, and whatever a log names has its place."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from baton_actors.agents.loading import find_flow
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Again, Agent, Field, Flow, Step
from baton_schemas.run.fold import fold
from baton_schemas.show.layout import Ask, Edge, layout_of

from .simulated import entries_of, simulated
from .strategies import flows


@given(flows(), st.booleans())
@settings(max_examples=60)
def test_each_step_stands_below_what_it_waits_for_and_alone(flow: Flow, loops: bool) -> None:
    plan = check_flow(flow)
    layout = layout_of(plan)

    assert list(layout.nodes) == list(flow.steps)
    assert {(edge.source, edge.target) for edge in layout.edges} == {
        (source, name) for name in flow.steps for source in plan.before(name)
    }
    for edge in layout.edges:
        above, below = layout.nodes[edge.source].place.row, layout.nodes[edge.target].place.row
        assert [place.row for place in edge.through] == list(range(above + 1, below))
    places = [node.place for node in layout.nodes.values()] + [place for edge in layout.edges for place in edge.through]
    assert len({(place.row, place.column) for place in places}) == len(places)
    assert sum(map(len, layout.rows)) == len(places)
    for row in range(len(layout.rows)):
        columns = sorted((place.column, place.x) for place in places if place.row == row)
        assert [column for column, _ in columns] == list(range(len(columns)))
        assert all(right - left == 1 for (_, left), (_, right) in pairwise(columns))
    middles = {sum(place.x for place in places if place.row == row) / len(each) for row, each in enumerate(layout.rows)}
    assert middles == {(layout.columns - 1) / 2}, "rows are centred"


@given(flows(loops=True), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_all_that_a_run_names_has_its_place(flow: Flow, choose: Random) -> None:
    run = simulated(flow, choose)
    layout = layout_of(run.plan)

    for name in fold(entries_of(run)).steps:
        node = layout.node(name)
        assert node is not None
        assert node.step in flow.steps


def test_fan_out_is_one_place_and_says_over_what() -> None:
    plan = find_flow("report").plan
    layout = layout_of(plan)

    fan_outs = [node for node in layout.nodes.values() if node.each]
    assert fan_outs
    for node in fan_outs:
        assert layout.node(f"{node.step}-7") is node
    assert layout.node("digest--kabcd") is None, "what a step asks for is no step of the flow"


def test_loop_leads_back_and_says_when() -> None:
    agents = {"a": Agent(handler="m:f")}
    again = Again(start="write", when={"review": "revise"}, max_rounds=3)
    steps = {"write": Step(agent="a"), "review": Step(agent="a", after=["write"], again=again)}
    layout = layout_of(check_flow(Flow(name="f", input={"t": Field()}, agents=agents, steps=steps)))

    (loop,) = layout.loops
    assert (loop.last, loop.first) == ("review", "write")
    assert loop.says == ("again if review is 'revise'", "at most 3 rounds")
    assert layout.node("write--r2") is layout.nodes["write"]


def test_agents_that_are_asked_stand_beside_who_asks_first() -> None:
    agents = {
        "chief": Agent(handler="m:f", workers=["reader", "critic"]),
        "reader": Agent(handler="m:f", input={"q": Field()}, description="Reads.", workers=["critic"]),
        "critic": Agent(handler="m:f", input={"q": Field()}, description="Finds fault."),
    }
    steps = {"plan": Step(agent="chief"), "check": Step(agent="critic", after=["plan"])}
    layout = layout_of(check_flow(Flow(name="f", input={"t": Field()}, agents=agents, steps=steps)))

    (reader,) = layout.beside
    assert (reader.agent, reader.place.row, reader.place.column) == ("reader", 0, 1)
    assert layout.columns == 2
    assert layout.asks == (Ask("plan", reader.key), Ask("plan", "check"), Ask(reader.key, "check"))
    assert layout.nodes["plan"].asks == ("reader", "critic")


def test_line_that_passes_a_row_has_a_place_in_it() -> None:
    steps = {
        "one": Step(agent="a"),
        "two": Step(agent="a", after=["one"]),
        "three": Step(agent="a", after=["one", "two"]),
    }
    layout = layout_of(
        check_flow(Flow(name="f", input={"t": Field()}, agents={"a": Agent(handler="m:f")}, steps=steps))
    )

    (passing,) = [each for each in layout.rows[1] if isinstance(each, Edge)]
    assert (passing.source, passing.target, len(passing.through)) == ("one", "three", 1)
    assert layout.nodes["three"].joins == "all"
