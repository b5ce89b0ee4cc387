"""Where an error came from: the lines of the user's own code, whatever was raised, bounded, and without secrets."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import _ExceptionWithTraceback
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents import raising
from baton_actors.agents.code_lines import CodeLine, own
from baton_actors.agents.contained import contained
from baton_actors.agents.handlers import Handler
from baton_actors.agents.importing import load_handler
from baton_actors.agents.python import PythonAgent
from baton_actors.agents.threads import Threads
from baton_actors.agents.tracebacks import TRACEBACK_MAX, place_of, traceback_of
from baton_actors.errors import BadOutput, BadValue, Fail, HandlerHung, HandlerNotFound, HandlerRaised, Retry
from baton_actors.models import client
from baton_actors.steps.retries import as_error
from baton_schemas.flow.flow import Agent
from baton_schemas.show.errors import told

from .agents import CONTEXT, NoJournal, task_of


def raised_by(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def lookup() -> int:
    return {"kind": 1}["prio"]


def line_in(function: Callable[..., Any], offset: int = 1) -> int:
    return function.__code__.co_firstlineno + offset


def test_error_says_the_line_of_the_users_code_in_one_line() -> None:
    error = as_error("lookup", 3, raised_by(lookup))
    assert told(error) == f"KeyError: 'prio' at tests/test_tracebacks.py:{line_in(lookup)} in lookup (3 tries)"


def test_traceback_has_the_lines_as_python_writes_them() -> None:
    assert traceback_of(raised_by(lookup)).splitlines()[-3:] == [
        f'  File "tests/test_tracebacks.py", line {line_in(lookup)}, in lookup',
        '    return {"kind": 1}["prio"]',
        "KeyError: 'prio'",
    ]


def test_lines_of_libraries_are_counted_and_named() -> None:
    error = raised_by(lambda: json.loads("{"))
    assert place_of(error) is not None
    assert "  … 3 more in json" in traceback_of(error).splitlines()


def deep(depth: int = 0) -> int:
    return deep(depth + 1)


def ping(depth: int) -> int:
    return pong(depth)


def pong(depth: int) -> int:
    return ping(depth - 1) if depth else 1 // 0


def chained() -> None:
    try:
        lookup()
    except KeyError as error:
        raise ValueError("a bad order") from error


def chained_long(length: int = 400) -> None:
    if not length:
        raise ValueError("the first")
    try:
        chained_long(length - 1)
    except ValueError as error:
        raise ValueError(str(length)) from error


def in_a_circle() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    raise first


def in_a_group() -> None:
    errors: list[Exception] = []
    for _ in range(30):
        try:
            lookup()
        except KeyError as error:
            errors.append(error)
    raise ExceptionGroup("several", [*errors, ExceptionGroup("inner", [ValueError("b")] * 30)])


async def in_tasks() -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.to_thread(lookup))


def in_a_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lookup).result()


def in_a_process() -> None:
    """What a pool of processes raises here, without the process."""
    error = raised_by(lookup)
    assert error.__traceback__ is not None
    made: Any = _ExceptionWithTraceback(error, error.__traceback__).__reduce__()
    raise made[0](*made[1]).with_traceback(None)  # as pickle does


def without_an_end() -> None:
    raise ValueError("x\n" * 100_000)


def with_notes() -> None:
    error = ValueError("x")
    for number in range(50):
        error.add_note(f"order {number} \x1b[31m" + "y" * 1_000)
    raise error


class Unspeakable(Exception):
    __cause__ = property(lambda self: 1 // 0)

    def __str__(self) -> str:
        raise SystemExit(1)


def unspeakable() -> None:
    raise Unspeakable


def in_a_file_that_is_not_there() -> None:
    exec(compile("1 // 0", os.fsdecode(b"/caf\xe9/gone\n\x1b[31m.py"), "exec"))


def in_a_list() -> list[int]:
    return [1 // number for number in [0]]


RAISED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "a recursion of a thousand calls": (deep, "deep", "more times]"),
    "two functions that call each other": (lambda: ping(300), "pong", "lines of code left out"),
    "a chain": (chained, "chained", "KeyError: 'prio'\n\nThe above exception was the direct cause"),
    "a chain of four hundred": (chained_long, "chained_long", "(the errors before these are left out)"),
    "a chain in a circle": (in_a_circle, "in_a_circle", "KeyError: 'b'"),
    "a group": (in_a_group, "lookup", "  [1 of 31]"),
    "a group of tasks": (lambda: asyncio.run(contained(in_tasks, 5)), "lookup", "[3 of 3]"),
    "a thread": (in_a_thread, "lookup", "KeyError: 'prio'"),
    "another process": (in_a_process, "lookup", "in in_a_process"),
    "a text without an end": (without_an_end, "without_an_end", "\n…"),
    "notes": (with_notes, "with_notes", "order 0"),
    "an error without words": (unspeakable, "unspeakable", "(its text raised SystemExit)"),
    "a file whose name is no text": (in_a_file_that_is_not_there, "", "ZeroDivisionError"),
    "a list": (in_a_list, "in_a_list", "1 // number"),
    "an exit": (lambda: sys.exit(3), "<lambda>", "SystemExit: 3"),
}


@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_has_its_place_and_a_bounded_traceback(name: str) -> None:
    call, function, part = RAISED[name]
    error = raised_by(call)
    place, text = place_of(HandlerRaised(error)), traceback_of(error)
    assert place is not None
    assert place.function == function
    assert part in text
    assert len(text) <= TRACEBACK_MAX
    assert text.count("\n") < 80
    (place.file + text).encode()


def test_error_on_purpose_has_a_place_and_a_traceback_only_of_what_led_to_it() -> None:
    def on_purpose() -> None:
        raise Retry("busy", after_s=1)

    def because() -> None:
        try:
            lookup()
        except KeyError as error:
            raise Fail("no such order") from error

    def instead() -> None:
        try:
            lookup()
        except KeyError:
            raise Fail("no such order") from None

    for call, texts in ((on_purpose, []), (because, ["KeyError: 'prio'", "Fail: no such order"]), (instead, [])):
        error = raised_by(call)
        place = place_of(error)
        assert place is not None
        assert place.function == call.__name__
        assert [line for line in traceback_of(error).splitlines() if line in texts] == texts
        assert bool(traceback_of(error)) == bool(texts)


def test_secrets_are_in_no_message_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "the-key-of-the-shop")

    def tells() -> None:
        raise ValueError("https://bob:pw@shop/ said no to the-key-of-the-shop and sk-0123456789")

    error = as_error("a", 1, raised_by(tells))
    assert error.message == "https://***@shop/ said no to *** and sk-***"
    assert not any(secret in error.traceback for secret in ("bob", "the-key-of", "0123456789"))


def test_code_is_quoted_as_it_was_imported_whoever_edits_it_later(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def f():\n    return {}['as it was']\n")
    handler = load_handler("a", Agent(handler="./mine.py:f"), tmp_path)
    file.write_text("# a line more\ndef f():\n    return {}['as it is now']\n")
    assert "    return {}['as it was']" in traceback_of(raised_by(handler.function)).splitlines()


def test_lines_of_a_handler_that_is_installed_are_its_own() -> None:
    lines = [CodeLine(f"/v/site-packages/{file}", 1, "f") for file in ("shop/orders.py", "httpx/api.py", "shop/x.py")]
    called = CodeLine(raising.__file__, 1, "caught")
    assert [line.file.rpartition("/")[2] for line in own([called, *lines])] == ["orders.py", "x.py"]
    assert own([called, CodeLine(json.__file__, 1, "f")]) == []
    assert own([called, CodeLine(client.__file__, 1, "f"), *lines]) == [], "a library that asks models is no handler"


def test_what_does_not_fit_a_handler_names_where_it_is_defined() -> None:
    def takes(number: int) -> str:
        return number  # type: ignore[return-value]

    handler = Handler(takes)
    with pytest.raises(BadOutput) as output:
        handler.encode(3)
    with pytest.raises(BadValue) as value:
        handler.call(task_of(number="x").values, CONTEXT)
    for error in (output.value, value.value):
        place = place_of(error)
        assert place is not None
        assert (place.line, place.function) == (line_in(takes, 0), "takes")


async def waits_for_ever() -> None:
    await asyncio.sleep(60)


async def hangs() -> None:
    await waits_for_ever()


async def test_time_out_says_where_an_async_handler_hung() -> None:
    with pytest.raises(HandlerHung) as caught:
        await contained(hangs, 0.02)
    error = as_error("a", 1, caught.value)
    assert error.at is not None
    assert (error.type, error.at.line, error.at.function) == ("Timeout", line_in(waits_for_ever), "waits_for_ever")
    assert error.traceback.startswith("Where it hung (most recent call last; your own code):\n")
    assert "await waits_for_ever()" in error.traceback


async def test_time_out_says_where_a_thread_hung() -> None:
    enough = threading.Event()

    def stuck() -> None:
        enough.wait(30)

    threads = Threads()
    try:
        with pytest.raises(HandlerHung) as caught:
            await PythonAgent(Handler(stuck), threads).perform(task_of(timeout_s=0.02), NoJournal())
    finally:
        enough.set()
        threads.close()
    error = as_error("a", 1, caught.value)
    assert error.at is not None
    assert (error.at.line, error.at.function) == (line_in(stuck), "stuck")
    assert "more in threading" in error.traceback


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(:\n    pass\n", "SyntaxError: invalid syntax: `def f(:` at mine.py:1"),
        ("import os\n\n\nLIMIT = os.environ['NOT_SET']\n", "KeyError: 'NOT_SET' at mine.py:4"),
        ("def go(n=0):\n    return go(n + 1)\n\n\ngo()\n", "RecursionError: maximum recursion depth exceeded"),
        ("s = '\udce9'\n", "SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xe9"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all' at mine.py:1"),
    ],
)
def test_handler_that_cannot_be_imported_says_the_line(code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(code.encode(errors="surrogateescape"))
    with pytest.raises(HandlerNotFound) as caught:
        load_handler("a", Agent(handler="./mine.py:f"), tmp_path)
    assert f"importing it raised {says}" in str(caught.value)
    assert importlib.util.find_spec("no_such_module_at_all") is None
