"""Hypothesis strategies: flows that pass `check_flow`, of every shape that the routing knows."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from baton_schemas.errors import FlowError
from baton_schemas.flow.check_loops import check_loops
from baton_schemas.flow.flow import (
    DEFAULT_TIERS,
    Again,
    Agent,
    Conditions,
    Field,
    Flow,
    JoinPolicy,
    OnError,
    OnLast,
    Step,
)
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.implied import sources_of

INPUT = {"topic": Field(), "topics": Field(type="list[str]"), "conf": Field(type="dict")}
"""What each generated flow takes: `conf` is `{"items": [...]}`."""

NAMES = "abcdefgh"
ON_ERROR: list[OnError] = ["fail", "continue"]
ON_LAST: list[OnLast] = ["continue", "fail"]


@st.composite
def flows(draw: st.DrawFn, steps_max: int = 8, *, loops: bool = False) -> Flow:
    """Draw a valid flow of 1 to `steps_max` steps: a random graph with one final step.

    With `loops` it has a loop, where there can be one. A step that another fans out over puts out a list, or
    `{"items": [...]}` (see `output_shape`).
    """
    count = draw(st.integers(1, steps_max))
    conditional = loops or draw(st.booleans())
    steps: dict[str, Step] = {}
    earlier: dict[str, frozenset[str]] = {}
    sources: dict[str, list[str]] = {}
    for name in NAMES[:count]:
        final = name == NAMES[count - 1]
        open_ends = [other for other in steps if all(other not in after for after in sources.values())]
        after = (
            open_ends
            if final
            else draw(st.lists(st.sampled_from(list(steps)), unique=True, max_size=3))
            if steps
            else []
        )
        each = draw(_each(after, steps, earlier))
        sources[name] = after or [root for root in [each.split(".")[0]] if root in steps]
        earlier[name] = frozenset(sources[name]).union(*(earlier[source] for source in sources[name]))
        joins = len(sources[name]) > 1 or any(steps[source].each for source in sources[name])
        lists = bool(final and each and not joins)
        steps[name] = Step(
            agent=name,
            after=after,
            each=each,
            concurrency=draw(st.none() | st.integers(1, 3)) if each else None,
            join=draw(_joins(sources[name], steps, lists=lists)) if joins or lists else None,
            on_error=draw(st.sampled_from([None, *ON_ERROR])),
        )
    fanned_over = {step.each.split(".")[0] for step in steps.values()}
    agents = {
        name: draw(
            _agents(
                bool(step.each),
                name in fanned_over and not step.each,
                [*INPUT, *earlier[name]],
                "?" if conditional else "",
            )
        )
        for name, step in steps.items()
    }
    on_error = draw(st.sampled_from(ON_ERROR))
    flow = Flow(name="any", input=INPUT, tiers=DEFAULT_TIERS, agents=agents, steps=steps, on_error=on_error)
    if not conditional:
        return flow
    if loops or draw(st.booleans()):
        flow = draw(_loops(flow, earlier))
        steps = flow.steps
    readable = {name: set(earlier[name]) for name in steps}
    for loop in _loops_of(flow):
        readable |= {name: {*earlier[name], *loop} for name in loop}
    paths = {name: [_path(flow, other) for other in sorted(readable[name])] for name in steps}
    return replace(
        flow, steps={name: replace(step, when=draw(_conditions(paths[name]))) for name, step in steps.items()}
    )


def output_shape(flow: Flow, step: str) -> str:
    """Return what a step must put out for those that fan out over it: `list`, `items` or `any`."""
    users = [other.each for other in flow.steps.values() if other.each.split(".")[0] == step]
    if flow.steps[step].each or not users:
        return "any"
    return "items" if "." in users[0] else "list"


def _may_loop(flow: Flow, earlier: dict[str, frozenset[str]], last: str, start: str) -> bool:
    again = Again(start=start, when={_path(flow, last): "x"}, max_rounds=2)
    other = replace(flow, steps={**flow.steps, last: replace(flow.steps[last], again=again)})
    try:
        check_loops(other, {name: sources_of(flow, name) for name in flow.steps}, earlier)
    except FlowError:
        return False
    return True


@st.composite
def _loops(draw: st.DrawFn, flow: Flow, earlier: dict[str, frozenset[str]]) -> Flow:
    """The same flow with a loop or two, whose condition holds now and then, and prompts that look a round back."""
    for _ in range(draw(st.integers(1, 2))):
        found = [(last, start) for last in flow.steps for start in flow.steps if _may_loop(flow, earlier, last, start)]
        if not found:
            return flow
        last, start = draw(st.sampled_from(found))
        calls = draw(st.lists(st.integers(1, 20), unique=True, min_size=14))
        again = Again(
            start=start,
            when={_path(flow, last): [f"call {number}" for number in calls]},
            max_rounds=draw(st.integers(2, 4)),
            on_last=draw(st.sampled_from(ON_LAST)),
        )
        flow = replace(flow, steps={**flow.steps, last: replace(flow.steps[last], again=again)})
    agents = dict(flow.agents)
    for steps in _loops_of(flow):
        for step in sorted(steps):
            back = draw(st.lists(st.sampled_from(sorted(steps)), unique=True, max_size=2))
            agent = agents[step]
            if agent.asks_models:
                agents[step] = replace(agent, prompt=" ".join([agent.prompt, *(f"{{{name}?}}" for name in back)]))
            elif agent.reads is not None:
                agents[step] = replace(agent, reads=list(dict.fromkeys([*agent.reads, *back])))
    return replace(flow, agents=agents)


def _loops_of(flow: Flow) -> list[frozenset[str]]:
    """The steps of each loop that are written."""
    return [loop & flow.steps.keys() for loop in Plan(flow).loops.values()]


def _path(flow: Flow, step: str) -> str:
    """A path to a text that a step put out (see `Simulator`)."""
    if flow.steps[step].each:
        return f"{step}.0"
    return {"list": f"{step}.0", "items": f"{step}.items.0", "any": step}[output_shape(flow, step)]


def _afters(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True, max_size=3) if names else st.just([])


def _each(after: list[str], steps: dict[str, Step], earlier: dict[str, frozenset[str]]) -> st.SearchStrategy[str]:
    within = set(after).union(*(earlier[source] for source in after)) if after else set(steps)
    # By its name each step has one shape of output, so that all who fan out over it agree.
    lists = [name if steps[name].each or name in "aceg" else f"{name}.items" for name in sorted(within)]
    return st.sampled_from(["", "", "topics", "conf.items", *lists])


@st.composite
def _joins(draw: st.DrawFn, after: list[str], steps: dict[str, Step], *, lists: bool) -> JoinPolicy | None:
    if draw(st.booleans()):
        return None
    most = 4 if lists or any(steps[source].each for source in after) else len(after)
    wait = draw(st.sampled_from(["all", *range(1, most + 1)]))
    return JoinPolicy(
        wait=wait,
        min_done=draw(st.integers(0, wait if isinstance(wait, int) else most)),
        failed=draw(st.sampled_from([None, "fail", "skip", "pass"])),
        deadline_s=draw(st.sampled_from([None, None, 5.0])),
    )


@st.composite
def _conditions(draw: st.DrawFn, paths: list[str]) -> Conditions | None:
    """Conditions that hold now and then: on the input, and on what an earlier step put out (see `Simulator`)."""
    if draw(st.integers(0, 2)):
        return None
    found: Conditions = draw(st.sampled_from([{}, {"topic": "t"}, {"topics.0": "x"}, {"conf.items.1": ["x", "y"]}]))
    if paths and (not found or draw(st.booleans())):
        calls = draw(st.lists(st.integers(1, 9), unique=True, min_size=4))
        found = {**found, draw(st.sampled_from(paths)): [f"call {number}" for number in calls]}
    return found or None


@st.composite
def _agents(draw: st.DrawFn, each: bool, puts_out_a_list: bool, known: list[str], mark: str) -> Agent:
    """What a model answers is text, so only a handler can put out a list."""
    subset = st.lists(st.sampled_from(known), unique=True)
    if puts_out_a_list or draw(st.booleans()):
        return Agent(handler="module:name", reads=draw(st.none() | subset))
    named = [*draw(subset), *draw(st.sampled_from([[], ["errors"], *([["item", "index"]] if each else [])]))]
    return Agent(model="worker", prompt="Go. " + " ".join(f"{{{name}{mark}}}" for name in named))
