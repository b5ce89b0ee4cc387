"""Python handlers: an async or plain function, given values by the names of its parameters.

A parameter is named like an input or an earlier step (`_` for a `-` in it), or `item`, `index`, `errors`;
one annotated with `Context` gets who and where it is. Values are decoded by msgspec into the annotated types,
and what is returned is checked against the return annotation.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import msgspec
from msgspec import NODEFAULT, Raw, Struct

from baton_actors.agents.branch import asks_branches
from baton_actors.agents.clients import client_asked_by
from baton_actors.agents.context import Context
from baton_actors.agents.conversion import decoder_of, is_exact, return_annotation
from baton_actors.errors import BadHandler, BadOutput, BadValue
from baton_schemas.errors import BadContent, nearest
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import fan_outs
from baton_schemas.wire.values import clean_text, encode_value

__all__ = ["BUILT_IN", "Context", "Handler", "actor", "source_of"]

BUILT_IN = frozenset({"item", "index", "errors"})
WRITTEN = "__baton_written__"
"""What a handler's file is called in the flow, in its module: the module's own name is nobody's business."""
_NULL = Raw(b"null")
_REASON_MAX = 500


class _Parameter(Struct, frozen=True):
    name: str
    decoder: msgspec.json.Decoder[Any] | None
    """None for the `Context`, and for a client."""
    default: Any
    branches: bool = False
    """Whether it asks for a `list[Branch[T]]`."""
    is_client: bool = False
    """Whether it asks for the official client."""


class Handler:
    """A function made ready to do steps. Call it as the function that it is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Raises `BadHandler` when the signature cannot be filled by name or an annotation is no JSON type."""
        self.function = function
        self.name = _name(function)
        code = _code(function)
        self._code: CodeType | None = getattr(code, "__code__", None)
        # A decorator's wrapper may be plain around what is async, or the other way round.
        self.is_async = inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(function)
        self._refuse_kind(function, code)
        hints, signature = self._read(function, code)
        self.parameters = [self._parameter(p, hints) for p in signature.parameters.values()]
        self.takes_context = any(parameter.decoder is None for parameter in self.parameters)
        self.asks_models = any(parameter.is_client for parameter in self.parameters)
        """Whether a parameter asks for the official client."""
        self._returns = return_annotation(hints)
        try:
            self._decoder = decoder_of(self._returns)
        except (TypeError, NameError) as error:
            raise BadHandler(self.name, f"what it returns: {error}") from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were not a handler: for its own tests."""
        return self.function(*args, **kwargs)

    def call(self, values: Mapping[str, Raw], context: Context, client: Any = None) -> Callable[[], Any]:
        """Return the function with what it asks for filled in. Raises `BadValue`.

        `client` is the official one, where it `asks_models`.
        """
        arguments = {p.name: client if p.is_client else self._argument(p, values, context) for p in self.parameters}
        return functools.partial(self.function, **arguments)

    @property
    def returns(self) -> Any:
        """What it says it returns; Any when it does not."""
        return self._returns

    def encode(self, output: Any) -> bytes:
        """Return what the function returned as JSON, checked against its annotation. Raises `BadOutput`."""
        if not isinstance(output, str | dict | list | int | float | None):
            self._refuse_unfinished(output)
        try:
            data = encode_value(output, "output")
            if not is_exact(output, self._returns):
                self._decoder.decode(data)  # Structs do not check their fields, and `Raw` may hold anything
            return data
        except BadContent as error:
            raise BadOutput(f"{self.name} returned what cannot be recorded: {error}", self._code) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadOutput(
                f"{self.name} returned what does not fit its annotation: {_said(error, 'output')}", self._code
            ) from error

    def asks(self, fan_outs: frozenset[str]) -> frozenset[str]:
        """Return those of these steps whose branches a parameter asks for, as `list[Branch[T]]`."""
        asked = (source_of(parameter.name, fan_outs) for parameter in self.parameters if parameter.branches)
        return frozenset(name for name in asked if name is not None)

    def check(self, plan: Plan, step: str) -> None:
        """Raise `BadHandler` when a parameter names nothing that this step reads, or asks for branches of nothing.

        One with a default may be for when the agent is asked: then it names one of its inputs.
        """
        agent = plan.flow.steps[step].agent
        known = plan.reads[step] | BUILT_IN
        for parameter in self.parameters:
            source = source_of(parameter.name, known)
            if parameter.branches and source is not None and source not in fan_outs(plan, step):
                raise BadHandler(
                    plan.flow.agents[agent].handler,
                    f"parameter {parameter.name!r} asks for list[Branch], and is no step with `each` that comes right "
                    f"before step {step!r}.",
                    "Only the step that joins the branches gets them; it can hand on what later ones need.",
                )
            is_for_asked = parameter.default is not NODEFAULT and parameter.name in plan.flow.agents[agent].input
            if parameter.decoder is not None and source is None and not is_for_asked:
                raise BadHandler(
                    plan.flow.agents[agent].handler,
                    f"parameter {parameter.name!r} is nothing that step {step!r} reads.",
                    nearest(parameter.name, known),
                )

    def check_asked(self, plan: Plan, agent: str) -> None:
        """Raise `BadHandler` when a parameter names nothing that an agent which is only asked is given."""
        known = frozenset(plan.flow.agents[agent].input)
        for parameter in self.parameters:
            if parameter.decoder is None:
                continue
            if parameter.branches or (source_of(parameter.name, known) is None and parameter.default is NODEFAULT):
                raise BadHandler(
                    plan.flow.agents[agent].handler,
                    f"parameter {parameter.name!r} is no input of agent {agent!r}, which other agents ask.",
                    nearest(parameter.name, known) or f'Declare it: `input.{parameter.name} = "str"`.',
                )

    # ---- its signature -----------------------------------------------------------------------------

    def _refuse_kind(self, function: Callable[..., Any], code: Callable[..., Any]) -> None:
        if inspect.isclass(function):
            raise BadHandler(self.name, "it is a class; expected a function, or an object that can be called")
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise BadHandler(self.name, "it yields; expected a function that returns its output once, such as a list")

    def _read(self, function: Callable[..., Any], code: Callable[..., Any]) -> tuple[dict[str, Any], inspect.Signature]:
        try:
            return typing.get_type_hints(code, include_extras=True), inspect.signature(function)
        except NameError as error:
            raise BadHandler(self.name, f"an annotation does not resolve: {error}") from error
        except (TypeError, ValueError, SyntaxError) as error:
            raise BadHandler(self.name, f"its signature cannot be read: {error}") from error

    def _parameter(self, parameter: inspect.Parameter, hints: dict[str, Any]) -> _Parameter:
        name = parameter.name
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise BadHandler(
                self.name,
                f"parameter '{stars}{name}' names no value to read.",
                "Name each value; a decorator keeps the names with functools.wraps.",
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise BadHandler(self.name, f"parameter {name!r} is positional-only and has no name to be filled by")
        annotation = hints.get(name, Any)
        default = NODEFAULT if parameter.default is parameter.empty else parameter.default
        if annotation is Context:
            return _Parameter(name, None, default)
        asked = client_asked_by(annotation)
        if asked:
            self._refuse_wrong_client(name, asked)
            return _Parameter(name, None, default, is_client=True)
        try:
            return _Parameter(name, decoder_of(annotation), default, asks_branches(annotation))
        except (TypeError, NameError) as error:
            raise BadHandler(self.name, f"parameter {name!r}: {error}") from error

    def _refuse_wrong_client(self, parameter: str, asked: str) -> None:
        fits = "AsyncAnthropic" if self.is_async else "Anthropic"
        if asked != fits:
            kind = (
                "an async handler, whose loop it would block"
                if self.is_async
                else "a plain handler, which cannot await"
            )
            other = "def" if self.is_async else "async def"
            raise BadHandler(
                self.name,
                f"parameter {parameter!r} asks for anthropic.{asked} in {kind}.",
                f"Write `{parameter}: anthropic.{fits}`, or make it a `{other}` function.",
            )

    # ---- its values ----------------------------------------------------------------------------------

    def _argument(self, parameter: _Parameter, values: Mapping[str, Raw], context: Context) -> Any:
        if parameter.decoder is None:
            return context
        source = source_of(parameter.name, values)
        if source is None and parameter.default is not NODEFAULT:
            return parameter.default
        try:
            return parameter.decoder.decode(values[source] if source is not None else _NULL)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            said = f"parameter {parameter.name!r} of {self.name}: {_said(error, parameter.name)}"
            raise BadValue(said, self._code) from error

    def _refuse_unfinished(self, output: Any) -> None:
        """Refuse what is only a promise of an output."""
        if inspect.iscoroutine(output):
            output.close()  # or Python warns that it was never awaited
        if inspect.isawaitable(output) or inspect.isgenerator(output) or inspect.isasyncgen(output):
            said = f"{self.name} returned a {type(output).__name__}; expected its output, all of it"
            raise BadOutput(said, self._code)


def actor(function: Callable[..., Any]) -> Handler:
    """Make a function a handler: `@actor` on an async or plain function. Raises `BadHandler`."""
    return Handler(function)


def source_of(parameter: str, known: Mapping[str, Any] | frozenset[str]) -> str | None:
    """Return which of the known names a parameter is: its own, or with hyphens for the underscores."""
    if parameter in known:
        return parameter
    hyphenated = parameter.replace("_", "-")
    return hyphenated if hyphenated in known else None


def _code(function: Callable[..., Any]) -> Any:
    """Return the function that has the annotations, under partials, decorators and objects that can be called."""
    found: Any = function
    while isinstance(found, functools.partial):
        found = found.func
    if not inspect.isclass(found) and not inspect.isroutine(found) and callable(found):
        found = type(found).__call__
    return inspect.unwrap(found)


def _name(function: Callable[..., Any]) -> str:
    code = _code(function)
    module = getattr(code, "__module__", None) or "?"
    where = getattr(sys.modules.get(module), WRITTEN, module)
    return f"{where}:{getattr(code, '__qualname__', type(function).__qualname__)}"


def _said(error: Exception, what: str) -> str:
    """Return what a decoder says, with the place as a path from `what`."""
    return clean_text(str(error).replace("`$", f"`{what}"), _REASON_MAX)
