"""Handlers that the tests of processes and of the steward use; their flows name this file by its path."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

FILE = Path(__file__)


async def upper(text: str) -> str:
    return text.upper()


async def exclaim(upper: str) -> str:
    return f"{upper}!"


async def tell_pid(folder: str) -> int:
    return os.getpid()


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


async def hold_the_gil_once(folder: str) -> int:
    """Hang the first time so that no thread of the process runs: a pattern that backtracks for ages."""
    if not is_marked(folder, "begun"):
        mark(folder, "begun")
        re.match(r"(a+)+$", "a" * 60 + "b")
    return os.getpid()


async def hold_the_loop_until_go(folder: str) -> int:
    mark(folder, "begun")
    while not is_marked(folder, "go"):
        time.sleep(0.005)  # noqa: ASYNC251 (this is the fault that the test is about)
    return os.getpid()


async def recycle_once(folder: str) -> int:
    """Have the supervisor think the first time that the worker wants to be started anew."""
    if not is_marked(folder, "begun"):
        mark(folder, "begun")
        os._exit(75)
    return os.getpid()


async def ask_to_recycle(folder: str) -> str:
    """Set what a worker on its own was started with, and hang."""
    sys.modules["__main__"].recycle.set()
    await asyncio.sleep(3600)
    return ""


def start_children(folder: str) -> None:
    """Start one that ends at SIGTERM and one that does not, say their process ids, and wait for them."""
    gentle = subprocess.Popen(["sleep", "1000"])
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    Path(folder, "new").write_text(f"{gentle.pid} {stubborn.pid}")
    Path(folder, "new").rename(Path(folder, "children"))
    gentle.wait()
    stubborn.wait()


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
