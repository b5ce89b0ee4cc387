"""The tools of the desk: what its model may call. Their names, docstrings and types are what it is told of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from baton_actors import tool

ORDERS = Path(__file__).with_name("orders.json")
"""In place of the shop's database."""
REFUNDS = Path("refunds.jsonl")
"""In place of the bank: a line for each refund."""
RULES = {"refund": "Within 30 days, up to 200 EUR.", "exchange": "Within 60 days.", "damage": "At any time."}


@dataclass
class Order:
    """One order, as orders.json has it."""

    number: str
    item: str
    price_eur: float
    days_ago: int


@tool(idempotent=True)
def find_order(number: str) -> Order | None:
    """Look up an order. Nothing comes back for a number that the shop does not have.

    Args:
        number: As the customer gives it, such as A-1002.
    """
    row = json.loads(ORDERS.read_text("utf-8")).get(number.strip().upper())
    return Order(number=number.strip().upper(), **row) if row else None


@tool(idempotent=True)
def rules(topic: Literal["refund", "exchange", "damage"]) -> str:
    """Say what the shop's rules are on a topic."""
    return RULES[topic]


@tool  # not idempotent: called twice it pays twice, so no crash has it called again
def refund(number: str, eur: float) -> str:
    """Pay back an amount on an order.

    Args:
        number: Of the order, such as A-1002.
        eur: How much, in EUR: not more than the order's price.
    """
    order = find_order(number)
    if order is None or not 0 < eur <= order.price_eur:
        raise ValueError(f"{eur:g} EUR on {number}: more than its price, or there is no such order")
    with REFUNDS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": order.number, "eur": eur}) + "\n")
    return f"{eur:g} EUR were paid back on {order.number}."
