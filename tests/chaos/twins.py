"""What each handler of the chaos flows must put out, said once more, for the checker: see `flows/handlers.py`.

A twin is given what its step must have been given, by the checker's own reckoning, and returns how the step ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

PAD = "x" * 6_000
POISONED = 77
"""The exit code of a process that a handler has ended."""


class Done(NamedTuple):
    output: Any


class Failed(NamedTuple):
    step: str
    type: str


Ended = Done | Failed


class Given(NamedTuple):
    """What a step is given."""

    run: str
    token: str
    key: str
    values: dict[str, Any]
    """What the steps before it put out, by their names: a list for a fan-out. Nothing for one that failed."""
    errors: list[Failed]
    item: Any = None

    def throw(self, sides: int) -> int:
        return zlib.crc32(f"{self.run}/{self.token}".encode()) % sides

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
}
"""By flow and step."""


def error_in_place(failed: Failed) -> dict[str, Any]:
    """Return what a merger is given in the place of a branch that failed, as far as twins look at it."""
    return {"error": failed.step, "type": failed.type}
