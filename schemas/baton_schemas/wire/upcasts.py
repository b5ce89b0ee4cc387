"""How the JSON object of an older version becomes one of the next. Nothing older than version 1 was released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

UPCASTS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each version before `messages.FIRST`, from which on they are read as they are: how its JSON object becomes one of
the next version."""
