"""Python handlers: an async or plain function, given values by the names of its parameters.

A parameter is named like an input or an earlier step (`_` for a `-` in it), or `item`, `index`, `errors`;
one annotated with `Context` gets who and where it is. Values are decoded by msgspec into the annotated types,
and what is returned is checked against the return annotation.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec
from msgspec import NODEFAULT, Raw, Struct

from baton_actors.errors import BadHandler, BadOutput, BadValue, HandlerNotFound
from baton_schemas.errors import nearest
from baton_schemas.flow.flow import Agent
from baton_schemas.flow.graph import Plan

BUILT_IN = frozenset({"item", "index", "errors"})
_NULL = Raw(b"null")


class Context(Struct, frozen=True, kw_only=True):
    """Who a handler is doing a step for."""

    run: str
    step: str
    attempt: int


class _Parameter(Struct, frozen=True):
    name: str
    decoder: msgspec.json.Decoder[Any] | None
    """None for the `Context`."""
    default: Any


class Handler:
    """A function made ready to do steps. Call it as the function that it is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises `BadHandler` when the signature cannot be filled by name or an annotation is no JSON type."""
        self.function = function
        self.name = f"{function.__module__}:{function.__qualname__}"
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            raise BadHandler(self.name, f"an annotation does not resolve: {error}") from error
        self.parameters = [self._parameter(p, hints) for p in inspect.signature(function).parameters.values()]
        self._returns = hints.get("return", Any)
        self._check_returns = self._returns is not Any
        self._encoder = msgspec.json.Encoder()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were not a handler: for its own tests."""
        return self.function(*args, **kwargs)

    async def run(self, values: Mapping[str, Raw], context: Context, executor: Executor | None) -> bytes:
        """Call the function with what it asks for and return its output as JSON.

        A plain function runs in `executor`; a time-out stops the waiting, not the thread. Raises `BadValue`,
        `BadOutput`, and whatever the function raises.
        """
        arguments = {p.name: self._argument(p, values, context) for p in self.parameters}
        if self.is_async:
            output = await self.function(**arguments)
        else:
            loop = asyncio.get_running_loop()
            output = await loop.run_in_executor(executor, lambda: self.function(**arguments))
        return self._encode(output)

    def check(self, plan: Plan, step: str) -> None:
        """Raise `BadHandler` when a parameter names nothing that this step reads."""
        agent = plan.flow.steps[step].agent
        known = plan.reads[step] | BUILT_IN
        for parameter in self.parameters:
            if parameter.decoder is not None and _source(parameter.name, known) is None:
                raise BadHandler(
                    plan.flow.agents[agent].handler,
                    f"parameter {parameter.name!r} is nothing that step {step!r} reads.",
                    nearest(parameter.name, known),
                )

    def _parameter(self, parameter: inspect.Parameter, hints: dict[str, Any]) -> _Parameter:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise BadHandler(self.name, f"parameter {parameter.name!r} has no name to be filled by")
        annotation = hints.get(parameter.name, Any)
        default = NODEFAULT if parameter.default is parameter.empty else parameter.default
        if annotation is Context:
            return _Parameter(parameter.name, None, default)
        try:
            return _Parameter(parameter.name, msgspec.json.Decoder(annotation), default)
        except TypeError as error:
            raise BadHandler(self.name, f"parameter {parameter.name!r}: {error}") from error

    def _argument(self, parameter: _Parameter, values: Mapping[str, Raw], context: Context) -> Any:
        if parameter.decoder is None:
            return context
        source = _source(parameter.name, values)
        if source is None and parameter.default is not NODEFAULT:
            return parameter.default
        try:
            return parameter.decoder.decode(values[source] if source is not None else _NULL)
        except msgspec.DecodeError as error:
            raise BadValue(f"parameter {parameter.name!r} of {self.name}: {error}") from error

    def _encode(self, output: Any) -> bytes:
        try:
            if self._check_returns and type(output) is not self._returns:
                msgspec.convert(output, self._returns, from_attributes=False)
            return self._encoder.encode(output)
        except (msgspec.ValidationError, TypeError) as error:
            raise BadOutput(f"{self.name} returned what does not fit its annotation: {error}") from error


def actor(function: Callable[..., Any]) -> Handler:
    """Make a function a handler: `@actor` on an async or plain function. Raises `BadHandler`."""
    return Handler(function)


def load_handler(agent_name: str, agent: Agent, folder: Path) -> Handler:
    """Import the handler of an agent; `./file.py:name` is relative to `folder`, where the flow file is.

    Raises `HandlerNotFound`, `BadHandler`.
    """
    where, _, name = agent.handler.rpartition(":")
    try:
        module = _import_file(folder / where) if where.endswith(".py") else importlib.import_module(where)
    except FileNotFoundError as error:
        raise HandlerNotFound(agent_name, agent.handler, f"there is no file {folder / where}") from error
    except Exception as error:
        reason = f"importing it raised {type(error).__name__}: {error}"
        raise HandlerNotFound(agent_name, agent.handler, reason) from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            hint = nearest(part, [known for known in vars(module) if not known.startswith("_")])
            raise HandlerNotFound(agent_name, agent.handler, f"it has no {name!r}. {hint}".rstrip(". "))
        found = getattr(found, part)
    if isinstance(found, Handler):
        return found
    if not callable(found):
        raise HandlerNotFound(agent_name, agent.handler, f"{name!r} is no function")
    return Handler(found)


def _import_file(path: Path) -> Any:
    path = path.resolve(strict=True)
    name = f"baton_handlers_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # so that the file's own neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _source(parameter: str, known: Mapping[str, Any] | frozenset[str]) -> str | None:
    if parameter in known:
        return parameter
    hyphenated = parameter.replace("_", "-")
    return hyphenated if hyphenated in known else None
