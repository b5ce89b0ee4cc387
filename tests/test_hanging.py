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

import pytest


async def waits_in_vain(event):
    await event.wait()  # the line to be told


@pytest.mark.timeout(1.5)
async def test_hangs():
    event = asyncio.Event()
    beside = asyncio.create_task(waits_in_vain(asyncio.Event()), name="the one beside")
    await waits_in_vain(event)


@pytest.mark.timeout(1.5)
async def test_ends():
    assert await asyncio.sleep(0, 1) == 1
"""


def test_test_that_hangs_is_cut_off_and_says_where_and_what_else_waits(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems\n")
    (tmp_path / "test_hangs.py").write_text(HANGS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\ntimeout = 120\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--color=no"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    told, _, beside = ended.stdout.partition("the one beside waits:")
    assert ">       await waits_in_vain(event)" in told
    assert "await event.wait()  # the line to be told" in told
    assert "await event.wait()  # the line to be told" in beside
