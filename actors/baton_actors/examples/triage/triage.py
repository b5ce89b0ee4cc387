"""The handlers of triage: what is looked up, put together and laid out, rather than asked of a model."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from baton_actors import Branch, Context, Retry, actor

ORDERS = Path(__file__).with_name("orders.json")
"""In place of the shop's database."""
KINDS = ("spam", "refund", "damage", "exchange", "invoice", "thanks", "delivery", "question")
"""What an email may be about; of several that a model names, the first of these counts."""
URGENT = {"refund", "damage"}
HINTS = {"broken": "damage", "won": "spam", "thanks": "thanks", "colour": "exchange", "where is": "delivery"}
"""Words that tell as much, for a model that did not answer with one word, and for rehearsals."""
TRIES = 3
"""How often the carrier is asked: the attempts that a step has by default."""


@dataclass
class Email:
    """One email, as emails.json has it."""

    id: str
    sender: str
    subject: str
    body: str


@dataclass
class Order:
    """An order that an email is about."""

    number: str
    item: str
    price_eur: float
    parcel: str
    """The carrier's number; empty while nothing is shipped."""


@dataclass
class Case:
    """All that is known of one email."""

    email: Email
    about: str
    urgent: bool
    order: Order | None
    facts: str
    """The order and its parcel in words, for the writer."""


@actor
def orders(emails: list[Email]) -> list[Order | None]:
    """Look up the order of each email: None where it names none, or one that the shop does not have."""
    known = json.loads(ORDERS.read_text("utf-8"))
    found: list[Order | None] = []
    for email in emails:
        number = re.search(r"\bA-\d{4}\b", f"{email.subject} {email.body}")
        row = known.get(number[0]) if number else None
        found.append(Order(number=number[0], **row) if number and row else None)
    return found


@actor
def parcel(item: Order | None, carrier_url: str, context: Context) -> str:
    """Ask the carrier where the parcel of an order is. A carrier that does not answer is asked again, then left."""
    if item is None or not item.parcel or not carrier_url:
        return ""
    try:
        with urllib.request.urlopen(f"{carrier_url.rstrip('/')}/parcels/{item.parcel}", timeout=5) as answer:
            return str(json.load(answer)["status"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return "the carrier does not know it"
        return _again(context, f"the carrier answers {error.code}")
    except OSError as error:
        return _again(context, f"the carrier at {carrier_url} cannot be reached ({error})")


@actor
def cases(emails: list[Email], classify: list[str], orders: list[Order | None], parcel: list[str]) -> list[Case]:
    """Put together what is known of each email. All four lists are in the order of the emails."""
    together = zip(emails, classify, orders, parcel, strict=True)
    return [_case(email, answer, order, status) for email, answer, order, status in together]


@actor
def report(cases: list[Case], reply: list[Branch[str]]) -> str:
    """Lay out the report in Markdown: what is urgent first, then the replies. One that failed keeps its place."""
    ranked = sorted(zip(cases, reply, strict=True), key=lambda pair: not pair[0].urgent)
    urgent = sum(case.urgent for case in cases)
    lines = [
        f"# {len(cases)} emails, {urgent} of them urgent",
        "",
        "| email | about | order | from |",
        "|---|---|---|---|",
    ]
    for case, _ in ranked:
        about = f"**{case.about}**" if case.urgent else case.about
        lines.append(f"| {case.email.id} | {about} | {case.order.number if case.order else ''} | {case.email.sender} |")
    for case, branch in ranked:
        text = f"(no reply was drafted: {branch.error})" if branch.value is None else branch.value.strip()
        if case.about != "spam":
            lines += ["", f"## {case.email.id}: {case.email.subject}", "", f"_{case.facts}_", "", text]
    return "\n".join(lines)


def kind_of(answer: str) -> str:
    """Return what a model's answer says that an email is about; `question` when it does not say."""
    words = answer.lower()
    named = [kind for kind in KINDS if re.search(rf"\b{kind}", words)]
    hinted = [kind for hint, kind in HINTS.items() if re.search(rf"\b{hint}\b", words)]
    return (named or hinted or ["question"])[0]


def _case(email: Email, answer: str, order: Order | None, status: str) -> Case:
    about = kind_of(answer)
    return Case(email=email, about=about, urgent=about in URGENT, order=order, facts=_facts(order, status))


def _facts(order: Order | None, status: str) -> str:
    if order is None:
        return "There is no order of that number, or none was named."
    shipped = f"shipped as parcel {order.parcel}" if order.parcel else "not shipped yet"
    return f"Order {order.number}, {order.item}, {order.price_eur:g} EUR: {shipped}{f', {status}' if status else ''}."


def _again(context: Context, reason: str) -> str:
    if context.attempt < TRIES:
        raise Retry(reason)
    return f"where it is is not known: {reason}"
