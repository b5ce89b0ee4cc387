"""A flow worked out: who follows whom, what joins, what each step reads and what must be carried to it."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import PurePath

from baton_schemas.flow.conditions import roots_of
from baton_schemas.flow.flow import (
    Agent,
    BatchPolicy,
    Flow,
    JoinPolicy,
    Limit,
    OnFailedBranch,
    Step,
    Tier,
    encode_flow,
    flow_digest,
)
from baton_schemas.flow.implied import CLOSING, IMPLIED, OPENING, lay_out, sources_of
from baton_schemas.flow.loops import loops_of
from baton_schemas.flow.nested import FILE, flow_of, input_of, taken
from baton_schemas.flow.prompts import parse
from baton_schemas.flow.types import has_files
from baton_schemas.flow.versions import version_needed
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.refs import name_of as step_of
from baton_schemas.run.refs import parse as parse_ref
from baton_schemas.wire.messages import ASKING
from baton_schemas.wire.names import actor_name

LAST = ".last"
"""Behind the name of a step, in the state of a run: what it put out in the round before. No name has a dot."""
_BUILT_IN = frozenset({"item", "index", "errors"})
"""Names that a step is given without anybody carrying them."""


class Plan:
    """The graph of a flow that passed `check_flow`. Immutable; made once per version of a flow.

    Steps are named without a branch's index throughout. Those that `each` implies are among them (see `implied`); how
    the flow is written is in `flow`.
    """

    def __init__(self, flow: Flow, source: str = "") -> None:
        """`source` says where the flow's file is, if it has one: a hint for people, no part of what the flow is."""
        self.flow, self.source = flow, source
        self.body = encode_flow(flow)
        self.digest = flow_digest(self.body)
        self.steps, self.sources, self.implied = lay_out(flow)
        self.version = ASKING if self.implied else version_needed(flow)
        """Of the wire: releases that know only an older one give runs of this flow back."""
        self.order = tuple(TopologicalSorter(self.sources).static_order())
        self.successors = {
            name: tuple(other for other in self.steps if name in self.sources[other]) for name in self.steps
        }
        self.first = tuple(name for name in self.steps if not self.sources[name])
        delivered = {agent.delivery for agent in flow.agents.values()} | {step.delivery for step in self.steps.values()}
        self._has_batches = "batch" in delivered
        (self.final,) = [name for name in self.steps if not self.successors[name]]
        self.joins = frozenset(
            name
            for name, sources in self.sources.items()
            if len(sources) > 1 or any(self.steps[source].each for source in sources)
        )
        self.leaves_branches = any(agent.workers for agent in flow.agents.values()) or any(
            step.join is not None and (step.join.wait != "all" or step.join.deadline_s is not None)
            for step in self.steps.values()
        )
        """Whether a run can be done while some of its branches are not, or some of what its handlers asked for."""
        self.handlers_ask_flows = any(
            flow.agents[worker].flow
            for agent in flow.agents.values()
            for worker in agent.workers
            if worker in flow.agents
        )
        """Whether a step can be done while runs that it asked for are not."""
        self.skips = any(step.when for step in flow.steps.values())
        """Whether a step may be left out."""
        self.starts_many = len(self.first) > 1 or bool(self.steps[self.first[0]].each)
        """Whether more than one message may begin a run."""
        self.followers = {name: frozenset(found) for name, found in self.successors.items()}
        self.timed_joins = frozenset(name for name in self.joins if self.join_policy(name).deadline_s is not None)
        self.earlier: dict[str, frozenset[str]] = {}
        """By step: all that come before it, near and far."""
        for name in self.order:
            sources = self.sources[name]
            self.earlier[name] = frozenset(sources).union(*(self.earlier[source] for source in sources))
        self.loops = loops_of(flow, self.earlier)
        """The steps of each loop, by the step with `again` that ends it."""
        self.loop_of = {name: last for last, steps in self.loops.items() for name in steps}
        """By step that is in a loop: the step that ends it."""
        self.skippable = self._skippable()
        """The steps that may be left out: they have a `when`, or all that comes right before them may be left out."""
        self.reads = {name: self._reads(name) for name in self.steps}
        self.carried = self._carried()
        self.nested = {name: Plan(inner, source_within(source, name)) for name, inner in flow.flows.items()}
        """The flows that its agents are, by what `flow` says of each."""
        self._actors = {name: agent.actor or actor_name(flow.name, name) for name, agent in flow.agents.items()}
        self._actors_of = {name: self._actors[step.agent] for name, step in self.steps.items()}
        self._agents_of = {
            name: IMPLIED if name in self.implied else flow.agents[step.agent] for name, step in self.steps.items()
        }

    def name_of(self, step: str) -> str:
        """Return the step that `step` is or is a branch of."""
        return step if step in self.steps else step_of(step)

    def agent(self, step: str) -> Agent:
        """Return the agent that does a step, a branch of it, or a child step. Raises KeyError."""
        found = self._agents_of.get(step)
        if found is not None:
            return found
        ref = parse_ref(step)
        return self.flow.agents[ref.name] if ref.key else self._agents_of[ref.name]

    def agent_of(self, step: str) -> str:
        """Return the name of the agent that does a step, a branch of it, or a child step. Raises KeyError."""
        own = self.steps.get(step)
        if own is not None:
            return own.agent
        ref = parse_ref(step)
        return ref.name if ref.key else self.steps[ref.name].agent

    def step(self, step: str) -> Step:
        """Return a step by its name or by the name of one of its branches. Raises KeyError."""
        return self.steps[self.name_of(step)]

    def actor(self, step: str) -> str:
        """Return the subject token of the actor that does a step, a branch of it, or a child step. Raises KeyError."""
        found = self._actors_of.get(step)
        return self._actors[self.agent_of(step)] if found is None else found

    def actor_of_agent(self, agent: str) -> str:
        """Return the subject token of the actor that plays an agent. Raises KeyError."""
        return self._actors[agent]

    def actors(self) -> dict[str, str]:
        """Return the agents of the flow by the subject token of their actor: those of steps, and those they may ask."""
        used = dict.fromkeys([*(step.agent for step in self.flow.steps.values()), *self.flow.agents])
        return {self._actors[name]: name for name in used}

    def inputs_of(self, step: str) -> frozenset[str]:
        """Return the names that a step, a branch of it or a child step reads."""
        found = self.reads.get(step)
        if found is not None:
            return found
        ref = parse_ref(step)
        return frozenset(input_of(self.flow, ref.name)) if ref.key else self.reads[ref.name]

    def nested_of(self, agent: str) -> Plan | None:
        """Return the plan of the flow that an agent is; None for one that is none. Raises KeyError."""
        own = self.flow.agents[agent].flow
        return self.nested[own] if own else None

    def tier(self, agent: Agent) -> Tier:
        """Return the model and the `max_tokens` of an LLM agent, its own before its tier's."""
        tier = self.flow.tiers.get(agent.model, Tier(model=agent.model))
        return Tier(model=tier.model, max_tokens=agent.max_tokens or tier.max_tokens)

    def model(self, name: str) -> str:
        """Return the id of a model that is named by its tier or as it is."""
        tier = self.flow.tiers.get(name)
        return name if tier is None else tier.model

    @cached_property
    def takes_files(self) -> bool:
        """Whether the input has files, or may have some in it."""
        return any(map(has_files, self.flow.input.values()))

    @cached_property
    def limits(self) -> dict[str, Limit]:
        """What may be asked, by the id of each model that has a limit."""
        return {self.model(name): limit for name, limit in self.flow.limits.items()}

    def timeout_s(self, step: str) -> float:
        """Return how long one attempt of a step may take, in seconds."""
        own = None if key_of_child(step) else self.step(step).timeout_s
        return self.agent(step).timeout_s if own is None else own

    def by_batch(self, step: str) -> BatchPolicy | None:
        """Return how the model calls of a step are gathered; None when they are made at once, or there are none."""
        if not self._has_batches:
            return None
        own, agent = None if key_of_child(step) else self.step(step), self.agent(step)
        delivery = own.delivery if own is not None and own.delivery is not None else agent.delivery
        if delivery != "batch" or not agent.asks_models:
            return None
        return (own.batch if own is not None else None) or agent.batch or BatchPolicy()

    def gathers(self, agent: str) -> BatchPolicy | None:
        """Return how most calls of an agent may be gathered at once; None when none are, in this version of it."""
        found = [self.by_batch(name) for name, step in self.steps.items() if step.agent == agent]
        own = self.flow.agents[agent]
        if own.delivery == "batch" and own.asks_models:  # others may ask it
            found.append(own.batch or BatchPolicy())
        return max(filter(None, found), key=lambda policy: policy.count, default=None)

    def fails_run(self, step: str) -> bool:
        """Say whether a failure of this step (not of its place in a join) ends the run."""
        return (self.step(step).on_error or self.flow.on_error) == "fail"

    def join_policy(self, step: str) -> JoinPolicy:
        """Return the policy of a step that joins."""
        return self.step(step).join or JoinPolicy()

    def closes_early(self, step: str) -> bool:
        """Say whether a step that joins may begin while some of its branches are not done."""
        policy = self.join_policy(step)
        return policy.wait != "all" or policy.deadline_s is not None

    def on_failed_branch(self, join: str, branch: str) -> OnFailedBranch:
        """Say what a failed branch means to the step that joins it."""
        return self.join_policy(join).failed or ("fail" if self.fails_run(branch) else "skip")

    def ends_run(self, step: str, successor: str) -> bool:
        """Say whether a failure of `step` ends the run before `successor` begins."""
        if successor in self.joins:
            return self.on_failed_branch(successor, step) == "fail"
        return self.fails_run(step)

    def record_needs(self, step: str) -> frozenset[str]:
        """Return the names that the successors of a step need from its record."""
        needs: set[str] = set()
        for successor in self.successors[step]:
            needs |= self.carried[successor] | self.entered_by(successor)
        return frozenset(needs | self._next_needs(step, self.carried))

    def key(self, step: str, name: str) -> str:
        """Return under which key of a run's state a step finds what it reads under a name.

        That is the name itself, but within a loop for steps that do not come before it: of these it reads what they put
        out in the round before. A child reads what it is asked with.
        """
        base = "" if key_of_child(step) else self.name_of(step)
        last = self.loop_of.get(base)
        if last is None or name not in self.loops[last] or name in self.earlier[base]:
            return name
        return name + LAST

    def first_of_loop(self, last: str) -> str:
        """Return the step that begins the rounds of the loop that `last` ends."""
        again = self.steps[last].again
        assert again is not None
        return again.start

    def rounds_max(self, step: str) -> int:
        """Return how many rounds a step has at the most: 1 for one that is in no loop."""
        again = self.steps[self.loop_of[step]].again if step in self.loop_of else None
        return again.max_rounds if again is not None else 1

    def why_lacking(self, step: str, name: str) -> str:
        """Return why a step may be done without what a name stands for, though nothing failed; empty if it may not."""
        if self.key(step, name) != name:
            return f"{name!r} is that of the round before, and there is none in the first"
        if name in self.skippable and name not in self._done_with[step]:
            return f"step {name!r} may have been skipped"
        return ""

    def left_out_with(self, step: str, name: str) -> bool:
        """Say whether a step is left out whenever another is, as that is on every way to it."""
        return name != step and name in self.skippable and not self.why_lacking(step, name)

    @cached_property
    def _done_with(self) -> dict[str, frozenset[str]]:
        """By step: those that were not left out when it is not, as they are on every way to it, or in its `when`."""
        found: dict[str, frozenset[str]] = {}
        for step in self.order:
            ways = [found[source] for source in self.sources[step]]
            seen = [found[root] for root in roots_of(self.steps[step].when) & self.earlier[step]]
            before = frozenset.intersection(*ways) if ways else frozenset[str]()
            found[step] = before.union({step}, *seen)
        return found

    def _skippable(self) -> frozenset[str]:
        found: set[str] = set()
        for name in self.order:
            sources = self.sources[name]
            if self.steps[name].when is not None or (sources and found.issuperset(sources)):
                found.add(name)
        return frozenset(found)

    def opening(self, step: str) -> str:
        """Return the step that joins before this one fans out; empty when there is none."""
        return step + OPENING if step + OPENING in self.implied else ""

    def closing(self, step: str) -> str:
        """Return the step that puts out the list of what the branches of this one do; empty when there is none."""
        return step + CLOSING if step + CLOSING in self.implied else ""

    def before(self, step: str) -> tuple[str, ...]:
        """Return the steps right before one, as the flow is written."""
        return self.sources[self.opening(step) or step]

    def _reads(self, step: str) -> frozenset[str]:
        if step not in self.implied:
            return reads_of(self.flow, step)
        return frozenset(self.sources[step]) if self.closing(self.implied[step]) == step else frozenset()

    def _carried(self) -> dict[str, frozenset[str]]:
        """For each step: the keys of the state that it or a later step reads, also one of a later round."""
        carried = self._carried_with({})
        # What the next round of a loop needs comes to its end through all of this one.
        return self._carried_with(carried) if self.loops else carried

    def _carried_with(self, known: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        carried: dict[str, frozenset[str]] = {}
        for name in reversed(self.order):
            needs = {self.key(name, read) for read in self.reads[name]}
            if any(self.steps[source].each and source in needs for source in self.before(name)) and self.opening(name):
                needs.add(self.opening(name))  # which of the branches that it joined there are
            if not self.steps[name].each:
                needs |= {self.key(name, root) for root in roots_of(self.steps[name].when)}
            needs |= self._next_needs(name, known)
            for successor in self.successors[name]:
                keys = carried[successor] | self.entered_by(successor)
                enters = self.loop_of.get(successor) not in (None, self.loop_of.get(name))
                needs |= {key for key in keys if not key.endswith(LAST)} if enters else keys
            carried[name] = frozenset(needs - {name})
        return carried

    def entered_by(self, step: str) -> frozenset[str]:
        """Return the keys that decide what a fan-out is handed: its list, and what its `when` looks into.

        Whoever hands it on needs them. Of another step, whoever holds its handoff does: they are carried there.
        """
        found = self.steps[step]
        if not found.each:
            return frozenset()
        return each_of(self, step) | {self.key(step, root) for root in roots_of(found.when)}

    def _next_needs(self, step: str, carried: Mapping[str, frozenset[str]]) -> frozenset[str]:
        """Return the keys that a step needs for deciding on another round, and for handing on what that reads."""
        again = self.steps[step].again
        if again is None:
            return frozenset()
        loop, keys = self.loops[step], carried.get(again.start, frozenset()) | self.entered_by(again.start)
        last = {key.removesuffix(LAST) for key in keys if key.endswith(LAST)}
        outside = {key for key in keys if not key.endswith(LAST) and key not in loop}
        return roots_of(again.when) | last | outside


def source_within(source: str, name: str) -> str:
    """Return where the file of a flow is that an agent of another one is; empty where that is not known."""
    if not FILE.match(name):
        return name
    where = PurePath(source)
    return os.path.normpath(where.parent / name) if where.is_absolute() else ""


def each_of(plan: Plan, name: str) -> frozenset[str]:
    """Return the name of the value that a step fans out over, or nothing."""
    each = plan.steps[name].each
    return frozenset({each.split(".")[0]}) if each else frozenset()


def reads_of(flow: Flow, name: str) -> frozenset[str]:
    """Return the inputs and steps that a step reads.

    An LLM agent, or a person, reads its placeholders; one that is a flow what its runs are given; a handler its
    `reads`, or else the input and the steps before it.
    """
    agent = flow.agents[flow.steps[name].agent]
    if flow_of(flow, flow.steps[name].agent) is not None:
        named = {found.name for found in taken(flow, name).values()}
    elif not agent.handler:
        named = {found.name for text in (agent.system, agent.prompt) for found in parse(text)}
    elif agent.reads is not None:
        named = set(agent.reads)
    else:
        named = {*flow.input, *sources_of(flow, name)}
    return frozenset(named - _BUILT_IN)
