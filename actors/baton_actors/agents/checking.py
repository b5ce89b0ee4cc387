"""Checking a flow without running it: the file, its handlers, and the models that it asks. Handlers are imported."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from baton_actors.agents.fitting import misfits
from baton_actors.agents.handlers import Handler
from baton_actors.agents.loading import FoundFlow, find_flow, load_handlers, load_tools, with_nested
from baton_actors.agents.tools.servers import MISSING, has_package
from baton_actors.errors import ActorError
from baton_actors.models import ModelError, ModelSettings, load_prices
from baton_actors.models.prices import Prices, price_of
from baton_schemas.errors import Coded, SchemaError, nearest
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.conditions import roots_of
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.models import models_asked
from baton_schemas.flow.nested import description_of
from baton_schemas.flow.prompts import parse
from baton_schemas.flow.toml_lines import line_of
from baton_schemas.flow.used_tools import servers_of, variables_of
from baton_schemas.wire.money import UNPRICED

Level = Literal["error", "warning"]


class Problem(Struct, frozen=True, kw_only=True):
    """What is wrong with a flow. An `error` keeps it from running, a `warning` does not."""

    level: Level = "error"
    code: str
    """For programs: that of the error's class, or `misfit`, `unpriced_model`, `no_description`, `no_mcp`,
    `no_program`, `no_variable`, `left_out`."""
    message: str


class CheckedFlow(Struct, frozen=True, kw_only=True):
    """A flow, and what is wrong with it."""

    source: str
    """As it was asked for."""
    flow: str = ""
    """Its name; empty when it cannot be read."""
    steps: list[str] = []
    asked: list[str] = []
    """Agents that others may ask while they work."""
    handlers: list[str] = []
    """As the flow names them."""
    tools: list[str] = []
    """What models may call besides agents, as the flow names it."""
    models: list[str] = []
    """That its LLM agents ask, tiers resolved."""
    has_clients: bool = False
    """Whether a handler of it has the official client, and asks what it likes."""
    flows: list[str] = []
    """Within it, near and far; their handlers and models are counted with its own."""
    inputs: list[str] = []
    """That have to be given."""
    problems: list[Problem] = []

    @property
    def runs(self) -> bool:
        """Whether nothing is known that keeps it from running."""
        return all(problem.level != "error" for problem in self.problems)


def check_source(source: str) -> CheckedFlow:
    """Check a shipped flow, or the one in a file: all that is wrong with it, but of the file only the first mistake.

    Importing a handler runs what its module does when it is imported; what that prints goes to stderr. Never raises.
    """
    try:
        found = find_flow(source)
    except (SchemaError, ActorError) as error:
        return CheckedFlow(source=source, problems=[_problem(error)])
    problems: list[Problem] = []
    all_of_it, has_clients = with_nested([found]), False
    for each in all_of_it:
        own: list[Problem] = []
        with _own_modules():
            handlers = _handlers(each, own)
            own += _tools(each)
        own += _servers(each)
        has_clients = has_clients or any(handler.asks_models for handler in handlers.values())
        llms = [name for name, agent in each.flow.agents.items() if agent.asks_models]
        own += _misfits(each, handlers)
        own += _unpriced(each, llms, in_usd=_has_usd(found) or _has_usd(each))
        own += _undescribed(each, llms)
        own += _left_out(each.plan)
        own += _without_keys(each)
        where = "" if each is found else f"flow {each.name!r}, within it: "
        problems += [replace(problem, message=where + problem.message) for problem in own]
    agents = [(each.plan, agent) for each in all_of_it for agent in each.flow.agents.values()]
    return CheckedFlow(
        source=source,
        flow=found.name,
        steps=[step for step in found.plan.order if step not in found.plan.implied],
        asked=[name for name in found.flow.agents if name in asked_agents(found.flow)],
        handlers=sorted({agent.handler for _, agent in agents if agent.handler}),
        tools=sorted({tool.use for _, agent in agents for tool in agent.tools}),
        models=sorted(frozenset().union(*(models_asked(each.flow) for each in all_of_it))),
        has_clients=has_clients,
        flows=sorted(each.name for each in all_of_it if each is not found),
        inputs=[key for key, field in found.flow.input.items() if field.required],
        problems=problems,
    )


def check_models(environ: Mapping[str, str] = os.environ) -> tuple[str, Problem | None]:
    """Say who answers model calls as the environment is: a host, or `""` for a rehearsal; and what is wrong there."""
    try:
        settings = ModelSettings.from_environ(environ)
        load_prices(settings.prices_path)
        settings.check_credentials()
    except ModelError as error:
        return "", Problem(code=error.type, message=str(error))
    return "" if settings.rehearses else settings.host, None


def _handlers(found: FoundFlow, problems: list[Problem]) -> dict[str, Handler]:
    """Return the handlers that can be loaded and fit; put what is wrong with the others among the problems."""
    handlers: dict[str, Handler] = {}
    for name in found.flow.agents:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                handlers |= load_handlers(found, [name])
        except ActorError as error:
            problems.append(_problem(error))
    return handlers


def _tools(found: FoundFlow) -> Iterator[Problem]:
    """Yield what is wrong with the functions that are tools: each agent's first, once."""
    told: set[str] = set()
    for name in found.flow.agents:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                load_tools(found, [name])
        except ActorError as error:
            problem = _problem(error)
            if problem.message not in told:
                told.add(problem.message)
                yield problem


def _servers(found: FoundFlow) -> Iterator[Problem]:
    """Yield what is not here that MCP servers need: the package, programs and variables. They are not started."""
    used = dict.fromkeys(server for agent in found.flow.agents.values() for server in servers_of(agent))
    if used and not has_package():
        yield Problem(
            code="no_mcp", message=f"mcp.{next(iter(used))}: the package for MCP servers is missing: {MISSING}"
        )
    for name in used:
        server = found.flow.mcp[name]
        for program in server.command[:1]:
            if not (shutil.which(program) or ("/" in program and (found.folder / program).is_file())):
                message = f"mcp.{name}.command: there is no program {program!r} here, which its workers are to start"
                yield Problem(level="warning", code="no_program", message=message)
        for variable in variables_of(server):
            if variable not in os.environ:
                message = f"mcp.{name}: {variable} is not in the environment here, and its workers need it"
                yield Problem(level="warning", code="no_variable", message=message)


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Forget what is imported from beside handlers meanwhile: the next flow may have modules of the same names.

    In workers they never meet: each process plays one flow.
    """
    path, known = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        folders = {Path(each) for each in sys.path} - {Path(each) for each in path}
        sys.path[:] = path
        new = sys.modules.keys() - known
        own = {name for name in new if folders & {*_file_of(name).parents[:1], *_file_of(name).parents[1:2]}}
        for name in new:
            if name.partition(".")[0] in own:
                del sys.modules[name]


def _file_of(module: str) -> Path:
    """Return the file of a module that is imported: `folder/module.py`, or `folder/module/__init__.py`."""
    return Path(getattr(sys.modules[module], "__file__", None) or "")


def _misfits(found: FoundFlow, handlers: dict[str, Handler]) -> Iterator[Problem]:
    text = found.file.read_text("utf-8", errors="replace")
    for place, what in dict.fromkeys(misfits(found.plan, handlers)):
        line = line_of(text, place)
        yield Problem(code="misfit", message=f"{f'line {line}, ' if line else ''}{place}: {what}")


def _has_usd(found: FoundFlow) -> bool:
    budget = found.flow.budget
    return budget is not None and (budget.usd is not None or budget.usd_per_day is not None)


def _unpriced(found: FoundFlow, agents: list[str], *, in_usd: bool) -> Iterator[Problem]:
    """Yield the models without a price; `in_usd` is whether a budget needs theirs."""
    try:
        prices: Prices = load_prices(ModelSettings.from_environ().prices_path)
    except ModelError:  # `check_models` says so
        prices = load_prices()
    by_model: dict[str, list[str]] = {}
    for name in agents:
        agent = found.flow.agents[name]
        for model in dict.fromkeys(found.plan.model(asked) for asked in (agent.model, *agent.fallback)):
            by_model.setdefault(model, []).append(name)
    for model, names in by_model.items():
        if price_of(model, prices) is None:
            close = nearest(model, prices.models)
            hint = f"{close} Else" if close.startswith("Did") else "If the name is right,"
            places = ", ".join(f"agents.{name}" for name in names)
            so = "a budget in USD refuses its calls" if in_usd else "runs will not say what they cost"
            yield Problem(
                level="error" if in_usd else "warning",
                code=UNPRICED,
                message=f"{places}: no price is known of the model {model!r}, so {so}. "
                f"{hint} name a file of prices with BATON_PRICES.",
            )
    for name in agents if in_usd else ():
        tools = found.flow.agents[name].tools
        for use in (tool.use for tool in tools if prices.server_tools.get(tool.use) and not tool.max_uses):
            yield Problem(
                level="error",
                code=UNPRICED,
                message=f"agents.{name}.tools: {use!r} may be used without end, at a price for each use, so a budget "
                f"in USD refuses its calls. Give it an end: {{ use = {use!r}, max_uses = 5 }}.",
            )


def _without_keys(found: FoundFlow) -> Iterator[Problem]:
    """Yield the providers whose keys are not set here, where workers may be that have them."""
    for name, provider in found.flow.providers.items():
        if provider.key_env and not os.environ.get(provider.key_env, "").strip():
            yield Problem(
                level="warning",
                code="no_credentials",
                message=f"providers.{name}.key_env: {provider.key_env} is not set in this environment. Where workers "
                f"have it neither, calls of models of {name!r} are refused, or rehearsed where all others are.",
            )


def _left_out(plan: Plan) -> Iterator[Problem]:
    """Yield the steps whose prompts allow for an earlier step that is skipped, and which are skipped with it."""
    for step in (name for name in plan.order if name not in plan.implied):
        seen = roots_of(plan.step(step).when)  # who asks for it by name means it
        for each in parse(plan.agent(step).prompt):
            if not each.optional or each.name in seen or not plan.left_out_with(step, each.name):
                continue
            if not plan.fails_run(each.name):  # it may have failed
                continue
            sources = [source for source in plan.sources[each.name] if source not in plan.implied]
            after = ", ".join(f'"{name}"' for name in dict.fromkeys([*sources, *plan.before(step)]))
            yield Problem(
                level="warning",
                code="left_out",
                message=f"steps.{step}: {each.text} never stands for nothing, as {step} is skipped whenever "
                f"{each.name} is. If it is to be done all the same, let it come after another step, too: "
                f"after = [{after}].",
            )


def _undescribed(found: FoundFlow, llms: list[str]) -> Iterator[Problem]:
    """Yield the workers of LLM agents of which their models are told no more than their names."""
    for name in dict.fromkeys(worker for agent in llms for worker in found.flow.agents[agent].workers):
        if not description_of(found.flow, name):
            askers = ", ".join(agent for agent in llms if name in found.flow.agents[agent].workers)
            yield Problem(
                level="warning",
                code="no_description",
                message=f"agents.{name}: no `description`, which is what the model of {askers} goes by when it decides "
                f"whom to ask. Say in a sentence what {name} is good for.",
            )


def _problem(error: Coded) -> Problem:
    return Problem(code=error.code, message=str(error))
