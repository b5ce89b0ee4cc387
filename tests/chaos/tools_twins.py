"""Twins of the agents and handlers of `flows/tools.toml`. What models said, and what came of calls, the log says."""

from __future__ import annotations

from collections.abc import Callable

from .asked import NotThere
from .plans import ONCE, is_refused, plan
from .twins import Done, Ended, Given

IN_DOUBT = "ToolInDoubt"


def _plan(given: Given) -> Ended:
    return Done([f"{given.key}/desk-{index}" for index in range(given.throw_for("plan", "desks", 5))])


def _clerk(given: Given) -> Ended:
    return _talk(given, "")


def _desk(given: Given) -> Ended:
    return _talk(given, "tellers")


def _talk(given: Given, role: str) -> Ended:
    """By its plan, as far as the log has it. `role` is who is asked about a call in doubt."""
    asks, turns = given.asks, plan(given.run, given.token)
    assert asks is not None
    if is_refused(given.run, given.token):
        return given.fails("invalid_request_error")
    talk = asks.talk
    for number in range(len(turns)):
        found = talk.turn(number)
        if found is None:
            raise NotThere(f"turn {number}")
        places = [(found[0], place) for place in range(len(turns[number].calls))]
        for place, name in zip(places, turns[number].calls, strict=True):
            if name in ONCE and role:
                asks.about(role, found[1].calls[place[1]].order)
        if missing := [place for place in places if place not in talk.results]:
            if not role and any(place in talk.begun for place in missing):
                return given.fails(IN_DOUBT)
            raise NotThere(f"what came of {missing[0]}")
    last = talk.turn(len(turns))
    if last is None:
        raise NotThere("its end")
    return Done(last[1].text)


def _close(given: Given) -> Ended:
    return Done({"clerk": given.values.get("clerk", ""), "desk": given.values["desk"], "errors": given.said})


TOOLS: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "tools": {"plan": _plan, "clerk": _clerk, "desk": _desk, "close": _close},
}
