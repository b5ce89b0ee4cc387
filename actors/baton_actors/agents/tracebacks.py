"""What an error came through: the lines of the user's own code, bounded and without secrets. Never raises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import indent

from baton_actors.agents.code_lines import CodeLine, line_of_code, lines_of, own, packages, place, shown_file, source
from baton_actors.agents.raising import name_of, text_of
from baton_actors.errors import BadOutput, BadValue, Fail, HandlerHung, HandlerRaised, Retry
from baton_actors.models.texts import secrets_of, without_secrets
from baton_schemas.wire.outcomes import Place
from baton_schemas.wire.values import clean_text

TRACEBACK_MAX = 4_000
"""Characters of a traceback: about a screen. The note on each attempt has one."""
_FIRST, _LAST = 2, 7
"""Lines of code that are kept of one error: how it was called, and what it came to."""
_CHAIN_MAX = 4
"""Errors that are shown of a chain (`raise … from`): the last of them."""
_GROUP_MAX, _GROUP_DEPTH_MAX = 4, 3
_NOTES_MAX = 3
_SAID_MAX, _SAID_LINES_MAX = 300, 6
_HEADING = "Traceback (most recent call last; your own code):"


def place_of(error: BaseException) -> Place | None:
    """Return the line of the user's own code that an error came from, or in which a handler hung."""
    try:
        lines = _origin(_bare(error))
        return place(lines[-1]) if lines else None
    except BaseException:  # whatever the user's classes do when they are looked at
        return None


def traceback_of(error: BaseException) -> str:
    """Return the lines of the user's own code that an error came through, as Python writes them.

    At most `TRACEBACK_MAX` characters, and no secrets of this process in them. Empty when there are none, and for a
    `Fail` or a `Retry` that was not raised because of another error: they say what their author wants to be read.
    """
    try:
        error = _bare(error)
        if isinstance(error, Fail | Retry) and _before(error)[0] is None:
            return ""
        text = "\n".join(_chain(error, 0))
        if "  File " not in text:
            return ""
        return clean_text(_cut(without_secrets(text, secrets_of(os.environ))), TRACEBACK_MAX)
    except BaseException:
        return ""


def _bare(error: BaseException) -> BaseException:
    return error.original if isinstance(error, HandlerRaised) else error


def _origin(error: BaseException) -> list[CodeLine]:
    """Return the lines of the user's that led to an error, the one to look at last."""
    if isinstance(error, BadOutput | BadValue):  # found by us, of a function that did not fit
        return [line_of_code(error.function)] if error.function is not None else []
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return own([CodeLine(error.filename, error.lineno, "")]) or own(lines_of(error))
    lines = own(lines_of(_remote(error))) or own(_lines(error)) or own(lines_of(_slot(error, "__cause__")))
    while isinstance(error, BaseExceptionGroup):  # the first of its errors says where it was raised
        error = _bare(error.exceptions[0])
        lines += _origin(error) if not isinstance(error, BaseExceptionGroup) else own(_lines(error))
    return lines


def _lines(error: BaseException) -> list[CodeLine]:
    return [CodeLine(*line) for line in error.lines] if isinstance(error, HandlerHung) else lines_of(error)


def _remote(error: BaseException) -> BaseException | None:
    """Return what an error of a pool of processes has instead of its traceback."""
    cause = _slot(error, "__cause__")
    return cause if type(cause).__name__.endswith("RemoteTraceback") else None


def _before(error: BaseException) -> tuple[BaseException | None, str]:
    """Return the error that led to this one, and how Python says so."""
    if isinstance(error, HandlerHung):
        return None, ""
    if (cause := _slot(error, "__cause__")) is not None:
        return cause, "The above exception was the direct cause of the following exception:"
    if (context := _slot(error, "__context__")) is not None and not error.__suppress_context__:
        return context, "During handling of the above exception, another exception occurred:"
    return None, ""


def _slot(error: BaseException, name: str) -> BaseException | None:
    """Return what Python has noted of an error, whatever its class has under that name."""
    found = vars(BaseException)[name].__get__(error)
    return found if isinstance(found, BaseException) else None


# ---- as text -------------------------------------------------------------------------------------


def _chain(error: BaseException, depth: int) -> Iterator[str]:
    """Yield the lines of an error, after those of the errors that led to it."""
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    now: BaseException | None = error
    says = ""
    while now is not None and id(now) not in seen and len(links) < _CHAIN_MAX:
        seen.add(id(now))
        links.append((now, says))
        now, says = _before(now)
        now = _bare(now) if now is not None else None
    if now is not None and id(now) not in seen:
        yield "(the errors before these are left out)"
        yield ""
    for link, follows in reversed(links):
        yield from _block(link, depth)
        if follows:
            yield from ("", follows, "")


def _block(error: BaseException, depth: int) -> Iterator[str]:
    lines = _lines(error)
    users = own(lines)
    if users:
        hung = isinstance(error, HandlerHung)
        yield "Where it hung (most recent call last; your own code):" if hung else _HEADING
        yield from _code(users)
        beyond = lines[max(index for index, line in enumerate(lines) if line == users[-1]) + 1 :]
        if named := packages(beyond):
            yield f"  … {len(beyond)} more in {', '.join(named[:4])}"
    if type(error).__name__.endswith("RemoteTraceback"):
        return
    said = _few_lines(text_of(error, _SAID_MAX))
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        yield f'  File "{shown_file(error.filename)}", line {error.lineno}'
        if isinstance(error.text, str) and error.text.strip():
            yield f"    {clean_text(error.text.strip(), _SAID_MAX)}"
    name = "Timeout" if isinstance(error, HandlerHung) else name_of(error)
    yield f"{name}: {said}" if said else name
    yield from _notes(error)
    if isinstance(error, BaseExceptionGroup) and depth < _GROUP_DEPTH_MAX:
        yield from _group(error, depth)


def _notes(error: BaseException) -> list[str]:
    """Return what was added to an error by `add_note`."""
    try:
        return [_few_lines(clean_text(str(note), _SAID_MAX)) for note in vars(error).get("__notes__", ())[:_NOTES_MAX]]
    except BaseException:
        return []


def _few_lines(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(lines if len(lines) <= _SAID_LINES_MAX else [*lines[:_SAID_LINES_MAX], "…"])


def _group(group: BaseExceptionGroup[BaseException], depth: int) -> Iterator[str]:
    count = len(group.exceptions)
    for number, error in enumerate(group.exceptions[:_GROUP_MAX], start=1):
        yield f"  [{number} of {count}]"
        yield indent("\n".join(_chain(_bare(error), depth + 1)), "  ")
    if count > _GROUP_MAX:
        yield f"  [{count - _GROUP_MAX} more]"


def _code(lines: Sequence[CodeLine]) -> Iterator[str]:
    """Yield lines of code with where they are: the first and the last, and what repeats itself once."""
    runs = [(line, sum(1 for _ in same)) for line, same in groupby(lines)]
    left_out = runs[_FIRST:-_LAST]
    for number, (line, times) in enumerate(runs):
        if left_out and number == _FIRST:
            yield f"  … {sum(times for _, times in left_out):,} lines of code left out"
        if left_out and _FIRST <= number < len(runs) - _LAST:
            continue
        at = place(line)
        yield f'  File "{at.file}", line {at.line}, in {at.function or "<module>"}'
        if written := source(line):
            yield f"    {written}"
        if times > 1:
            yield f"  [the same {times - 1:,} more {'time' if times == 2 else 'times'}]"


def _cut(text: str) -> str:
    """Return the beginning and the end of a text that is too long: what was raised last stands at its end."""
    if len(text) <= TRACEBACK_MAX:
        return text
    head = text[: TRACEBACK_MAX // 4].rpartition("\n")[0]
    tail = text[-(TRACEBACK_MAX * 3 // 4 - 40) :].partition("\n")[2]
    return f"{head}\n  … the middle is left out\n{tail}"
