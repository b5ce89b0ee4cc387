"""Which models a flow names, and which provider has each: `NAME/model-id` where [providers] has that name. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from baton_schemas.flow.flow import Flow


def split_model(model: str, providers: Collection[str]) -> tuple[str, str]:
    """Return the provider that a model's name begins with, and its id there; without one, `""` and all of it.

    Gateways have ids with a slash in them: what is before it is a provider only where there is one of that name.
    """
    name, slash, id = model.partition("/")
    return (name, id) if slash and name in providers else ("", model)


def models_named(flow: Flow) -> Iterator[tuple[str, str]]:
    """Yield the place and the id of each model that the flow names: of its tiers, and of its LLM agents' own."""
    for name, tier in flow.tiers.items():
        yield f"tiers.{name}.model", tier.model
    for name, agent in flow.agents.items():
        for place, model in _models_of(f"agents.{name}", agent.model, agent.fallback):
            if model not in flow.tiers:
                yield place, model


def models_asked(flow: Flow) -> frozenset[str]:
    """Return the ids of the models that its LLM agents may ask, fallbacks included. What handlers ask is not known."""
    found: set[str] = set()
    for agent in flow.agents.values():
        if agent.asks_models:
            for name in (agent.model, *agent.fallback):
                found.add(flow.tiers[name].model if name in flow.tiers else name)
    return frozenset(found)


def _models_of(place: str, model: str, fallback: list[str]) -> Iterator[tuple[str, str]]:
    if model:
        yield f"{place}.model", model
    for index, other in enumerate(fallback):
        yield f"{place}.fallback[{index}]", other
