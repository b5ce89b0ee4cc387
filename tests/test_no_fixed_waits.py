"""No test waits for a fixed time: it is too short on a slow machine, and too long on every other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from .maps import ROOT

LEAST_S = 0.05
"""A shorter sleep lets others come first, and decides nothing."""
_ELSEWHERE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
"""What a test defines is not the test: a handler may simulate slow work."""


def fixed_waits(file: Path) -> Iterator[str]:
    """Yield the places at which the tests of a file sleep for a number of seconds that no setting gave.

    In a loop it is a condition that is waited for; and a multiple of a setting that the test names (three leases) is
    how long the fault lasts, or the thing itself that is tested.
    """
    for test in ast.parse(file.read_text("utf-8")).body:
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
            for call in sleeps(test.body):
                seconds = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
                if isinstance(seconds, int | float) and seconds >= LEAST_S:
                    yield f"{file.name}:{call.lineno}: {ast.unparse(call)} in {test.name}"


def sleeps(nodes: list[ast.stmt]) -> Iterator[ast.Call]:
    """Yield the calls of `asyncio.sleep` and `time.sleep` that run once, in the order of the code."""
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (*_ELSEWHERE, ast.While)):
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.sleep", "time.sleep"):
            yield node
        waiting[:0] = ast.iter_child_nodes(node)


def test_no_test_waits_for_a_fixed_time() -> None:
    files = sorted((ROOT / "tests").glob("test_*.py"))
    assert files
    assert [wait for file in files for wait in fixed_waits(file)] == []


def test_fixed_waits_are_found_in_tests_and_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(
        "def test_it():\n"
        "    async def handler():\n"
        "        await asyncio.sleep(60)\n"
        "    with fault():\n"
        "        time.sleep(1)\n"
        "        time.sleep(3 * LEASE_S)\n"
        "    while not there():\n"
        "        time.sleep(0.1)\n"
        "    time.sleep(0)\n"
        "async def handler():\n"
        "    await asyncio.sleep(60)\n"
    )
    assert list(fixed_waits(file)) == ["test_it.py:5: time.sleep(1) in test_it"]
