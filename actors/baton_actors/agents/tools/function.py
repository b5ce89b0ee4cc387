"""`@tool`: a function that a model may call. Its name, its docstring and its types are what the model is told of it."""

from __future__ import annotations

import copy
import enum
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

import msgspec
from docstring_parser import DocstringStyle, ParseError, parse
from msgspec import Struct

from baton_actors.agents.context import Context
from baton_actors.agents.conversion import from_json, return_annotation
from baton_actors.agents.handlers import WRITTEN
from baton_actors.agents.raising import describe
from baton_actors.errors import BadTool, BadToolCall
from baton_schemas.flow.tools import KEY, Tool
from baton_schemas.wire.values import clean_text

F = TypeVar("F", bound=Callable[..., Any])

_REASON_MAX = 500
_DESCRIPTION_MAX = 10_000
"""Characters: some 2,500 tokens of each request."""


class FunctionTool:
    """A function made ready to be called by a model. Call it as the function that it is."""

    def __init__(self, function: Callable[..., Any], *, idempotent: bool = False) -> None:
        """`idempotent` says that calling it twice does no more than calling it once.

        Raises `BadTool` for a signature that no JSON can fill.
        """
        if inspect.isclass(function) or not callable(function):
            raise BadTool(getattr(function, "__qualname__", str(function)), "it is no function")
        self.function, self.idempotent = function, idempotent
        code = inspect.unwrap(function)
        self.name = getattr(code, "__name__", type(function).__name__)
        self._where = f"{_module(code)}:{getattr(code, '__qualname__', self.name)}"
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise BadTool(self._where, "it yields; expected a function that returns what the model is told")
        self.is_async = inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(function)
        self.description, of_parameters = _described(inspect.getdoc(function) or "")
        hints = self._hints(code)
        self._contexts = [name for name, hint in hints.items() if _is_context(hint) and name != "return"]
        self._arguments = self._struct(function, hints, of_parameters)
        self.input_schema = self._schema(self._arguments)
        self.returns = return_annotation(hints)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as if it were no tool: for its own tests."""
        return self.function(*args, **kwargs)

    def offer(self, name: str) -> Tool:
        """Return it as a model is told of it, under a name."""
        return Tool(name=name, description=self.description or f"Calls {name}.", input_schema=self.input_schema)

    def call(self, arguments: Mapping[str, Any], context: Context) -> Callable[[], Any]:
        """Return the function with what a model calls it with filled in. Raises `BadToolCall`."""
        try:
            given = msgspec.convert(arguments, self._arguments, dec_hook=from_json)
        except (msgspec.ValidationError, RecursionError) as error:
            said = clean_text(str(error).replace("`$.", "`").replace(" - at `$`", ""), _REASON_MAX)
            raise BadToolCall(f"The arguments do not fit, so nothing was called: {said}.") from error
        filled = {name: getattr(given, name) for name in self._arguments.__struct_fields__}
        return functools.partial(self.function, **filled, **dict.fromkeys(self._contexts, context))

    def returns_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what it returns, as far as its annotation tells."""
        if self.returns is Any or self.returns is None:
            return {}
        try:
            return msgspec.json.schema(self.returns)
        except (TypeError, NameError):
            return {}

    def _hints(self, code: Any) -> dict[str, Any]:
        try:
            return typing.get_type_hints(code, include_extras=True)
        except NameError as error:
            raise BadTool(self._where, f"an annotation does not resolve: {error}") from error
        except (TypeError, ValueError, SyntaxError) as error:
            raise BadTool(self._where, f"its signature cannot be read: {error}") from error

    def _struct(self, function: Any, hints: Mapping[str, Any], described: Mapping[str, str]) -> type[Struct]:
        """Return the struct that its arguments are decoded into."""
        fields: list[Any] = []
        for parameter in inspect.signature(function).parameters.values():
            name = parameter.name
            if _is_context(hints.get(name)):
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise BadTool(self._where, f"parameter {name!r} has no name that a model could fill")
            if name not in hints:
                raise BadTool(
                    self._where,
                    f"parameter {name!r} has no type, so a model cannot be told what it is.",
                    f"Write `{name}: str`, say.",
                )
            if not KEY.match(name):
                raise BadTool(self._where, f"parameter {name!r}: expected 1 to 64 letters of ASCII, digits and '_'")
            hint = hints[name] if parameter.default is not None else hints[name] | None
            self._check_type(name, hint)
            fields.append((name, _with_description(hint, described.get(name, "")), *_default(parameter)))
        try:
            return msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)
        except (TypeError, ValueError) as error:
            raise BadTool(self._where, f"its parameters: {error}") from error

    def _check_type(self, name: str, hint: Any) -> None:
        try:
            msgspec.json.schema(hint)
        except (TypeError, NameError, ValueError) as error:
            said = str(error).strip().splitlines()[-1].rstrip(".")
            raise BadTool(
                self._where,
                f"parameter {name!r} has a type that no JSON can be: {said}.",
                "Use str, int, float, bool, list, dict, Literal, a Struct, dataclass or TypedDict.",
            ) from error

    def _schema(self, arguments: type[Struct]) -> dict[str, Any]:
        """Return the JSON Schema of its arguments: of an object, with what it refers to in `$defs`."""
        (reference,), parts = msgspec.json.schema_components([arguments], ref_template="#/$defs/{name}")
        parts = dict(parts)
        own = parts.pop(reference["$ref"].rpartition("/")[2])
        schema = {"type": "object", **{key: value for key, value in own.items() if key not in ("title", "type")}}
        return {**schema, "$defs": parts} if parts else schema


@overload
def tool(function: F, /) -> F: ...


@overload
def tool(*, idempotent: bool = False) -> Callable[[F], F]: ...


def tool(function: Any = None, /, *, idempotent: bool = False) -> Any:
    """Make a function a tool: `@tool` on an async or plain one, or `@tool(idempotent=True)`.

    A model is told its docstring, and what `Args:` of it says of each parameter. Without `idempotent` it is called at
    most once for each call of the model, whatever crashes. Raises `BadTool`.
    """
    if function is None:
        return functools.partial(FunctionTool, idempotent=idempotent)
    return FunctionTool(function, idempotent=idempotent)


def made(found: Any, use: str) -> FunctionTool:
    """Return what a flow names as a tool, made one if it is a plain function. Raises `BadTool`."""
    if isinstance(found, FunctionTool):
        return found
    if not callable(found):
        raise BadTool(use, f"it is {type(found).__name__}, and no function")
    return FunctionTool(found)


def _described(docstring: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of a function, and of each parameter; one that cannot be read is told as it is."""
    try:
        parsed = parse(docstring, DocstringStyle.AUTO)
    except (ParseError, ValueError):
        return clean_text(docstring, _DESCRIPTION_MAX), {}
    if not parsed.params and not parsed.returns and not parsed.raises:
        return clean_text(docstring, _DESCRIPTION_MAX), {}
    texts = [parsed.short_description, parsed.long_description]
    if parsed.returns is not None and parsed.returns.description:
        texts.append(f"Returns: {parsed.returns.description}")
    said = "\n\n".join(text.strip() for text in texts if text and text.strip())
    of_parameters = {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}
    return clean_text(said, _DESCRIPTION_MAX), of_parameters


def _module(code: Any) -> str:
    """Return where a function stands, as its author calls it: the file that a flow names, or its module."""
    module = getattr(code, "__module__", None) or "?"
    return str(getattr(sys.modules.get(module), WRITTEN, module))


def _is_context(hint: Any) -> bool:
    """Say whether a parameter is for the `Context`, also one that may be left out in tests."""
    return hint is Context or Context in get_args(hint)


def _with_description(hint: Any, description: str) -> Any:
    """Return a type that says what it is for, unless its own annotation does."""
    if not description or _has_description(hint):
        return hint
    return Annotated[hint, msgspec.Meta(description=description)]


def _has_description(hint: Any) -> bool:
    if get_origin(hint) is not Annotated:
        return False
    return any(isinstance(each, msgspec.Meta) and each.description for each in get_args(hint)[1:])


def _default(parameter: inspect.Parameter) -> list[Any]:
    if parameter.default is parameter.empty:
        return []
    default = parameter.default
    if isinstance(default, list | dict | set) and not default:
        return [default]
    if default is None or isinstance(default, str | bytes | int | float | tuple | enum.Enum | datetime):
        return [default]
    return [msgspec.field(default_factory=lambda: copy.deepcopy(default))]


def raised(name: str, error: BaseException) -> str:
    """Return what a model is told of what a tool raised."""
    kind, message = describe(error)
    return f"{name} failed with {kind}: {message}" if message else f"{name} failed with {kind}"
