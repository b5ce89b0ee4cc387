"""What a handler raises: kept within its own step whatever it is, and described so that it can be recorded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeVar

from baton_actors.errors import HandlerRaised
from baton_actors.models.texts import secrets_of, without_secrets
from baton_schemas.wire.values import clean_text

T = TypeVar("T")

MESSAGE_MAX = 2_000
"""Characters of an error that are kept: errors travel with the run, and some quote whole documents."""
_TYPE_MAX = 100
_GROUP_MAX = 20
"""Errors of a group that are named; a group of all branches of something would fill the message otherwise."""
_GROUP_DEPTH_MAX = 5


def describe(error: BaseException) -> tuple[str, str]:
    """Return the type and the message of an error, as they are recorded. Never raises.

    Both are valid Unicode, the message at most `MESSAGE_MAX` characters: what the error says, for a group what is in
    it, without secrets of this process. Where it came from is in `tracebacks`.
    """
    if isinstance(error, HandlerRaised):
        error = error.original
    return name_of(error), clean_text(_hidden(_message(error, 0)), MESSAGE_MAX)


def caught(call: Callable[[], T]) -> T | HandlerRaised:
    """Call a plain function: what it raises is returned, as some of it no future can hold, and some ends loops."""
    try:
        return call()
    except BaseException as error:
        return HandlerRaised(error)


def unwrapped(result: T | HandlerRaised) -> T:
    """Return what `caught` gave, or raise it as `contained` would."""
    if isinstance(result, HandlerRaised):
        raise _let_out(result.original)
    return result


def _let_out(error: BaseException) -> Exception:
    # StopIteration and its like are given a meaning by the coroutines and generators that they pass.
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    return HandlerRaised(error)


# ---- their words ---------------------------------------------------------------------------------


def name_of(error: BaseException) -> str:
    """Return the name of an error's class."""
    try:
        return clean_text(str(type(error).__name__), _TYPE_MAX)
    except BaseException:  # a metaclass may make a property of it
        return "Exception"


def text_of(error: BaseException, limit: int = MESSAGE_MAX) -> str:
    """Return what an error says, at most `limit` characters of it."""
    try:
        if isinstance(error, SyntaxError) and isinstance(error.msg, str):
            return clean_text(error.msg, limit)  # its text would name the place besides, as Python's do
        return clean_text(str(error), limit)
    except BaseException as broken:
        return f"(its text raised {name_of(broken)})"


def _hidden(text: str) -> str:
    return without_secrets(text, secrets_of(os.environ))


def _message(error: BaseException, depth: int) -> str:
    said = text_of(error)
    if isinstance(error, BaseExceptionGroup):
        return _group(error, said, depth)
    if not said and isinstance(error, asyncio.CancelledError):
        return "something that the handler waited for was cancelled"
    return said or name_of(error)


def _group(error: BaseExceptionGroup[Any], said: str, depth: int) -> str:
    inner = error.exceptions
    if depth == _GROUP_DEPTH_MAX:
        return said
    named = [one.original if isinstance(one, HandlerRaised) else one for one in inner[:_GROUP_MAX]]
    parts = [f"{name_of(one)}: {_message(one, depth + 1)}" for one in named]
    if len(inner) > _GROUP_MAX:
        parts.append(f"and {len(inner) - _GROUP_MAX} more")
    # Each gets its share, so that a long first one hides nobody.
    share = max(MESSAGE_MAX // (len(parts) + 1), 80)
    return f"{said} [{'; '.join(clean_text(part, share) for part in parts)}]"
