"""Twins of the handlers in `flows/calls.py`. What the model answered, the log says: it is never the same."""

from __future__ import annotations

from collections.abc import Callable

from .twins import Done, Ended, Given


def _thrown(given: Given, what: str, sides: int) -> int:
    return given.throw_for(given.token, what, sides)


def _talk(given: Given) -> Ended:
    assert given.asks is not None
    names = ["first", "second", "alike", "alike"]
    names += [f"at-once-{number}" for number in range(1 + _thrown(given, "at once", 3))]
    names.append("large" if _thrown(given, "large", 3) == 0 else "last")
    topics = [f"{given.key}/{number}" for number in range(_thrown(given, "topics", 5))]
    return Done({"found": [given.asks.call(name) for name in names], "topics": topics})


def _write(given: Given) -> Ended:
    assert given.asks is not None
    last = "large" if _thrown(given, "large", 3) == 0 else "last"
    return Done([given.asks.call(name) for name in ("first", "first", "second", last)])


def _reply(given: Given) -> Ended:
    assert given.asks is not None
    found = given.asks.call("only")
    if _thrown(given, "fails", 8) == 0:
        return given.fails("Fail")
    return Done({"branch": given.token, "item": given.item, "found": found, "typed": given.read("typed")[0]})


CALLS: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "calls": {"talk": _talk, "typed": _write, "replies": _reply},
}
