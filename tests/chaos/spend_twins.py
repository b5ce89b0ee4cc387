"""Twins of the agents and handlers of `flows/spend.toml` and `flows/park.toml`."""

from __future__ import annotations

from collections.abc import Callable

from .plans import is_refused
from .twins import Done, Ended, Given


def _plan(given: Given) -> Ended:
    return Done([f"{given.key}/{index}" for index in range(given.throw_for("plan", "topics", 9))])


def _talk(given: Given) -> Ended:
    assert given.asks is not None
    words = 1 + given.throw_for("talk", "words", 3)
    return Done([given.asks.call(f"word-{number}") for number in range(words)])


def _facts(given: Given) -> Ended:
    """The model refuses one in ten for good."""
    return given.fails("invalid_request_error") if is_refused(given.run, given.token) else Done(given.item)


def _close(given: Given) -> Ended:
    return Done({"talk": given.values.get("talk"), "facts": given.values["facts"], "errors": given.said})


_STEPS: dict[str, Callable[[Given], Ended]] = {"plan": _plan, "talk": _talk, "facts": _facts, "close": _close}
SPEND = {"spend": _STEPS, "park": _STEPS}
