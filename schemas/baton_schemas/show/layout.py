"""Places of the steps of a flow, for whoever draws it: rows from the top, columns from the left, lines between. Pure.

A step is one row below the lowest of those that it waits for, and a fan-out is one place, however many branches it has.
A line that passes a row without stopping there has a place of its own in it, so that none runs through a box.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import parse

from .graph_words import again_of, conditions_of

Does = Literal["handler", "model", "person", "flow"]
"""Who does a step: Python, a model, people of a role, or a run of another flow."""
BESIDE = "@"
"""Before the name of an agent that is asked and does no step, where a place is named: no step is called so."""


class Place(Struct, frozen=True):
    """Where something stands: its row and column, both from 0, and how far right its middle is, in columns.

    Rows are centred: `x` is that of a row's own places in the middle of the widest.
    """

    row: int
    column: int
    x: float


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step as it is written, with those that its `each` implies."""

    step: str
    place: Place
    agent: str
    does: Does
    by: str
    """The handler's key, the model, the role, or the name of the flow."""
    each: str = ""
    """The list that it fans out over."""
    concurrency: int | None = None
    joins: int | Literal["all", ""] = ""
    """Of how many that come before it it waits; empty where it waits for a single one."""
    lists: int | Literal["all", ""] = ""
    """Of how many of its own branches it puts out a list; empty where another step joins them."""
    when: tuple[str, ...] = ()
    """What is to hold for it to be done, a line for each condition."""
    asks: tuple[str, ...] = ()
    """Agents that its agent may ask."""
    nested: str = ""
    """The key in `Layout.nested` of the flow that it is a run of."""


class Edge(Struct, frozen=True):
    """From a step down to one that comes after it."""

    source: str
    target: str
    through: tuple[Place, ...] = ()
    """Where it passes the rows between, from above."""


class Loop(Struct, frozen=True):
    """From the step that ends a round up to the one that begins the next."""

    last: str
    first: str
    says: tuple[str, ...]
    """What is to hold for another round, and how many there are at the most."""


class Beside(Struct, frozen=True, kw_only=True):
    """An agent that is asked while others work, and does no step: right of who asks it first."""

    key: str
    agent: str
    place: Place


class Ask(Struct, frozen=True):
    """That one may ask another: a step by its name, an agent beside them by its key."""

    asker: str
    asked: str


class Layout(Struct, frozen=True, kw_only=True):
    """A flow with a place for all that is drawn of it."""

    flow: str
    nodes: dict[str, Node]
    """By step, in the order in which they are written."""
    edges: tuple[Edge, ...]
    rows: tuple[tuple[str | Edge, ...], ...]
    """What stands in each row, from the left: steps, and edges that pass."""
    first: tuple[str, ...]
    """The steps with which it begins."""
    final: str
    """The step whose output is that of the flow."""
    loops: tuple[Loop, ...] = ()
    beside: tuple[Beside, ...] = ()
    asks: tuple[Ask, ...] = ()
    nested: dict[str, Layout] = {}
    """The flows within it, as `[flows]` calls them."""
    implied: dict[str, str] = {}

    @property
    def columns(self) -> int:
        """How many there are in the widest row, agents beside it included."""
        return max([len(row) for row in self.rows] + [each.place.column + 1 for each in self.beside])

    def node(self, token: str) -> Node | None:
        """Return where a step, a branch or round of it, or what it implies is drawn; None for what is in no flow."""
        ref = parse(token)
        return None if ref.key else self.nodes.get(self.implied.get(ref.name, ref.name))


def layout_of(plan: Plan) -> Layout:
    """Return the places of a flow, and of those within it."""
    depth = _depths(plan)
    edges = [Edge(source, name) for name in plan.flow.steps for source in plan.before(name)]
    rows = _rows(plan, depth, edges)
    wide = max(map(len, rows))
    places = {
        _key(each, number): Place(number, column, column + (wide - len(row)) / 2)
        for number, row in enumerate(rows)
        for column, each in enumerate(row)
    }
    nodes = {name: _node(plan, name, places[name]) for name in plan.flow.steps}
    passing = {
        (edge.source, edge.target): tuple(
            places[_key(edge, row)] for row in range(depth[edge.source] + 1, depth[edge.target])
        )
        for edge in edges
    }
    full = {pair: Edge(*pair, through) for pair, through in passing.items()}
    asked = tuple(_beside(plan, nodes, [len(row) for row in rows], wide))
    return Layout(
        flow=plan.flow.name,
        nodes=nodes,
        edges=tuple(full.values()),
        rows=tuple(
            tuple(each if isinstance(each, str) else full[each.source, each.target] for each in row) for row in rows
        ),
        first=tuple(name for name in plan.flow.steps if not plan.before(name)),
        final=plan.implied.get(plan.final, plan.final),
        loops=tuple(Loop(last, plan.first_of_loop(last), tuple(again_of(plan, last))) for last in plan.loops),
        beside=asked,
        asks=tuple(_asks(plan, {each.agent: each.key for each in asked})),
        nested={name: layout_of(inner) for name, inner in plan.nested.items()},
        implied=dict(plan.implied),
    )


def _depths(plan: Plan) -> dict[str, int]:
    depth: dict[str, int] = {}
    for name in plan.order:
        if name not in plan.implied:
            depth[name] = max((depth[source] + 1 for source in plan.before(name)), default=0)
    return depth


def _rows(plan: Plan, depth: Mapping[str, int], edges: list[Edge]) -> list[list[str | Edge]]:
    """Return what stands in each row, each member below the mean place of what leads to it: few lines cross then."""
    rows: list[list[str | Edge]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in plan.flow.steps:
        rows[depth[name]].append(name)
    above: dict[str, list[str]] = {}
    """By place: those right above it that lead to it."""
    for edge in edges:
        last = edge.source
        for row in range(depth[edge.source] + 1, depth[edge.target]):
            rows[row].append(edge)
            above[_key(edge, row)] = [last]
            last = _key(edge, row)
        above.setdefault(edge.target, []).append(last)
    for number in range(1, len(rows)):
        index = {_key(each, number - 1): column for column, each in enumerate(rows[number - 1])}
        keys = [_key(each, number) for each in rows[number]]
        means = [sum(index[source] for source in above[key]) / len(above[key]) for key in keys]
        rows[number] = [rows[number][place] for place in sorted(range(len(keys)), key=means.__getitem__)]
    return rows


def _key(each: str | Edge, row: int) -> str:
    return each if isinstance(each, str) else f"{each.source} > {each.target} {row}"


def _node(plan: Plan, name: str, place: Place) -> Node:
    step, agent = plan.flow.steps[name], plan.agent(name)
    nested = plan.nested_of(step.agent)
    does: Does = "flow" if nested else "person" if agent.person else "model" if agent.asks_models else "handler"
    by = {"flow": nested.flow.name if nested else "", "person": agent.person, "handler": agent.handler}
    opening, closing = plan.opening(name) or name, plan.closing(name)
    return Node(
        step=name,
        place=place,
        agent=step.agent,
        does=does,
        by=by[does] if does in by else plan.tier(agent).model,
        each=step.each,
        concurrency=step.concurrency,
        joins=plan.join_policy(opening).wait if opening in plan.joins else "",
        lists=plan.join_policy(closing).wait if closing else "",
        when=tuple(conditions_of(plan, name)),
        asks=tuple(agent.workers),
        nested=agent.flow,
    )


def _places_of(plan: Plan, agent: str) -> list[str]:
    return [name for name, step in plan.flow.steps.items() if step.agent == agent]


def _beside(plan: Plan, nodes: Mapping[str, Node], taken: list[int], wide: int) -> Iterator[Beside]:
    """Yield the agents that do no step, each in the row of who asks it first, right of what is there."""
    asked, seen = asked_agents(plan.flow), set[str]()
    pending = [(node.agent, node.place.row) for node in nodes.values()]
    shift = [(wide - count) / 2 for count in taken]
    for agent, row in pending:
        for name in plan.flow.agents[agent].workers:
            if name in asked and name not in seen and not _places_of(plan, name):
                seen.add(name)
                pending.append((name, row))
                place = Place(row, taken[row], taken[row] + shift[row])
                taken[row] += 1
                yield Beside(key=BESIDE + name, agent=name, place=place)


def _asks(plan: Plan, beside: Mapping[str, str]) -> Iterator[Ask]:
    """Yield who may ask whom, in the order of the agents; an agent that does several steps is asked at the first."""
    places = {name: _places_of(plan, name) or [key for key in [beside.get(name)] if key] for name in plan.flow.agents}
    for name, agent in plan.flow.agents.items():
        for asker in places[name]:
            yield from (Ask(asker, places[worker][0]) for worker in agent.workers)
