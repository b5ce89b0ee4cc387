"""Whether the models of a flow can be asked: providers that can be reached, names that lead to them, limits on them."""

from __future__ import annotations

import difflib
import re
from typing import get_args
from urllib.parse import urlsplit

import msgspec

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.flow import Agent, Caching, Flow, Limit, Provider, Step
from baton_schemas.flow.limits import check_parts
from baton_schemas.flow.models import models_asked, models_named
from baton_schemas.wire.names import TOKEN

FALLBACKS_MAX = 10
"""Of an agent. Two are what people mean; each more is one more that has to be overloaded before a step waits."""
LIMIT_MAX = 10**9
"""Of what is counted in a minute: more than any provider sells."""
SLOTS_MAX = 1_000
"""Calls at once: whoever looks for a place reads all that are taken, in one request."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def check_models(flow: Flow) -> None:
    """Raise `FlowError` for the first mistake in [providers], in [limits], or in a model's name."""
    for place, parts in (("providers", flow.providers), ("limits", flow.limits)):
        check_parts(place, len(parts))
    for name, provider in flow.providers.items():
        _check_provider(f"providers.{name}", name, provider, flow)
    for place, model in models_named(flow):
        _check_name(place, model, flow)
    for name, agent in flow.agents.items():
        _check_fallback(f"agents.{name}", name, flow)
        _check_cache(f"agents.{name}.cache", agent)
    for name, step in flow.steps.items():
        if step.warm:
            _check_warm(f"steps.{name}.warm", step, flow)
    named: dict[str, str] = {}
    for name, limit in flow.limits.items():
        model = flow.tiers[name].model if name in flow.tiers else name
        if model in named:
            found = f"another limit of {model!r}, which {named[model]!r} names too"
            raise FlowError(f"limits.{name}", found, "one table for each model")
        named[model] = name
        _check_limit(f"limits.{name}", model, limit, flow)


def _check_provider(place: str, name: str, provider: Provider, flow: Flow) -> None:
    if not TOKEN.match(name):
        raise FlowError(place, repr(name), "1 to 64 characters from A-Z, a-z, 0-9, '_' and '-'")
    if name in flow.tiers:
        raise FlowError(place, f"a tier that is called {name!r} too", "another name for one of the two")
    try:
        parts = urlsplit(provider.base_url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        parts, bad = urlsplit(""), True
    if "@" in parts.netloc:  # it goes into the log with the flow: not shown here either
        expected = "a URL without one: `key_env` names the variable that has the key"
        raise FlowError(f"{place}.base_url", "a login in the URL", expected)
    if bad or parts.query or parts.fragment:
        expected = "http(s)://host[:port][/path], the part before /v1/messages"
        raise FlowError(f"{place}.base_url", repr(provider.base_url), expected)
    if provider.key_env and not _VARIABLE.match(provider.key_env):  # maybe a key: not shown
        expected = f"the name of one, as {name.upper().replace('-', '_')}_KEY: the key itself stands in the environment"
        raise FlowError(f"{place}.key_env", "what is no name of a variable", expected)
    if provider.auth == "bearer" and not provider.key_env:
        raise FlowError(f"{place}.auth", "'bearer' without a key", "`key_env`, the variable that has the key")


def _check_name(place: str, model: str, flow: Flow) -> None:
    name, slash, id = model.partition("/")
    if not slash or not flow.providers:
        return
    if name not in flow.providers:
        if difflib.get_close_matches(name, flow.providers, n=1, cutoff=0.6):
            expected = "`NAME/model-id` with a name of [providers]"
            raise FlowError(place, f"the unknown provider {name!r}", expected, hint=nearest(name, flow.providers))
    elif not id.strip():
        raise FlowError(place, repr(model), f"the id of a model behind the slash, as '{name}/model-id'")


def _check_fallback(place: str, name: str, flow: Flow) -> None:
    agent = flow.agents[name]
    if not agent.fallback:
        return
    if not agent.asks_models:
        raise FlowError(f"{place}.fallback", "`fallback` on what is no LLM agent", "it only with `model` and `prompt`")
    if len(agent.fallback) > FALLBACKS_MAX:
        raise FlowError(f"{place}.fallback", f"{len(agent.fallback)} models", f"at most {FALLBACKS_MAX}")
    seen = [agent.model]
    for index, other in enumerate(agent.fallback):
        here = f"{place}.fallback[{index}]"
        if not other.strip():
            raise FlowError(here, "an empty string", "a tier or the id of a model")
        if other not in flow.tiers and not re.search(r"[-.:/]", other):
            hint = nearest(other, flow.tiers)
            raise FlowError(here, f"the unknown tier {other!r}", "a tier of [tiers] or a model id", hint=hint)
        model = flow.tiers[other].model if other in flow.tiers else other
        if model in [flow.tiers[each].model if each in flow.tiers else each for each in seen]:
            raise FlowError(here, f"{model!r} once more", "another model than those before it")
        seen.append(other)


def _check_cache(place: str, agent: Agent) -> None:
    known = get_args(Caching)
    if agent.cache not in known:
        close = nearest(str(agent.cache), known)
        raise FlowError(place, repr(agent.cache), " or ".join(map(repr, known)), hint=close)
    if agent.cache != "5m" and not agent.asks_models:
        raise FlowError(place, "`cache` on what is no LLM agent", "it only with `model` and `prompt`")


def _check_warm(place: str, step: Step, flow: Flow) -> None:
    if not step.each:
        raise FlowError(place, "`warm` on a step without `each`", "it only where branches have something in common")
    agent = flow.agents.get(step.agent)
    if agent is None:  # told with its place by the graph
        return
    if not agent.asks_models:
        raise FlowError(
            place, f"`warm` on a step of {step.agent!r}, which is no LLM agent", "it only where one is asked"
        )
    if agent.cache == "off":
        expected = f"one of the two: agents.{step.agent}.cache as '5m' or '1h', or no `warm`"
        raise FlowError(place, "`warm` where nothing is cached", expected)


def _check_limit(place: str, model: str, limit: Limit, flow: Flow) -> None:
    keys = {field.name: getattr(limit, field.name) for field in msgspec.structs.fields(limit)}
    for key, value in keys.items():
        most = SLOTS_MAX if key == "concurrency" else LIMIT_MAX
        if value is not None and not 1 <= value <= most:
            raise FlowError(f"{place}.{key}", str(value), f"a whole number from 1 to {most:,}")
    if all(value is None for value in keys.values()):
        raise FlowError(place, "a table without a limit", f"one or more of {', '.join(keys)}")
    asked = models_asked(flow)
    close = difflib.get_close_matches(model, {*asked, *flow.tiers}, n=1, cutoff=0.8)
    asks_itself = any(agent.handler for agent in flow.agents.values())  # what its handlers ask is not known
    if model not in asked and (close or not asks_itself):
        expected = "a model that an agent of this flow asks, or its tier"
        hint = nearest(model, sorted({*asked, *flow.tiers}))
        raise FlowError(place, f"the model {model!r}, which none asks", expected, hint=hint)
