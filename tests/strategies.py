"""Hypothesis strategies: flows that pass `check_flow`, of every shape that the routing knows."""

from __future__ import annotations

from hypothesis import strategies as st

from baton_schemas.flow.flow import DEFAULT_TIERS, Agent, Field, Flow, JoinPolicy, OnError, Step

INPUT = {"topic": Field(), "topics": Field(type="list[str]"), "conf": Field(type="dict")}
"""What each generated flow takes: `conf` is `{"items": [...]}`."""

NAMES = "abcdefgh"
ON_ERROR: list[OnError] = ["fail", "continue"]


@st.composite
def flows(draw: st.DrawFn, steps_max: int = 8) -> Flow:
    """Draw a valid flow of 1 to `steps_max` steps: a random graph with one final step.

    A step that another fans out over puts out a list, or `{"items": [...]}` (see `output_shape`).
    """
    count = draw(st.integers(1, steps_max))
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
        name: draw(_agents(bool(step.each), name in fanned_over and not step.each, [*INPUT, *earlier[name]]))
        for name, step in steps.items()
    }
    on_error = draw(st.sampled_from(ON_ERROR))
    return Flow(name="any", input=INPUT, tiers=DEFAULT_TIERS, agents=agents, steps=steps, on_error=on_error)


def output_shape(flow: Flow, step: str) -> str:
    """Return what a step must put out for those that fan out over it: `list`, `items` or `any`."""
    users = [other.each for other in flow.steps.values() if other.each.split(".")[0] == step]
    if flow.steps[step].each or not users:
        return "any"
    return "items" if "." in users[0] else "list"


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
def _agents(draw: st.DrawFn, each: bool, puts_out_a_list: bool, known: list[str]) -> Agent:
    """What a model answers is text, so only a handler can put out a list."""
    subset = st.lists(st.sampled_from(known), unique=True)
    if puts_out_a_list or draw(st.booleans()):
        return Agent(handler="module:name", reads=draw(st.none() | subset))
    named = [*draw(subset), *draw(st.sampled_from([[], ["errors"], *([["item", "index"]] if each else [])]))]
    return Agent(model="worker", prompt="Go. " + " ".join(f"{{{name}}}" for name in named))
