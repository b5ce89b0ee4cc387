"""What each handler of the chaos flows must put out, said once more, for the checker: see `flows/handlers.py`.

A twin is given what its step must have been given, by the checker's own reckoning, and returns how the step ends.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .asked import Asks

PAD = "x" * 6_000
POISONED = 77
"""The exit code of a process that a handler has ended."""


class Done(NamedTuple):
    output: Any


class Failed(NamedTuple):
    step: str
    type: str


class Skipped(NamedTuple):
    """It was left out, for any one of these reasons."""

    reasons: tuple[str, ...]


Ended = Done | Failed | Skipped


class Given(NamedTuple):
    """What a step is given."""

    run: str
    token: str
    key: str
    values: dict[str, Any]
    """What the steps before it put out, by their names: a list for a fan-out. Nothing for one that failed."""
    errors: list[Failed]
    item: Any = None
    """Of a branch; the arguments of what was asked for."""
    asks: Asks | None = None
    read: Callable[[str], Any] = lambda _: None
    """What any step before put out, or in a loop one after it in the round before, by its name. None for nothing."""

    def throw(self, sides: int) -> int:
        return zlib.crc32(f"{self.run}/{self.token}".encode()) % sides

    def throw_for(self, here: str, what: str, sides: int) -> int:
        return int(hashlib.sha256(f"{self.run}/{here}/{what}".encode()).hexdigest()[:8], 16) % sides

    def fails(self, type: str) -> Failed:
        return Failed(self.token, type)

    @property
    def said(self) -> list[list[str]]:
        return [[error.step, error.type] for error in self.errors]


def _find(given: Given) -> Ended:
    return Done(given.key + (PAD if given.throw(7) == 0 else ""))


def _write(given: Given) -> Ended:
    return Done(f"on {given.key}")


def _edit(given: Given) -> Ended:
    return Done({"edited": given.values["write"]})


def _split(given: Given) -> Ended:
    pad = PAD if given.throw(4) == 1 else ""
    return Done([f"{given.key}/{index}{pad}" for index in range(given.throw(9))])


def _work(given: Given) -> Ended:
    return Done({"branch": given.token, "item": given.item})


def _gather(given: Given) -> Ended:
    found = given.values["work"]
    return Done(
        {"branches": [each["branch"] for each in found], "characters": sum(len(each["item"]) for each in found)}
    )


def _judge(given: Given) -> Ended:
    if given.throw(6) == 0:
        return given.fails("Fail")
    if given.throw(60) == 1:
        return given.fails("WorkerLost")
    return Done({"branch": given.token, "opinion": PAD if given.throw(5) == 0 else "short"})


def _choose(given: Given) -> Ended:
    heard = [given.values[name]["branch"] for name in ("one", "two", "three") if name in given.values]
    return Done({"branches": heard, "errors": given.said})


def _facts(given: Given) -> Ended:
    """The model refuses one in ten for good."""
    if zlib.crc32(f"{given.key}/{given.token}".encode()) % 10 == 0:
        return given.fails("invalid_request_error")
    return Done(given.item)


def _sketch(given: Given) -> Ended:
    return given.fails("Fail") if given.throw(7) == 0 else Done({"branch": given.token})


def _merge(given: Given) -> Ended:
    names = []
    for index, fact in enumerate(given.values["facts"]):
        names.append(fact["error"] if isinstance(fact, dict) else f"facts-{index}")
    sketch = given.values["sketch"]
    return Done({"branches": [*names, sketch.get("error") or sketch["branch"]], "errors": given.said})


def _review(given: Given) -> Ended:
    if given.throw(9) == 0:
        return given.fails("Fail")
    return Done({"branches": given.values["merge"]["branches"], "errors": given.said})


def _begin(given: Given) -> Ended:
    if given.throw(4) == 1:
        return given.fails("Fail")
    return Done({"leg": given.token, "pad": PAD if given.throw(5) == 0 else ""})


def _go_on(given: Given) -> Ended:
    return given.fails("Fail") if given.throw(6) == 1 else Done({"leg": given.token, "errors": given.said})


def _blend(given: Given) -> Ended:
    legs = [given.values[name] for name in ("left2", "right2") if name in given.values]
    return Done({"legs": legs, "errors": given.said})


def _close(given: Given) -> Ended:
    return Done({"of": given.values["blend"], "errors": given.said})


def _list_up(given: Given) -> Ended:
    return Done({"items": [f"{given.key}/{index}" for index in range(2 + given.throw(5))]})


def _handle(given: Given) -> Ended:
    if given.throw(25) == 3:
        return given.fails("WorkerLost")
    return Done({"branch": given.token, "item": given.item + (PAD if given.throw(12) == 5 else "")})


def _nap(given: Given) -> Ended:
    return given.fails("Timeout") if given.throw(10) == 0 else Done({"branch": given.token})


def _collect(given: Given) -> Ended:
    handled = given.values["handle"]
    each = [*handled, *([given.values["nap"]] if "nap" in given.values else [])]
    names = [one["type"] if "error" in one else one["branch"] for one in each]
    return Done(
        {"branches": names, "errors": given.said, "characters": sum(len(one.get("item", "")) for one in handled)}
    )


def _boss(given: Given) -> Ended:
    asks, here = given.asks, given.item["topic"] if given.item else given.key
    assert asks is not None

    def thrown(what: str, sides: int) -> int:
        return given.throw_for(here, what, sides)

    began_s, drawn = asks.record("began"), asks.record("drawn")
    found = [asks.ask("helper", topic=f"{here}/{number}") for number in range(thrown("one by one", 3))]

    def twice(number: int) -> list[Any]:
        first = asks.ask("helper", topic=f"{here}/at once/{number}")
        return [first, asks.ask("helper", topic=f"{here}/then/{number}/{drawn}")]

    found += asks.at_once(*(partial(twice, number) for number in range(1 + thrown("at once", 3))))
    asks.sleep()
    if thrown("alike", 2):
        found += asks.at_once(*[lambda: asks.ask("helper", topic=f"{here}/alike")] * 2)
    if thrown("sleeps", 3) == 0:
        asks.sleep()
    if thrown("slow", 2):
        found.append(asks.ask("helper", topic=f"{here}/slow", pad=PAD if thrown("pad", 3) == 0 else ""))
    if thrown("late", 4) == 0:
        found.append(asks.ask("helper", topic=f"{here}/slow/late"))
    if here.count("+") < 2 and thrown("itself", 3) == 0:
        found.append(asks.ask("boss", topic=f"{here}+"))
    if thrown("oracle", 2):
        found.append(asks.ask("oracle", topic=f"{here}/oracle"))
    return Done({"found": found, "began_s": began_s, "drawn": drawn})


def _drive(given: Given) -> Ended:
    asks, here = given.asks, f"{given.key}/drive"
    assert asks is not None
    drawn = asks.record("drawn")
    found = [asks.ask("helper", topic=f"{here}/{drawn}")]
    asked = [("helper", f"{here}/0"), ("helper", f"{here}/1")]
    if given.throw_for(here, "oracle", 2):
        asked.append(("oracle", f"{here}/oracle"))
    found += asks.at_once(*(partial(asks.ask, agent, topic=topic) for agent, topic in asked))
    asks.sleep()
    if given.throw_for(here, "slow", 2):
        found.append(asks.ask("helper", topic=f"{here}/slow"))
    return Done({"found": found, "drawn": drawn})


def _helper(given: Given) -> Ended:
    topic, pad = given.item["topic"], given.item["pad"]
    assert given.asks is not None
    if given.throw_for(topic, "kills", 200) == 1:
        return given.fails("WorkerLost")
    if given.throw_for(topic, "fails", 8) == 0:
        return given.fails("Fail")
    goes_down = topic.count("?") < 2 and given.throw_for(topic, "asks", 6) == 0
    below = given.asks.ask("helper", topic=f"{topic}?") if goes_down else None
    more = PAD if given.throw_for(topic, "large", 15) == 0 else ""
    return Done({"of": topic, "pad": len(pad), "below": below, "more": more})


def _oracle(given: Given) -> Ended:
    """The model refuses one in ten for good."""
    topic = given.item["topic"]
    if zlib.crc32(f"{given.key}/{topic}".encode()) % 10 == 0:
        return given.fails("invalid_request_error")
    return Done(f"nothing of {topic}")


def _sum_up(given: Given) -> Ended:
    lead, drive = given.values["lead"], given.values["drive"]
    return Done([len(lead["found"]), len(drive["found"]), lead["drawn"], drive["drawn"]])


TWINS: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "pipeline": {"find": _find, "write": _write, "edit": _edit},
    "spread": {"split": _split, "work": _work, "gather": _gather},
    "panel": {"one": _judge, "two": _judge, "three": _judge, "choose": _choose},
    "mix": {"plan": _split, "facts": _facts, "sketch": _sketch, "merge": _merge, "review": _review},
    "relay": {
        "left": _begin,
        "right": _begin,
        "left2": _go_on,
        "right2": _go_on,
        "blend": _blend,
        "close": _close,
    },
    "hazard": {"list": _list_up, "handle": _handle, "nap": _nap, "collect": _collect},
    "ask": {"lead": _boss, "boss": _boss, "drive": _drive, "helper": _helper, "oracle": _oracle, "sum": _sum_up},
}
"""By flow and step, or agent that is asked."""


def error_in_place(failed: Failed) -> dict[str, Any]:
    """Return what a merger is given in the place of a branch that failed, as far as twins look at it."""
    return {"error": failed.step, "type": failed.type}
