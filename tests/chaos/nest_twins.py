"""Twins of the handlers in `flows/nest.py`, and of the steps of those flows that are flows themselves, or people."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from .asked import NotThere
from .people_twins import YES_NO, of_a_person
from .twins import PAD, Done, Ended, Given


def _plan(given: Given) -> Ended:
    count = given.throw_for(given.key, "items", 4)
    return Done({"items": [f"{given.key}/{number}" for number in range(count)], "one": f"{given.key}/whole"})


def _of_a_flow(given: Given, agent: str, key: str) -> Ended:
    """A step that is a flow."""
    assert given.asks is not None
    found = given.asks.run_flow(agent, key=key)
    return given.fails(found["failed"]) if isinstance(found, dict) and "failed" in found else Done(found)


def _run(given: Given) -> Ended:
    asks, key = given.asks, given.key
    assert asks is not None
    found = [asks.run_flow("leaf", key=f"{key}/first")]
    if given.throw_for(key, "gives up", 8) == 0:
        with contextlib.suppress(NotThere):
            asks.run_flow("inner", key=f"{key}/left")
        return given.fails("Fail")
    if given.throw_for(key, "at once", 2):
        found += asks.at_once(*[lambda: asks.run_flow("inner", key=f"{key}/alike")] * 2)
    if given.throw_for(key, "short", 3) == 0:
        found.append(asks.run_flow("inner", key=f"{key}/short"))
    return Done(found)


def _bind(given: Given) -> Ended:
    return Done({name: given.values[name] for name in ("items", "whole", "run")} | {"errors": given.said})


def _open_up(given: Given) -> Ended:
    return Done(given.key + (PAD if given.throw_for(given.key, "large", 6) == 0 else ""))


def _close_inner(given: Given) -> Ended:
    if given.throw_for(given.key, "kills", 40) == 1:
        return given.fails("WorkerLost")
    if given.throw_for(given.key, "fails", 7) == 0:
        return given.fails("Fail")
    return Done({"of": given.key, "leaf": given.values["leaf"]["verdict"]})


def _approve_leaf(given: Given) -> Ended:
    how = {"answers": (*YES_NO, "silence"), "deadline_s": 0.8, "default": "silence"}
    return of_a_person(given, "editors", f"Is {given.key} right?", **how)


def _note(given: Given) -> Ended:
    return Done({"verdict": given.values["approve"], "key": given.key[:40]})


NEST: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "nest": {
        "plan": _plan,
        "items": lambda given: _of_a_flow(given, "item", given.item),
        "whole": lambda given: _of_a_flow(given, "whole", given.values["plan"]["one"]),
        "run": _run,
        "bind": _bind,
    },
    "inner": {
        "open": _open_up,
        "leaf": lambda given: _of_a_flow(given, "leaf", given.values["open"]),
        "close": _close_inner,
    },
    "leaf": {"approve": _approve_leaf, "note": _note},
}
