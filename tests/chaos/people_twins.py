"""Twins of the handlers in `flows/people.py`, and of the steps of that flow that are people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .twins import PAD, Done, Ended, Given

YES_NO = ("yes", "no")
_SOON_S = 0.7


def _desk(given: Given) -> Ended:
    asks, key = given.asks, given.key
    assert asks is not None

    def thrown(what: str, sides: int) -> int:
        return given.throw_for(key, what, sides)

    title = f"{key}/{asks.record('drawn')}"
    found = [asks.ask("typist", topic=f"{key}/typed")] if thrown("types", 2) else []
    found.append(asks.ask_person("editors", f"Is {title} to be written?", answers=YES_NO))
    if thrown("several", 2):
        found += asks.at_once(
            lambda: asks.ask_person("crowd", f"{title}: what does 0 say?"),
            lambda: asks.ask_person("crowd", f"{title}: what does 1 say?"),
            lambda: asks.ask("typist", topic=f"{key}/slow"),
        )
    if thrown("paid", 2):
        found.append(asks.wait_for("paid"))
    if thrown("paid twice", 3) == 0:
        found += asks.at_once(*[lambda: asks.wait_for("paid")] * 2)
    if thrown("late", 2) == 0:
        how = {"answers": (*YES_NO, "silence"), "deadline_s": _SOON_S, "default": "silence"}
        found.append(asks.ask_person("board", f"May {title}?", **how))
    if thrown("late word", 3) == 0:
        found.append(asks.wait_for("bell", deadline_s=_SOON_S))
    if thrown("first", 2):
        at_last = partial(asks.ask_person, "editors", f"{title}: at last?", answers=YES_NO)
        found.append(asks.at_once(at_last, lambda: asks.wait_for_nothing("never"))[0])
    items = [f"{title}/{number}" for number in range(thrown("items", 3))]
    return Done({"title": title, "found": found, "items": items})


def _cash(given: Given) -> Ended:
    asks = given.asks
    assert asks is not None
    verdict = asks.ask_person("tellers", f"Is {given.key}/{asks.record('drawn')} right?", answers=YES_NO)
    return Done({"verdict": verdict, "sum": asks.wait_for("sum", deadline_s=_SOON_S, default={"sum": 0})})


def _typist(given: Given) -> Ended:
    topic = given.item["topic"]
    return Done(topic + (PAD if given.throw_for(topic, "large", 5) == 0 else ""))


def of_a_person(given: Given, role: str, text: str, **how: Any) -> Ended:
    """A step that is a person."""
    assert given.asks is not None
    answer = given.asks.ask_person(role, text, **how)
    return given.fails("AskFailed") if isinstance(answer, dict) and "failed" in answer else Done(answer)


def _approve(given: Given) -> Ended:
    return of_a_person(given, "editors", f"Publish {given.values['desk']['title']}?", answers=YES_NO)


def _rate(given: Given) -> Ended:
    fields = ("score", "why")
    return of_a_person(given, "readers", f"How is {given.item}?", fields=fields, deadline_s=1.5, default={"score": 0})


def _veto(given: Given) -> Ended:
    return of_a_person(given, "board", f"Anything against {given.key}?", deadline_s=0.8)


def _close_desk(given: Given) -> Ended:
    values = {name: given.values.get(name) for name in ("approve", "rate", "cash", "veto")}
    return Done({**values, "errors": given.said})


PEOPLE: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "people": {
        "desk": _desk,
        "cash": _cash,
        "typist": _typist,
        "approve": _approve,
        "rate": _rate,
        "veto": _veto,
        "close": _close_desk,
    },
}
