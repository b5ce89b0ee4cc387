"""What a handler raises: kept within its own step whatever it is, and described so that it can be recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from traceback import walk_tb
from typing import Any, TypeVar

from baton_actors.errors import Fail, HandlerRaised, Retry
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
    it, and the last line of the user's own code that it came through.
    """
    if isinstance(error, HandlerRaised):
        error = error.original
    where = _place(error)
    return _type(error), clean_text(_message(error, 0), MESSAGE_MAX - len(where)) + where


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


def _type(error: BaseException) -> str:
    try:
        return clean_text(str(type(error).__name__), _TYPE_MAX)
    except BaseException:  # a metaclass may make a property of it
        return "Exception"


def _message(error: BaseException, depth: int) -> str:
    try:
        said = clean_text(str(error), MESSAGE_MAX)
    except BaseException as broken:
        said = f"(its text raised {_type(broken)})"
    if isinstance(error, BaseExceptionGroup):
        return _group(error, said, depth)
    if not said and isinstance(error, asyncio.CancelledError):
        return "something that the handler waited for was cancelled"
    return said or _type(error)


def _group(error: BaseExceptionGroup[Any], said: str, depth: int) -> str:
    inner = error.exceptions
    if depth == _GROUP_DEPTH_MAX:
        return said
    named = [one.original if isinstance(one, HandlerRaised) else one for one in inner[:_GROUP_MAX]]
    parts = [f"{_type(one)}: {_message(one, depth + 1)}" for one in named]
    if len(inner) > _GROUP_MAX:
        parts.append(f"and {len(inner) - _GROUP_MAX} more")
    # Each gets its share, so that a long first one hides nobody.
    share = max(MESSAGE_MAX // (len(parts) + 1), 80)
    return f"{said} [{'; '.join(clean_text(part, share) for part in parts)}]"


def _place(error: BaseException) -> str:
    """Return the line that an error came from: the last that is the user's, not a library's or ours.

    `Fail` and `Retry` have none: they say what their author wants to be read.
    """
    if isinstance(error, Fail | Retry):
        return ""
    try:
        places = _lines(error) or _lines(error.__cause__)
        while isinstance(error, BaseExceptionGroup):  # the first of its errors says where it was raised
            error = error.exceptions[0]
            error = error.original if isinstance(error, HandlerRaised) else error
            places += _lines(error)
        if not places:
            return ""
        file, line = places[-1]
        return clean_text(f" ({file.rpartition('/')[2]}:{line})", _TYPE_MAX)
    except BaseException:
        return ""


def _lines(error: BaseException | None) -> list[tuple[str, int]]:
    if error is None:
        return []
    walked = ((frame.f_code.co_filename.replace("\\", "/"), line) for frame, line in walk_tb(error.__traceback__))
    return [(file, line) for file, line in walked if _is_users(file)]


def _is_users(file: str) -> bool:
    if "/site-packages/" in file or file.startswith(("<", _LIBRARY)):
        return False
    return not file.startswith(_OURS) or file.startswith(_FLOWS)


_LIBRARY = asyncio.__file__.replace("\\", "/").rpartition("/asyncio/")[0] + "/"
"""Where the standard library is."""
_OURS = tuple(
    str(spec.origin).replace("\\", "/").rpartition("/")[0] + "/"
    for spec in map(find_spec, ("baton_actors", "baton_bus", "baton_schemas"))
    if spec is not None
)
_FLOWS = f"{_OURS[0]}flows/"
"""Where the shipped flows have their handlers."""
