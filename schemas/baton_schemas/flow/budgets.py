"""Budgets of flows: whether one can be kept, and a flow with that of whoever starts a run over its own. Pure."""

from __future__ import annotations

import math

import msgspec
from msgspec.structs import asdict, replace

from baton_schemas.errors import BadMessage, FlowError, NewerMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.codec import decode_say
from baton_schemas.wire.money import Budget

USD_MAX = 1e9
"""A billion: more is more likely a mistake in the unit."""
TOKENS_MAX = 10**15
_EXPECTED = {
    "usd": "USD: a number more than 0, at most a billion",
    "tokens": "tokens: a whole number of at least 1",
}


def check_budget(place: str, budget: Budget) -> None:
    """Raise `FlowError` for a budget that allows nothing, or that is none."""
    amounts = asdict(budget)
    for key, amount in amounts.items():
        if amount is not None and not is_amount(key, amount):
            raise FlowError(f"{place}.{key}" if place else key, f"{amount:g}", _EXPECTED[key.partition("_")[0]])
    if all(amount is None for amount in amounts.values()):
        keys = "one of usd, tokens, usd_per_day and tokens_per_day"
        raise FlowError(place, "a budget that says nothing", keys, hint="Leave it out for no limit.")
    for unit in ("usd", "tokens"):
        run, day = amounts[unit], amounts[f"{unit}_per_day"]
        if run is not None and day is not None and run > day:
            raise FlowError(
                f"{place}.{unit}" if place else unit,
                f"{run:g}, and {unit}_per_day = {day:g}",
                "a run that may spend no more than all runs of a day",
            )


def is_amount(key: str, amount: float) -> bool:
    """Say whether a budget may allow this: `key` is that of a budget, and of USD or tokens by its beginning."""
    if key.startswith("usd"):
        return math.isfinite(amount) and 1e-9 <= amount <= USD_MAX
    return 1 <= amount <= TOKENS_MAX


def budget_of(given: Budget | float | None) -> Budget | None:
    """Return a budget: a number is in USD. Raises `FlowError` for one that allows nothing."""
    if given is None:
        return None
    budget = given if isinstance(given, Budget) else Budget(usd=float(given))
    check_budget("budget", budget)
    return budget


def lower(plan: Plan, asked: Budget | None) -> Budget | None:
    """Return what a run may spend that somebody asks for who may not allow more than its flow does."""
    if asked is None or plan.flow.budget is None:
        return asked
    own, given = asdict(plan.flow.budget), asdict(asked)
    least = {key: min((each for each in (own[key], given[key]) if each is not None), default=None) for key in own}
    return Budget(**least)


def read_budget(text: str) -> Budget:
    """Return the budget that a person writes: `2.5` in USD, `200000tokens`, or both with a comma between.

    Raises `FlowError`.
    """
    amounts: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        number = part.removesuffix("tokens").removeprefix("$").removesuffix("usd").strip().replace("_", "")
        try:
            if part.endswith("tokens"):
                amounts["tokens"] = int(number)
            else:
                amounts["usd"] = float(number)
        except ValueError:
            raise _no_budget(text) from None
    if not amounts or any(not is_amount(unit, amount) for unit, amount in amounts.items()):
        raise _no_budget(text)
    return msgspec.convert(amounts, Budget)


def _no_budget(text: str) -> FlowError:
    expected = "USD, as in 2.5, or tokens, as in 200000tokens, or both with a comma between: each more than 0"
    return FlowError("budget", repr(text), expected)


def with_budget(plan: Plan, given: Budget | None) -> Plan:
    """Return a plan whose flow has a budget that was given for a run, over its own: what that leaves out stays.

    Raises `FlowError` for one that cannot be kept.
    """
    if given is None:
        return plan
    own = asdict(plan.flow.budget or Budget())
    budget = Budget(**(own | {key: amount for key, amount in asdict(given).items() if amount is not None}))
    check_budget("budget", budget)
    return plan if budget == plan.flow.budget else Plan(replace(plan.flow, budget=budget), plan.source)


def more_of(data: bytes) -> Budget | None:
    """Return what a word allows a run to spend from now on; None for one that says nothing of that."""
    try:
        found = msgspec.json.decode(decode_say(data).answer, type=Budget)
        check_budget("", found)
    except (BadMessage, FlowError, msgspec.DecodeError, NewerMessage, UnicodeDecodeError, RecursionError):
        return None
    return found
