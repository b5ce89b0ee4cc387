"""Lines of code that were running, and whose they are: the user's, a library's or ours."""

from __future__ import annotations

import asyncio
import linecache
import math
import re
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any, NamedTuple

from baton_schemas.wire.outcomes import Place
from baton_schemas.wire.values import clean_text

_WALK_MAX = 20_000
"""Frames that are looked at: more than Python itself lets calls go down, unless told otherwise."""
_FILE_MAX, _NAME_MAX, _CODE_MAX = 200, 80, 160
_SOURCE_MAX_BYTES = 4 * 1024 * 1024
"""Of a file whose lines are quoted: it is read when a handler fails, by the loop that serves the others."""
_STARTED_S = time.time()
"""A file that was changed since then may not be what runs: its lines are not quoted."""
_INSTALLED = re.compile(r"/(?:site|dist)-packages/")
_TYPED_IN = ("<stdin>", "<ipython-input")
_IN_TEXT = re.compile(r'^ *File "([^"]*)", line ([0-9]{1,9}), in (.*)$', re.MULTILINE)
_WITHIN = re.compile(r"\.<locals>\.<(?:listcomp|setcomp|dictcomp|genexpr)>\Z")


class CodeLine(NamedTuple):
    """A line of code that was running."""

    file: str
    line: int
    function: str


def lines_of(error: BaseException | None) -> list[CodeLine]:
    """Return the lines that an error came through, the one that raised it last."""
    if error is None:
        return []
    told = getattr(error, "tb", None)
    if type(error).__name__.endswith("RemoteTraceback") and isinstance(told, str):  # of a pool of processes
        return [CodeLine(file, int(line), function) for file, line, function in _IN_TEXT.findall(told[-100_000:])]
    found: list[CodeLine] = []
    for frame, line in walk_tb(error.__traceback__):
        found.append(_code_line(frame.f_code, line))
        if len(found) == _WALK_MAX:
            break
    return found


def lines_of_task(task: asyncio.Task[Any]) -> list[CodeLine]:
    """Return where a task waits: its coroutine's line, and those of what it awaits in turn."""
    found: list[CodeLine] = []
    waits: Any = task.get_coro()
    while waits is not None and len(found) < _WALK_MAX:
        frame = _first(waits, "cr_frame", "gi_frame", "ag_frame")
        if not isinstance(frame, FrameType):
            break
        found.append(_code_line(frame.f_code, frame.f_lineno))
        waits = _first(waits, "cr_await", "gi_yieldfrom", "ag_await")
    return found


def lines_of_thread(ident: int | None) -> list[CodeLine]:
    """Return what a thread is doing; nothing of one that has ended."""
    frame = sys._current_frames().get(ident or 0)
    found: list[CodeLine] = []
    while frame is not None and len(found) < _WALK_MAX:
        found.append(_code_line(frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return found[::-1]


def line_of_code(code: CodeType) -> CodeLine:
    """Return where a function is defined."""
    return _code_line(code, code.co_firstlineno)


def place(line: CodeLine) -> Place:
    """Return a line as it is recorded."""
    function = _WITHIN.sub("", line.function).rpartition("<locals>.")[2]
    function = "" if function == "<module>" else clean_text(function, _NAME_MAX)
    return Place(file=shown_file(line.file), line=line.line, function=function)


def shown_file(file: str) -> str:
    """Return a path as people are shown it: relative where it is beneath this directory; the end of a long one."""
    path = file.replace("\\", "/")
    here = str(Path.cwd()).replace("\\", "/").rstrip("/") + "/"
    path = path.removeprefix(here)
    return clean_text(path if len(path) <= _FILE_MAX else "…" + path[1 - _FILE_MAX :], _FILE_MAX)


# ---- whose they are --------------------------------------------------------------------------------


def own(lines: Sequence[CodeLine]) -> list[CodeLine]:
    """Return those lines that are the user's.

    Where all are of libraries, the handler may be in one itself: then those of the one that our agents called.
    """
    users = [line for line in lines if _is_users(line.file)]
    if users:
        return users
    installed = next((number for number, line in enumerate(lines) if _is_installed(line.file)), 0)
    callers = [line.file.replace("\\", "/") for line in lines[:installed]]
    ours = [file for file in callers if file.startswith(_OURS)]
    if not ours or not ours[-1].startswith(_CALLERS):  # what else calls libraries are models and the bus
        return []
    package = _package(lines[installed].file)
    return [line for line in lines if _is_installed(line.file) and _package(line.file) == package]


def packages(lines: Sequence[CodeLine]) -> list[str]:
    """Return what people call the libraries that lines are in, each once."""
    return list(dict.fromkeys(found for line in lines if (found := _package(line.file))))


def _is_users(file: str) -> bool:
    file = file.replace("\\", "/")
    if file.startswith(_FLOWS):
        return True
    if file.startswith("<"):
        return file.startswith(_TYPED_IN)
    return not file.startswith((_LIBRARY, *_OURS)) and _INSTALLED.search(file) is None


def _is_installed(file: str) -> bool:
    file = file.replace("\\", "/")
    return _INSTALLED.search(file) is not None and not file.startswith(_OURS)


def _package(file: str) -> str:
    path = file.replace("\\", "/")
    if path.startswith(_OURS):
        return ""
    if match := _INSTALLED.search(path):
        return path[match.end() :].split("/")[0].removesuffix(".py")
    return path.removeprefix(_LIBRARY).split("/")[0].removesuffix(".py") if path.startswith(_LIBRARY) else ""


_LIBRARY = asyncio.__file__.replace("\\", "/").rpartition("/asyncio/")[0] + "/"
"""Where the standard library is."""
_OURS = tuple(
    str(spec.origin).replace("\\", "/").rpartition("/")[0] + "/"
    for spec in map(find_spec, ("baton_actors", "baton_bus", "baton_schemas"))
    if spec is not None
)
_CALLERS = f"{_OURS[0]}agents/"
"""Where handlers are called."""
_FLOWS = f"{_OURS[0]}flows/"
"""Where the shipped flows have their handlers."""


# ---- what is written there -------------------------------------------------------------------------


def keep_source(path: str) -> None:
    """Remember the lines of a file as it is when it is imported: an error quotes these, whoever edits it later."""
    linecache.checkcache(path)
    _read(path)


def source(line: CodeLine) -> str:
    """Return what is written in a line; empty when that is not known, or may have changed since it was imported."""
    if line.file not in linecache.cache and not _read(line.file, changed_before_s=_STARTED_S):
        return ""
    return clean_text(linecache.getline(line.file, line.line).strip(), _CODE_MAX)


def _read(path: str, changed_before_s: float = math.inf) -> bool:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return False
    if found.st_size > _SOURCE_MAX_BYTES or found.st_mtime >= changed_before_s:
        return False
    return bool(linecache.getlines(path))


def _code_line(code: CodeType, line: int | None) -> CodeLine:
    return CodeLine(code.co_filename, line or 0, code.co_qualname)


def _first(thing: Any, *names: str) -> Any:
    """Return the first of these attributes that a thing has."""
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)
