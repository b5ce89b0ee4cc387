"""What a call of a model leads to: a function of the user's, with its time and its thread; and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from baton_actors.agents.asks import AskRefused, NoAsks
from baton_actors.agents.contained import contained
from baton_actors.agents.context import Context
from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.function import FunctionTool, raised
from baton_actors.errors import HandlerHung
from baton_actors.models.rehearsal.schema_values import filled
from baton_schemas.errors import BadContent
from baton_schemas.wire.files import File, with_made
from baton_schemas.wire.media import is_text
from baton_schemas.wire.values import encode_value, valid_text


class Given(Struct, frozen=True, kw_only=True):
    """What a call gave, as the model is told."""

    text: str
    is_error: bool = False


Start = Callable[[], Awaitable[Given]]
"""Makes a call. Raises nothing but `CancelledError`, and `ActorError` for what the step fails with."""


class Target(Protocol):
    """A tool that can be called."""

    @property
    def idempotent(self) -> bool:
        """Whether calling it twice does no more than calling it once."""

    def start(self, arguments: Mapping[str, Any], context: Context, timeout_s: float) -> Start:
        """Return what makes a call. Raises `BadToolCall` for arguments that do not fit."""

    def made_up(self, arguments: Mapping[str, Any], context: Context, said: str) -> Given:
        """Return what it might give, without calling it; `said` is what the values are made of. Raises as `start`."""


class FunctionTarget:
    """A function as a tool. A plain one runs in one of `threads`."""

    def __init__(self, tool: FunctionTool, name: str, threads: Threads) -> None:
        """`name` is what the model calls it by."""
        self._tool, self._name, self._threads = tool, name, threads

    @property
    def idempotent(self) -> bool:
        """As its author says."""
        return self._tool.idempotent

    def start(self, arguments: Mapping[str, Any], context: Context, timeout_s: float) -> Start:
        """Return what calls the function, for so long."""
        call = self._tool.call(arguments, _of_tool(context))

        async def start() -> Given:
            try:
                value = await self._result(call, timeout_s)
            except HandlerHung:
                maybe = "" if self.idempotent else " It may have done what it does: do not call it again lightly."
                said = f"{self._name} did not finish within {timeout_s:g} s (tool_timeout_s).{maybe}"
                return Given(text=said, is_error=True)
            except Exception as error:
                return Given(text=raised(self._name, error), is_error=True)
            return _told(self._name, value)

        return start

    def made_up(self, arguments: Mapping[str, Any], context: Context, said: str) -> Given:
        """Return a value of the type that the function says it returns."""
        self._tool.call(arguments, context)
        schema = self._tool.returns_schema()
        return _told(self._name, filled(schema, said) if schema else None)

    async def _result(self, call: Callable[[], Any], timeout_s: float) -> Any:
        if self._tool.is_async:
            return await contained(call, timeout_s)
        async with self._threads.place():
            try:
                async with asyncio.timeout(timeout_s) as deadline:
                    return await self._threads.run(call)
            except TimeoutError as error:
                if not deadline.expired():  # it is the function's own
                    raise
                raise HandlerHung(timeout_s) from error


def _told(name: str, value: Any) -> Given:
    """Return a value as a model reads it: text as it is, also that of a file, anything else as JSON.

    What is in other files it cannot be told here, and their record alone would name what is nowhere.
    """
    if isinstance(value, str):
        return Given(text=valid_text(value))
    if isinstance(value, File) and is_text(value.media_type) and value.data is not None:
        return Given(text=valid_text(value.data.decode(errors="replace")))
    try:
        data, made = with_made(encode_value, value, "result")
        if made:
            files = ", ".join(file.ref.label for file in made)
            only = "a tool tells text and JSON, and of files only a text that is all it gives."
            return Given(text=f"{name} ran, and gave {files}: {only}", is_error=True)
        return Given(text=data.decode())
    except (BadContent, msgspec.EncodeError) as error:
        return Given(text=f"{name} ran, and gave what is no JSON, so it cannot be told: {error}", is_error=True)


class _ToolAsks(NoAsks):
    """Those of a tool: what it asks could not be found again, as the model decides when it is called."""

    async def _refuse(self, *_: Any, **__: Any) -> Any:
        raise AskRefused(
            "a tool cannot ask or record by its Context: let the agent ask, by its `workers`, or make this a handler"
        )

    ask = run = sleep = person = event = record = _refuse


_ASKS = _ToolAsks()


def _of_tool(context: Context) -> Context:
    return replace(context, asks=_ASKS)
