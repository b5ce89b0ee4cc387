"""Twins of the handlers in `flows/ways.py`: what steps that go round, are left out, or go by lanes must put out.

What a step reads of others than those right before it, or of the round before, it reads here as well: `given.read`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .twins import PAD, Done, Ended, Given

_KINDS = ("plain", "odd", "large")
_SORTS = ("refund", "praise", "other")


def _thrown(given: Given, what: str, sides: int) -> int:
    return given.throw_for(given.token, what, sides)


def _name(value: Any, of: str = "branch") -> str | None:
    """Return what a value says of itself: whose it is, or whose error stands in its place."""
    if value is None:
        return None
    return str(value["error"]) if "error" in value else str(value[of])


# ---- loop ----------------------------------------------------------------------------------------


def _draft(given: Given) -> Ended:
    before, said = given.read("draft"), given.read("review")
    kind = _KINDS[_thrown(given, "kind", 3)]
    return Done(
        {
            "kind": f" {kind}\n",
            "items": [f"{given.key}/{index}" for index in range(_thrown(given, "items", 6))],
            "round": 1 if before is None else before["round"] + 1,
            "said": None if said is None else said["step"],
            "pad": PAD if kind == "large" else "",
        }
    )


def _look(given: Given) -> Ended:
    if _thrown(given, "fails", 7) == 0:
        return given.fails("Fail")
    if _thrown(given, "kills", 40) == 0:
        return given.fails("WorkerLost")
    draft = given.values["draft"]
    return Done({"step": given.token, "kind": draft["kind"].strip(), "round": draft["round"]})


def _read(given: Given) -> Ended:
    if _thrown(given, "fails", 9) == 0:
        return given.fails("Fail")
    if _thrown(given, "kills", 80) == 0:
        return given.fails("WorkerLost")
    return Done({"branch": given.token, "item": given.item})


def _review(given: Given) -> Ended:
    before = given.read("review")
    return Done(
        {
            "step": given.token,
            "verdict": "revise" if _thrown(given, "verdict", 3) else "good",
            "more": _thrown(given, "more", 8) != 0,
            "of": given.read("draft")["round"],
            "looked": _name(given.values.get("look"), "step"),
            "read": [_name(each) for each in given.values["read"]],
            "before": None if before is None else before["step"],
            "errors": given.said,
        }
    )


def _polish(given: Given) -> Ended:
    before = given.read("polish")
    times = 1 if before is None else before["times"] + 1
    return Done({"shine": _thrown(given, "shine", 5), "of": given.read("review")["step"], "times": times})


def _close(given: Given) -> Ended:
    draft, polish = given.read("draft"), given.values["polish"]
    return Done(
        {
            "draft": [draft["round"], draft["kind"].strip(), draft["said"]],
            "look": _name(given.read("look"), "step"),
            "read": [_name(each) for each in given.read("read")],
            "review": given.read("review")["step"],
            "polish": [polish["times"], polish["shine"]],
            "errors": given.said,
        }
    )


# ---- ways ----------------------------------------------------------------------------------------


def _sort(given: Given) -> Ended:
    return Done(
        {
            "kind": _SORTS[_thrown(given, "sort", 3)],
            "loud": _thrown(given, "loud", 4) != 0,
            "pages": [f"{given.key}/{index}" for index in range(_thrown(given, "pages", 7))],
        }
    )


def _serve(given: Given) -> Ended:
    pad = PAD if _thrown(given, "large", 4) == 0 else ""
    return Done({"step": given.token, "kind": given.values["sort"]["kind"], "pad": pad})


def _praise(given: Given) -> Ended:
    if _thrown(given, "fails", 5) == 0:
        return given.fails("Fail")
    return Done(f"{given.token} of {given.values['sort']['kind']}")


def _thank(given: Given) -> Ended:
    kind = given.read("sort")["kind"]
    return Done({"step": given.token, "for": given.values.get("praise"), "kind": kind, "errors": given.said})


def _note(given: Given) -> Ended:
    if _thrown(given, "fails", 8) == 0:
        return given.fails("Fail")
    if _thrown(given, "kills", 60) == 0:
        return given.fails("WorkerLost")
    return Done(given.item + (PAD if _thrown(given, "large", 10) == 0 else ""))


def _meet(given: Given) -> Ended:
    came = [given.values[name]["step"] for name in ("refund", "thank") if name in given.values]
    kind = given.read("sort")["kind"]
    notes = given.values.get("notes")
    return Done(
        {
            "came": came,
            "notes": None if notes is None else [len(each) if isinstance(each, str) else _name(each) for each in notes],
            "items": [f"{kind}/{index}" for index in range(len(came) + _thrown(given, "items", 5))],
            "errors": given.said,
        }
    )


def _rule(given: Given) -> Ended:
    if _thrown(given, "fails", 6) == 0:
        return given.fails("Fail")
    return Done(f"rule for {given.values['sort']['kind']}")


def _page(given: Given) -> Ended:
    if _thrown(given, "fails", 9) == 0:
        return given.fails("Fail")
    return Done({"branch": given.token, "item": given.item, "rules": given.read("rules"), "errors": given.said})


def _bind(given: Given) -> Ended:
    if _thrown(given, "fails", 14) == 0:
        return given.fails("Fail")
    refund = _name(given.read("refund"), "step")
    return Done({"branch": given.token, "of": given.item["branch"], "refund": refund, "errors": given.said})


# ---- lanes ---------------------------------------------------------------------------------------


def _line_up(given: Given) -> Ended:
    return Done([f"{given.key}/{index}" for index in range(_thrown(given, "items", 10))])


def _go(given: Given) -> Ended:
    if _thrown(given, "fails", 6) == 0:
        return given.fails("Fail")
    if _thrown(given, "kills", 40) == 0:
        return given.fails("WorkerLost")
    return Done({"branch": given.token, "item": given.item})


def _count(given: Given) -> Ended:
    branches = [each["branch"] for each in given.values["go"]]
    return Done({"branches": branches, "enough": _thrown(given, "enough", 3) != 0, "errors": given.said})


def _finish(given: Given) -> Ended:
    return Done({"of": given.values["count"]["branches"], "in": len(given.read("line"))})


WAYS: dict[str, dict[str, Callable[[Given], Ended]]] = {
    "loop": {"draft": _draft, "look": _look, "read": _read, "review": _review, "polish": _polish, "close": _close},
    "ways": {
        "sort": _sort,
        "refund": _serve,
        "praise": _praise,
        "thank": _thank,
        "notes": _note,
        "meet": _meet,
        "rules": _rule,
        "pages": _page,
        "bound": _bind,
    },
    "lanes": {"line": _line_up, "go": _go, "count": _count, "finish": _finish},
}
