"""What a handler reads, from the source of its signature: nothing is imported, so all come to the same."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import msgspec

from baton_actors.agents.clients import asks_for_client
from baton_actors.agents.handlers import BUILT_IN, source_of
from baton_schemas.flow.flow import Agent, Flow
from baton_schemas.flow.graph import Plan

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def with_reads(plan: Plan, folder: Path) -> Plan:
    """Return the plan of a flow whose handlers say what they read, where their source tells.

    An agent without `reads` gets the inputs and the earlier steps that its parameters name, sorted. It is left as it is
    when that is not for sure: no source, `**kwargs`, a decorator other than `@actor`, a function that comes from
    another module, or a parameter that names nothing (loading will say so).
    """
    agents = {name: _with_reads(plan, name, agent, folder) for name, agent in plan.flow.agents.items()}
    if agents == plan.flow.agents:
        return plan
    flow: Flow = msgspec.structs.replace(plan.flow, agents=agents)
    return Plan(flow, plan.source)


def parameters_of(handler: str, folder: Path) -> list[str] | None:
    """Return the parameters of the function that `handler` names, less the `Context` and the official client; None if
    its source is unclear.

    Takes no part in importing: the file is found and parsed.
    """
    tree, function = _source(handler, folder)
    if tree is None or function is None:
        return None
    given = function.args
    if given.vararg or given.kwarg or given.posonlyargs:
        return None
    contexts = {"Context", *_aliases(tree, "Context")}
    return [
        parameter.arg
        for parameter in [*given.args, *given.kwonlyargs]
        if _last_name(parameter.annotation) not in contexts and not asks_for_client(parameter.annotation, tree)
    ]


def asks_models(agent: Agent, folder: Path) -> bool:
    """Say whether an agent asks models: by its prompt, or by the official client that its handler's source asks for."""
    if agent.asks_models:
        return True
    tree, function = _source(agent.handler, folder)
    if tree is None or function is None:
        return False
    given = function.args
    return any(asks_for_client(parameter.annotation, tree) for parameter in [*given.args, *given.kwonlyargs])


def _source(handler: str, folder: Path) -> tuple[ast.Module | None, _Function | None]:
    """Return the source of a handler's module, and the function in it; None for what is not clear."""
    where, _, name = handler.rpartition(":")
    file = folder / where if where.endswith(".py") else file_of(where)
    try:
        tree = ast.parse(file.read_bytes()) if file is not None else None
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None, None  # loading says what is wrong with it, to those who load it
    return tree, _function(tree, name) if tree is not None else None


def _with_reads(plan: Plan, name: str, agent: Agent, folder: Path) -> Agent:
    is_done = any(step.agent == name for step in plan.flow.steps.values())
    if not agent.handler or agent.reads is not None or not is_done:  # what is only asked declares its input
        return agent
    parameters = parameters_of(agent.handler, folder)
    return agent if parameters is None else reading(plan, name, parameters)


def reading(plan: Plan, name: str, parameters: Iterable[str]) -> Agent:
    """Return an agent that is given what these parameters name; unchanged when one of them names nothing."""
    agent = plan.flow.agents[name]
    steps = [step for step, of in plan.flow.steps.items() if of.agent == name]
    if not steps:  # it is only asked, and is given what is asked
        return agent
    known = frozenset.intersection(*(_readable(plan, step) for step in steps)) | plan.flow.input.keys()
    reads: set[str] = set()
    for parameter in parameters:
        if parameter in BUILT_IN:
            continue
        source = source_of(parameter, known)
        if source is None:
            return agent
        reads.add(source)
    return msgspec.structs.replace(agent, reads=sorted(reads))


def _readable(plan: Plan, step: str) -> frozenset[str]:
    """Return the steps that a step can read: those that come before it, near and far, and those of its loop."""
    found = plan.earlier[step] | plan.loops.get(plan.loop_of.get(step, ""), frozenset())
    return found.difference(plan.implied)


def file_of(module: str) -> Path | None:
    """Return the source of a module as Python would find it, without importing the packages that it is in."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _function(tree: ast.Module, name: str) -> _Function | None:
    """Return the function of a module that has this name for sure: it is given once, at the top, by a `def`."""
    bound = [node for node in _top_level(tree) if name in _bound_by(node)]
    if len(bound) != 1 or not isinstance(bound[0], _Function) or bound[0] not in tree.body:
        return None
    ours = {"actor", *_aliases(tree, "actor")}
    decorators = bound[0].decorator_list
    return bound[0] if all(_last_name(decorator) in ours for decorator in decorators) else None


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported; not what is within its functions and classes."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _Function | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _bound_by(node: ast.AST) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case ast.ExceptHandler(name=str(name)):
            return {name}
        case _:
            return set()


def _aliases(tree: ast.Module, name: str) -> set[str]:
    """Return what a name of ours is called in a module that imports it."""
    imports = [node for node in _top_level(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname for node in imports for alias in node.names if alias.name == name and alias.asname}


def _last_name(node: ast.expr | None) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=str(text)):
            return text.rpartition(".")[2]
        case _:
            return ""
