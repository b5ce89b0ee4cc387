"""The `Context`: what a handler may know about the step that it does."""

from __future__ import annotations

from msgspec import Struct


class Context(Struct, frozen=True, kw_only=True):
    """Who a handler is doing a step for. Fields may be added, each with a default."""

    run: str
    step: str
    attempt: int
