"""A test that hangs says where: it is cut off a little before the whole process would tell of no more than its loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import pytest

_PART = 5 / 6
"""Of the time that pytest-timeout allows; the rest is for fixtures, and for what a test cleans up."""


def bound(items: list[pytest.Item], timeout_s: float) -> None:
    """Cut off each async test before `timeout_s`, in seconds, so that its traceback ends at the line that waits."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            marked = item.get_closest_marker("timeout")
            allowed_s = float(marked.args[0]) if marked and marked.args else timeout_s
            item.obj = _bounded(item.obj, allowed_s * _PART)


def _bounded(test: Callable[..., Awaitable[None]], within_s: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: Any, **kwargs: Any) -> None:
        telling = asyncio.get_running_loop().call_later(within_s, tell)
        try:
            async with asyncio.timeout(within_s):
                await test(*args, **kwargs)
        finally:
            telling.cancel()

    return bounded


def tell() -> None:
    """Write to stderr where each task of this loop waits."""
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        print(f"\n{task.get_name()} waits:", file=sys.stderr)
        for frame in _frames(task.get_coro()):
            traceback.print_stack(frame, limit=1)


def _frames(waits: Any) -> Iterator[FrameType]:
    """What a coroutine waits in, the innermost last, as far as Python lets us see."""
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None:
            yield frame
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
