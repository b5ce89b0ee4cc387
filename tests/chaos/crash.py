"""Kills this process before or after its n-th bus operation: how the crash matrix reaches every point of a run.

Every request is seen where it leaves the process, whoever makes it (a publish to the log, a chunk of a blob, a timer, a
read from any replica or from the leader), and so is every word on a delivery: ack, nak, term, and that it is in work.
What a worker asks on its own account, such as what time it is, is left out: it comes when it likes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from baton_bus.jetstream.consumer import Puller
from baton_bus.jetstream.delivery import Delivery
from baton_bus.jetstream.leases import LeaseKeeper
from baton_bus.jetstream.nats_client import Answer
from baton_bus.jetstream.requests import Requests

from .history import History

_LEAVE_S = 0.01
"""What was published before, acks above all, leaves the process first: an ack that dies with it endangers nothing."""
_OF_ITS_OWN = ("$JS.API.STREAM.INFO.", "$JS.API.CONSUMER.")
_OF_ANSWERS = b".answer."
"""Of a consumer that is made: one with which answers are heard is part of a run."""


class Crash:
    """Where this process is to die.

    `before 7` or `after 7`, counted over all its operations; or `before answer KEY`: where it would write an answer, or
    that a step is parked upon it.
    """

    def __init__(self, point: str, history: History) -> None:
        self._when, _, where = point.partition(" ")
        self._deadly, self._history = int(where) if where.isdigit() else 0, history
        self._key = where.partition(" ")[2]
        self._numbers = itertools.count(1)

    def next(self) -> int:
        return next(self._numbers)

    def is_of_answer(self, subject: str) -> bool:
        """Say whether a request writes where the answer is that this is about."""
        return bool(self._key) and ".answer." in subject and subject.endswith(f".{self._key}")

    async def at(self, when: str, number: int, what: str, *, here: bool = False) -> None:
        """Die here, if here it is; the last words are which operation it was."""
        if (here or number == self._deadly) and when == self._when:
            await asyncio.sleep(_LEAVE_S)
            self._die(f"{when} {what}")

    def at_once(self, when: str, number: int, what: str) -> None:
        if number == self._deadly and when == self._when:
            time.sleep(_LEAVE_S)
            self._die(f"{when} {what}")

    def _die(self, where: str) -> None:
        self._history.say("worker.crashes", where=where)
        os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, history: History) -> None:
    """Have the process die of SIGKILL at this point; nothing happens without one."""
    if not point:
        return
    crash = Crash(point, history)
    ask, collect, settle, say, drop = Requests.ask, Requests.collect, Puller.settle, Puller.say, Puller.drop
    renew = LeaseKeeper._renew

    async def deadly_ask(
        self: Requests, subject: str, payload: bytes = b"", headers: Mapping[str, str] | bytes | None = None, **how: Any
    ) -> Answer:
        if subject.startswith(_OF_ITS_OWN) and _OF_ANSWERS not in payload:
            return await ask(self, subject, payload, headers, **how)
        number, what, here = crash.next(), _what(subject, payload), crash.is_of_answer(subject)
        await crash.at("before", number, what, here=here)
        answer = await ask(self, subject, payload, headers, **how)
        await crash.at("after", number, what, here=here)
        return answer

    async def deadly_collect(self: Requests, subject: str, payload: bytes, **how: Any) -> list[Answer]:
        number, what = crash.next(), _what(subject, payload)
        await crash.at("before", number, what)
        answers = await collect(self, subject, payload, **how)
        await crash.at("after", number, what)
        return answers

    async def deadly_settle(self: Puller, delivery: Delivery, body: bytes) -> None:
        number, what = crash.next(), (body[:5].decode() or "ack").lower().strip()
        await crash.at("before", number, what)
        await settle(self, delivery, body)
        await crash.at("after", number, what)

    def deadly_say(self: Puller, delivery: Delivery, body: bytes) -> None:
        number = crash.next()
        crash.at_once("before", number, "+wpi")
        say(self, delivery, body)
        crash.at_once("after", number, "+wpi")

    def deadly_drop(self: Puller, delivery: Delivery) -> None:
        """An answer is heard: of no other consumer are deliveries dropped at once."""
        if ".answer." not in delivery.subject:
            drop(self, delivery)
            return
        number = crash.next()
        crash.at_once("before", number, "hear answer")
        drop(self, delivery)
        crash.at_once("after", number, "hear answer")

    async def deadly_renew(self: LeaseKeeper, watch: Any, now: float) -> None:
        kept = {delivery: delivery.kept_at for delivery in list(watch.held.values())}
        await renew(self, watch, now)
        for delivery, kept_at in kept.items():
            if delivery.kept_at != kept_at:
                crash.at_once("after", crash.next(), "+wpi")

    Requests.ask = deadly_ask  # type: ignore[method-assign]
    Requests.collect = deadly_collect  # type: ignore[method-assign]
    Puller.settle = deadly_settle  # type: ignore[method-assign]
    Puller.say = deadly_say  # type: ignore[method-assign]
    Puller.drop = deadly_drop  # type: ignore[method-assign]
    LeaseKeeper._renew = deadly_renew  # type: ignore[method-assign]


def _what(subject: str, payload: bytes) -> str:
    """Return what a request does, in two or three words."""
    if subject.startswith("$JS.API."):
        api = subject.removeprefix("$JS.API.")
        for verb, name in _VERBS:
            if api.startswith(verb):
                kind = next((kind for kind in _KINDS if f".{kind}.".encode() in payload + subject.encode()), "")
                return f"{name} {kind}".strip()
        return api
    namespace, kind, *_ = subject.split(".")
    if namespace.endswith("-spend"):
        return "count"
    if b'"kind":"parked"' in payload:
        kind = "parked"
    return "blob chunk" if namespace.endswith("-blobs") else f"publish {kind}"


_VERBS = (
    ("STREAM.MSG.GET", "leader read"),
    ("DIRECT.GET", "read"),
    ("STREAM.PURGE", "removal"),
    ("CONSUMER.", "consumer"),
)
_KINDS = ("handoff", "reply", "outcome", "join", "note", "result", "timer", "due", "answer")
