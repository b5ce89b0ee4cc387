"""A test that hangs says at which line, and what else waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .commands import WAIT_S
from .maps import ROOT

HANGS = """
import asyncio


async def waits_in_vain(event):
    await event.wait()  # the line to be told


async def test_hangs():
    event = asyncio.Event()
    beside = asyncio.create_task(waits_in_vain(asyncio.Event()), name="the one beside")
    await waits_in_vain(event)


async def test_ends():
    assert await asyncio.sleep(0, 1) == 1
"""
CONFTEST = """
from tests.hanging import bound

def pytest_collection_modifyitems(items):
    bound(items, 0.6)
"""


def test_test_that_hangs_is_cut_off_and_says_where_and_what_else_waits(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_hangs.py").write_text(HANGS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "--color=no"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    told, _, beside = ended.stdout.partition("the one beside waits:")
    assert ">       await waits_in_vain(event)" in told
    assert "await event.wait()  # the line to be told" in told
    assert "await event.wait()  # the line to be told" in beside
