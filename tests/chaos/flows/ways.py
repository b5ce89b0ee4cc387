"""Handlers of chaos flows that go round, leave out, or go by lanes. What each does follows from run and step alone.

`ways_twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from tests.chaos.flows.asking import throw
from tests.chaos.flows.handlers import LARGE, POISONED, TRICKLE_S, seen

from baton_actors.agents.handlers import Context
from baton_actors.errors import Fail, Retry

KINDS = ("plain", "odd", "large")
SORTS = ("refund", "praise", "other")


def thrown(context: Context, what: str, sides: int) -> int:
    """A number from 0 that follows from run and step, and from what it is thrown for."""
    return throw(context, context.step, what, sides)


async def take_a_while(context: Context) -> None:
    await asyncio.sleep(thrown(context, "takes", 250) / 1000)


def failed_of(each: Any) -> str:
    """Which step failed, if that is what stands in the place of a value; else nothing."""
    return str(each["error"]["step"]) if isinstance(each, dict) and "error" in each else ""


# ---- loop ----------------------------------------------------------------------------------------


async def draft(
    context: Context, key: str, draft: dict[str, Any] | None = None, review: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Begins anew from what it put out in the round before, and what was said of it."""
    await take_a_while(context)
    if thrown(context, "tries", 5) == 0 and context.attempt == 1:
        raise Retry("the first try never works here", after_s=0.5 if thrown(context, "parks", 2) else 0.05)
    kind = KINDS[thrown(context, "kind", 3)]
    return {
        "kind": f" {kind}\n",
        "items": [f"{key}/{index}" for index in range(thrown(context, "items", 6))],
        "round": draft["round"] + 1 if draft else 1,
        "said": review["step"] if review else None,
        "pad": LARGE if kind == "large" else "",
    }


async def look(context: Context, draft: dict[str, Any]) -> dict[str, Any]:
    await take_a_while(context)
    if thrown(context, "fails", 7) == 0:
        raise Fail("nothing to be seen")
    if thrown(context, "kills", 40) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"step": context.step, "kind": draft["kind"].strip(), "round": draft["round"]}


async def read(context: Context, item: str) -> dict[str, str]:
    await take_a_while(context)
    if thrown(context, "fails", 9) == 0:
        raise Fail("cannot be read")
    if thrown(context, "tries", 11) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    if thrown(context, "kills", 80) == 0:
        os._exit(POISONED)
    return {"branch": context.step, "item": item}


async def review(
    context: Context,
    draft: dict[str, Any],
    read: list[Any],
    errors: list[Any],
    look: dict[str, Any] | None = None,
    review: dict[str, Any] | None = None,
) -> dict[str, Any]:
    await take_a_while(context)
    return {
        "step": context.step,
        "verdict": "revise" if thrown(context, "verdict", 3) else "good",
        "more": thrown(context, "more", 8) != 0,
        "of": draft["round"],
        "looked": failed_of(look) or (look["step"] if look else None),
        "read": [failed_of(each) or each["branch"] for each in read],
        "before": review["step"] if review else None,
        "errors": seen(errors),
    }


async def polish(context: Context, review: dict[str, Any], polish: dict[str, Any] | None = None) -> dict[str, Any]:
    await take_a_while(context)
    if thrown(context, "tries", 6) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {"shine": thrown(context, "shine", 5), "of": review["step"], "times": polish["times"] + 1 if polish else 1}


async def close(
    context: Context,
    draft: dict[str, Any],
    read: list[Any],
    review: dict[str, Any],
    polish: dict[str, Any],
    errors: list[Any],
    look: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "draft": [draft["round"], draft["kind"].strip(), draft["said"]],
        "look": failed_of(look) or (look["step"] if look else None),
        "read": [failed_of(each) or each["branch"] for each in read],
        "review": review["step"],
        "polish": [polish["times"], polish["shine"]],
        "errors": seen(errors),
    }


# ---- ways ----------------------------------------------------------------------------------------


async def sort(context: Context, key: str) -> dict[str, Any]:
    await take_a_while(context)
    if thrown(context, "tries", 5) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {
        "kind": SORTS[thrown(context, "sort", 3)],
        "loud": thrown(context, "loud", 4) != 0,
        "pages": [f"{key}/{index}" for index in range(thrown(context, "pages", 7))],
    }


async def serve(context: Context, sort: dict[str, Any]) -> dict[str, Any]:
    await take_a_while(context)
    return {"step": context.step, "kind": sort["kind"], "pad": LARGE if thrown(context, "large", 4) == 0 else ""}


async def praise(context: Context, sort: dict[str, Any]) -> str:
    await take_a_while(context)
    if thrown(context, "fails", 5) == 0:
        raise Fail("no words for it")
    return f"{context.step} of {sort['kind']}"


async def thank(context: Context, sort: dict[str, Any], errors: list[Any], praise: str | None = None) -> dict[str, Any]:
    await take_a_while(context)
    return {"step": context.step, "for": praise, "kind": sort["kind"], "errors": seen(errors)}


async def note(context: Context, item: str) -> str:
    await asyncio.sleep(TRICKLE_S if thrown(context, "slow", 12) == 0 else thrown(context, "takes", 200) / 1000)
    if thrown(context, "fails", 8) == 0:
        raise Fail("not noted")
    if thrown(context, "kills", 60) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return item + (LARGE if thrown(context, "large", 10) == 0 else "")


async def meet(
    context: Context,
    sort: dict[str, Any],
    errors: list[Any],
    refund: dict[str, Any] | None = None,
    thank: dict[str, Any] | None = None,
    notes: list[Any] | None = None,
) -> dict[str, Any]:
    await take_a_while(context)
    came = [each["step"] for each in (refund, thank) if each is not None]
    return {
        "came": came,
        "notes": None if notes is None else [failed_of(each) or len(each) for each in notes],
        "items": [f"{sort['kind']}/{index}" for index in range(len(came) + thrown(context, "items", 5))],
        "errors": seen(errors),
    }


async def rule(context: Context, sort: dict[str, Any]) -> str:
    await asyncio.sleep(thrown(context, "takes", 600) / 1000)
    if thrown(context, "fails", 6) == 0:
        raise Fail("no rule for that")
    return f"rule for {sort['kind']}"


async def page(context: Context, item: str, errors: list[Any], rules: str | None = None) -> dict[str, Any]:
    await take_a_while(context)
    if thrown(context, "fails", 9) == 0:
        raise Fail("the page is torn")
    if thrown(context, "tries", 9) == 0 and context.attempt == 1:
        raise Retry("the first try never works here")
    return {"branch": context.step, "item": item, "rules": rules, "errors": seen(errors)}


async def bind(
    context: Context, item: dict[str, Any], errors: list[Any], refund: dict[str, Any] | None = None
) -> dict[str, Any]:
    await take_a_while(context)
    if thrown(context, "fails", 14) == 0:
        raise Fail("it does not hold")
    return {
        "branch": context.step,
        "of": item["branch"],
        "refund": refund["step"] if refund else None,
        "errors": seen(errors),
    }


# ---- lanes ---------------------------------------------------------------------------------------


async def line_up(context: Context, key: str) -> list[str]:
    return [f"{key}/{index}" for index in range(thrown(context, "items", 10))]


async def go(context: Context, item: str) -> dict[str, str]:
    """Some come so slowly that those behind them are not begun any more."""
    await asyncio.sleep(TRICKLE_S if thrown(context, "slow", 5) == 0 else thrown(context, "takes", 300) / 1000)
    if thrown(context, "fails", 6) == 0:
        raise Fail("lost on the way")
    if thrown(context, "kills", 40) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"branch": context.step, "item": item}


async def count(context: Context, go: list[dict[str, str]], errors: list[Any]) -> dict[str, Any]:
    await take_a_while(context)
    return {
        "branches": [each["branch"] for each in go],
        "enough": thrown(context, "enough", 3) != 0,
        "errors": seen(errors),
    }


async def finish(context: Context, count: dict[str, Any], line: list[str]) -> dict[str, Any]:
    return {"of": count["branches"], "in": len(line)}
