"""Whether the agents of a flow can work: a handler, a prompt or a person, a model, limits, known placeholders."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check_asking import asked_agents, check_given, check_keys, check_workers, refuse_unused
from baton_schemas.flow.check_outputs import check_output
from baton_schemas.flow.check_people import check_no_person, check_person
from baton_schemas.flow.flow import IN_PROCESS, Agent, Flow
from baton_schemas.flow.limits import check_at_least, check_timeout
from baton_schemas.flow.nested import check_kind, check_taken
from baton_schemas.flow.prompts import BadPlaceholder, Placeholder, parse

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*\Z")
_FILE = re.compile(r"(\.{0,2}/)[^:]+\.py:[^\W\d]\w*\Z")


def check_agents(flow: Flow, earlier: Mapping[str, frozenset[str]]) -> None:
    """Raise `FlowError` for the first mistake; `earlier` says which steps each can read."""
    check_workers(flow)
    asked = asked_agents(flow)
    for name, agent in flow.agents.items():
        place = f"agents.{name}"
        _check_limits(place, agent)
        if agent.given and not agent.flow:
            raise FlowError(f"{place}.given", "`given` on an agent that is no flow", "it only with `flow`")
        if agent.flow:
            check_kind(flow, name)
        elif agent.person:
            check_person(place, agent)
        else:
            check_no_person(place, agent)
            if agent.handler:
                _check_handler(place, agent)
            else:
                _check_llm(place, agent, flow)
                check_output(place, agent)
        users = [step for step in flow.steps if flow.steps[step].agent == name]
        if not users and name not in asked:
            refuse_unused(flow, name)
        for step in users:
            _check_names_of(flow, place, agent, step, earlier[step])
        if name in asked:
            check_keys(f"{place}.input", agent.input)
            for key, template in (("system", agent.system), ("prompt", agent.prompt)):
                check_given(place, agent, key, _placeholders(f"{place}.{key}", template))


def _check_limits(place: str, agent: Agent) -> None:
    if agent.concurrency is not None:
        check_at_least(f"{place}.concurrency", agent.concurrency, 1)
    check_at_least(f"{place}.max_in_flight", agent.max_in_flight, 1)
    check_at_least(f"{place}.max_attempts", agent.max_attempts, 1)
    check_timeout(f"{place}.timeout_s", agent.timeout_s)
    if not (math.isfinite(agent.retry_base_s) and agent.retry_base_s > 0):
        raise FlowError(f"{place}.retry_base_s", f"{agent.retry_base_s:g}", "seconds: a number more than 0")
    check_at_least(f"{place}.retry_max_s", agent.retry_max_s, agent.retry_base_s)
    check_timeout(f"{place}.overload_max_s", agent.overload_max_s)
    check_timeout(f"{place}.park_after_s", agent.park_after_s)


def _check_handler(place: str, agent: Agent) -> None:
    if agent.prompt:
        raise FlowError(
            place,
            "both `handler` and `prompt`",
            "one of them: a Python handler or an LLM agent",
            hint="Remove one, or make two agents.",
        )
    if agent.output:
        raise FlowError(
            f"{place}.output",
            "`output` on a handler",
            "it only with `prompt`: what a handler puts out is what its function says that it returns",
        )
    handler = agent.handler
    if handler.startswith(IN_PROCESS):
        return
    path = handler.partition(":")[0]
    if not _FILE.match(handler) and (not _MODULE.match(handler) or path.endswith(".py")):
        hint = f"For a file beside the flow file, write './{handler}'." if path.endswith(".py") else ""
        raise FlowError(f"{place}.handler", repr(handler), "'module:name' or './file.py:name'", hint=hint)


def _check_llm(place: str, agent: Agent, flow: Flow) -> None:
    if not agent.prompt:
        raise FlowError(
            place,
            "neither `handler` nor `prompt`",
            "`handler` for a Python function, `prompt` and `model` for an LLM agent, or `prompt` and `person`",
        )
    if agent.reads is not None:
        raise FlowError(
            f"{place}.reads",
            "`reads` on an LLM agent",
            "it only with `handler`: an LLM agent reads the placeholders of its prompt",
        )
    if not agent.model:
        raise FlowError(f"{place}.model", "no model", "a tier or a model id", hint=nearest(agent.model, flow.tiers))
    tier = flow.tiers.get(agent.model)
    if tier is None and _looks_like_tier(agent.model, flow):
        raise FlowError(
            f"{place}.model",
            f"the unknown tier {agent.model!r}",
            "a tier of [tiers] or a model id",
            hint=nearest(agent.model, flow.tiers),
        )
    if agent.max_tokens < 0:
        raise FlowError(f"{place}.max_tokens", str(agent.max_tokens), "a whole number of at least 1")
    if not agent.max_tokens and not (tier and tier.max_tokens):
        raise FlowError(
            f"{place}.max_tokens",
            "no `max_tokens` in the agent or its tier",
            "a whole number of at least 1",
            hint="Every model call has a cap: 1024 is a good start.",
        )


def _looks_like_tier(model: str, flow: Flow) -> bool:
    if not re.search(r"[-.:/]", model):
        return True
    return bool(difflib.get_close_matches(model, flow.tiers, n=1, cutoff=0.8))


def _check_names_of(flow: Flow, place: str, agent: Agent, step: str, earlier: frozenset[str]) -> None:
    """Check what the agent reads against what there is when `step` begins."""
    known = {*flow.input, *earlier}
    for index, name in enumerate(agent.reads or []):
        if name not in known:
            raise FlowError(
                f"{place}.reads[{index}]",
                f"{name!r}",
                f"an input, or a step that comes before {step!r}",
                hint=nearest(name, known),
            )
    known |= {"errors", "item", "index"} if flow.steps[step].each else {"errors"}
    if agent.flow:
        check_taken(flow, step, known)
    for key, template in (("system", agent.system), ("prompt", agent.prompt)):
        for found in _placeholders(f"{place}.{key}", template):
            if found.name not in known:
                raise FlowError(
                    f"{place}.{key}",
                    f"the placeholder {{{found.name}}} at character {found.position}",
                    f"an input, or a step that comes before {step!r}",
                    hint=_hint_of(found.name, known),
                    near=f"{{{found.name}",
                )


def _check_asked(place: str, agent: Agent) -> None:
    """Check what a person who is only asked by other agents is told, against what these give."""
    for found in _placeholders(f"{place}.prompt", agent.prompt):
        if found.name not in agent.input:
            raise FlowError(
                f"{place}.prompt",
                f"the placeholder {{{found.name}}} at character {found.position}",
                "an `input` of this agent, which only other agents ask",
                hint=nearest(found.name, agent.input) or f'Declare it: `input.{found.name} = "str"`.',
                near=f"{{{found.name}",
            )


def _placeholders(place: str, template: str) -> list[Placeholder]:
    try:
        return parse(template)
    except BadPlaceholder as error:
        raise FlowError(
            place,
            f"{error.text!r} at character {error.position}",
            "a placeholder such as {name} or {name.key}",
            hint="Write {{ and }} for braces.",
            near=error.text,
        ) from error


def _hint_of(name: str, known: set[str]) -> str:
    if name in ("item", "index"):
        return f"{{{name}}} is there only in a step with `each`."
    return nearest(name, known)
