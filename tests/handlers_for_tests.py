"""Handlers that the tests of processes and of the steward use; their flows name this file by its path."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

FILE = Path(__file__)


async def upper(text: str) -> str:
    return text.upper()


async def exclaim(upper: str) -> str:
    return f"{upper}!"


async def die_once(folder: str) -> int:
    """Die of SIGKILL the first time."""
    if not is_marked(folder, "died"):
        mark(folder, "died")
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


async def die(folder: str) -> None:
    os._exit(7)


async def wait_for_go(folder: str) -> str:
    """Say that it has begun, and end when the test says so."""
    mark(folder, "begun")
    while not is_marked(folder, "go"):  # noqa: ASYNC110 (the test is another process)
        await asyncio.sleep(0.005)
    return "gone"


def hold_a_thread(folder: str) -> None:
    mark(folder, "begun")
    time.sleep(3600)


async def hold_the_loop(folder: str) -> None:
    mark(folder, "begun")
    time.sleep(3600)  # noqa: ASYNC251 (this is the fault that the test is about)


async def raises(folder: str) -> None:
    raise RuntimeError("as it was told to")


def mark(folder: str | Path, name: str) -> None:
    """Tell another process that something has happened."""
    Path(folder, name).touch()


def is_marked(folder: str | Path, name: str) -> bool:
    return Path(folder, name).exists()


def flow_of(*handlers: str, name: str = "t", field: str = "folder", options: str = "") -> str:
    """Return a flow file: one step after the other, each called as its handler; `options` for each agent."""
    text = f'name = "{name}"\n[input]\n{field} = "str"\n'
    for handler in handlers:
        text += f'[agents.{handler}]\nhandler = "{FILE}:{handler}"\n{options}\n'
    for before, handler in zip(("", *handlers), handlers, strict=False):
        text += f"[steps.{handler}]\n" + (f'after = "{before}"\n' if before else "")
    return text
