"""Whether the steps of a flow form a graph that ends: known names, no cycle, one end, joins that close."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check_conditions import check_conditions
from baton_schemas.flow.check_loops import check_loops
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.implied import CLOSING, OPENING, joins_before, sources_of
from baton_schemas.flow.limits import CONCURRENCY_MAX, check_deadline, check_timeout
from baton_schemas.wire.names import TOKEN_MAX

Earlier = dict[str, frozenset[str]]


def check_graph(flow: Flow) -> Earlier:
    """Return which steps each can read: those before it, near and far, and those of a loop that it is in.

    Raises `FlowError`.
    """
    if not flow.steps:
        raise FlowError("steps", "no step", "at least one, as [steps.write]")
    for name in flow.steps:
        _check_step(flow, name)
    earlier = _earlier(flow)
    waited_for = _check_final(flow)
    for name in flow.steps:
        _check_each(flow, name, earlier)
        _check_join(flow, name, is_last=name not in waited_for)
        _check_implied(flow, name, is_last=name not in waited_for)
    readable = dict(earlier)
    for steps in check_loops(flow, {name: sources_of(flow, name) for name in flow.steps}, earlier).values():
        readable |= {name: earlier[name] | steps for name in steps}
    for name, step in flow.steps.items():
        what = f"a path into an input, or into a step that comes before {name!r}"
        check_conditions(f"steps.{name}.when", step.when, readable[name] | flow.input.keys(), what)
    return readable


def _check_step(flow: Flow, name: str) -> None:
    step, place = flow.steps[name], f"steps.{name}"
    if step.agent not in flow.agents:
        raise FlowError(
            f"{place}.agent",
            f"the unknown agent {step.agent!r}",
            "the name of an agent of this flow",
            hint=nearest(step.agent, flow.agents),
        )
    for index, source in enumerate(step.after):
        here = f"{place}.after[{index}]"
        if source == name:
            raise FlowError(here, f"{name!r}, the step itself", "a step that comes before it")
        if source not in flow.steps:
            raise FlowError(
                here,
                f"the unknown step {source!r}",
                "the name of a step of this flow",
                hint=nearest(source, [other for other in flow.steps if other != name]),
            )
        if source in step.after[:index]:
            raise FlowError(here, f"{source!r} a second time", "each step once")
    if step.timeout_s is not None:
        check_timeout(f"{place}.timeout_s", step.timeout_s)


def _earlier(flow: Flow) -> Earlier:
    sources = {name: sources_of(flow, name) for name in flow.steps}
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        cycle: list[str] = error.args[1][:-1]
        begin = cycle.index(min(cycle, key=list(flow.steps).index))
        cycle = [*cycle[begin:], *cycle[:begin], cycle[begin]]
        place = f"steps.{cycle[0]}.{'after' if flow.steps[cycle[0]].after else 'each'}"
        raise FlowError(place, f"the cycle {' → '.join(cycle)}", "steps that only wait for earlier ones") from error
    earlier: Earlier = {}
    for name in order:
        earlier[name] = frozenset(sources[name]).union(*(earlier[source] for source in sources[name]))
    return earlier


def _check_final(flow: Flow) -> set[str]:
    """Return the steps that others wait for: all but one."""
    waited_for = {source for name in flow.steps for source in sources_of(flow, name)}
    final = [name for name in flow.steps if name not in waited_for]
    if len(final) > 1:
        names = " and ".join(repr(name) for name in final)
        raise FlowError(
            "steps",
            f"{len(final)} steps that nothing comes after: {names}",
            "exactly one final step",
            hint=f"Join them with one step that is `after` {'both' if len(final) == 2 else 'all of them'}.",
        )
    return waited_for


def _check_each(flow: Flow, name: str, earlier: Earlier) -> None:
    each, place, concurrency = flow.steps[name].each, f"steps.{name}.each", flow.steps[name].concurrency
    if concurrency is not None:
        _check_concurrency(f"steps.{name}.concurrency", concurrency, each)
    if not each:
        return
    root, *path = each.split(".")
    if root in flow.input:
        kind = flow.input[root].type.strip()
        if not (kind.startswith(("dict", "any")) if path else kind.startswith(("list", "any"))):
            expected = "of type dict, to take a key of" if path else "of a list type, to run once per item"
            raise FlowError(place, f"the input {root!r} of type {kind}", f"an input {expected}")
    elif root not in earlier[name]:
        raise FlowError(
            place,
            repr(each),
            f"a list of the input, or a step that comes before {name!r}",
            hint=nearest(root, {*flow.input, *earlier[name]}),
        )


def _check_concurrency(place: str, concurrency: int, each: str) -> None:
    if not each:
        raise FlowError(
            place,
            "`concurrency` on a step without `each`",
            "it only where a step runs once per item",
            hint="How many steps a worker holds at once is `concurrency` of the agent.",
        )
    if not 1 <= concurrency <= CONCURRENCY_MAX:
        raise FlowError(place, str(concurrency), f"a whole number from 1 to {CONCURRENCY_MAX}")


def _check_implied(flow: Flow, name: str, *, is_last: bool) -> None:
    """Check that what this step implies can be named in a subject."""
    joins = joins_before(flow, sources_of(flow, name))
    suffix = max((OPENING if joins else "", CLOSING if is_last else ""), key=len) if flow.steps[name].each else ""
    if len(name) + len(suffix) > TOKEN_MAX:
        raise FlowError(
            f"steps.{name}",
            f"a name of {len(name)} characters",
            f"{TOKEN_MAX - len(suffix)} at most, as what merges its branches is called {name + suffix!r}",
        )


def _check_join(flow: Flow, name: str, *, is_last: bool) -> None:
    join, place = flow.steps[name].join, f"steps.{name}.join"
    if join is None:
        return
    sources = sources_of(flow, name)
    fans_out = any(flow.steps[source].each for source in sources)
    if len(sources) < 2 and not fans_out:
        if not (is_last and flow.steps[name].each):
            raise FlowError(
                place,
                "`join` on a step that waits for no branches",
                "it only after several steps, or after a step with `each`, or on a last step with `each`",
            )
        fans_out = True  # its own branches
    most = None if fans_out else len(sources)
    if isinstance(join.wait, int):
        _check_count(f"{place}.wait", join.wait, 1, most)
    _check_count(f"{place}.min_done", join.min_done, 0, most)
    if join.deadline_s is not None:
        check_deadline(f"{place}.deadline_s", join.deadline_s)
    if isinstance(join.wait, int) and join.min_done > join.wait:
        raise FlowError(
            f"{place}.min_done",
            str(join.min_done),
            f"at most {join.wait}: the join closes once `wait` branches ended well",
        )


def _check_count(place: str, found: int, least: int, most: int | None) -> None:
    if most is None and found < least:
        raise FlowError(place, str(found), f"a whole number of at least {least}")
    if most is not None and not least <= found <= most:
        raise FlowError(
            place, str(found), f"a number from {least} to {most}: no more than {most} branches can end well"
        )
