"""The batches of the model of a chaos run: it takes them, does not always say so, has calls fail, and counts."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .dice import throw
from .history import History
from .plans import is_refused, is_refused_whole

PATH = "/v1/messages/batches"
_DONE = "succeeded"
_CANCELED = "canceled"
_REFUSED = "invalid_request_error"


class Member(NamedTuple):
    """A call that came in a batch, and what will come of it."""

    custom_id: str
    run: str
    step: str
    fate: str
    """`succeeded`, `expired`, `canceled`, or the type of an error."""
    text: str
    model: str
    message: str
    """What its answer is called, which no other is."""


@dataclass
class _Batch:
    id: str
    members: list[Member]
    ends_at: float
    created_at: datetime

    @property
    def ended(self) -> bool:
        return time.monotonic() >= self.ends_at


Answer = tuple[int, bytes]
"""A status, and a body."""


class BatchApi:
    """Takes batches. What comes of a call follows from its run and step, and whether it came before."""

    def __init__(
        self, history: History, dice: random.Random, about: Callable[[str], tuple[str, str, str]], *, faults: bool
    ) -> None:
        """`about` says of a prompt for which run and step it is, and the answer."""
        self._history, self._dice, self._about, self._faults = history, dice, about, faults
        self._batches: dict[str, _Batch] = {}
        self._came: Counter[tuple[str, str]] = Counter()
        self.url = ""
        """Where it is, for what it says of results."""

    def answer(self, method: str, path: str, body: Any) -> Answer | None:
        """Answer a request; None cuts its connection."""
        path = path.partition("?")[0]
        if path == PATH and method == "post":
            return self._take(body["requests"])
        if self._faults and self._dice.random() < 0.05:
            return _error(500, "api_error")
        if path == PATH:
            found = [self._shown(each) for each in reversed(self._batches.values())]
            return _answer({"data": found, "has_more": False, "first_id": None, "last_id": None})
        id, _, what = path.removeprefix(f"{PATH}/").partition("/")
        batch = self._batches.get(id)
        if batch is None:
            return _error(404, "not_found_error")
        if what == "cancel" and not batch.ended:
            self._cancel(batch)
        if what == "results":
            members = self._dice.sample(batch.members, len(batch.members))
            return 200, "".join(json.dumps(_result(each)) + "\n" for each in members).encode()
        return _answer(self._shown(batch))

    def _take(self, requests: list[dict[str, Any]]) -> Answer | None:
        weights = (55, 20, 10, 10, 5)
        fault = self._dice.choices(("", "cut", "500", "529", "lost"), weights)[0] if self._faults else ""
        if fault == "529":
            return _error(529, "overloaded_error")
        if fault == "lost":  # whoever sent it cannot know that it did not arrive
            return None
        asked = [self._asked(request) for request in requests]
        if any(is_refused_whole(run, step) for run, step, _ in asked):
            names = [[r["custom_id"], run, step] for r, (run, step, _) in zip(requests, asked, strict=True)]
            self._history.say("batch.refused", members=names)
            return _error(400, _REFUSED)
        id = f"msgbatch_{len(self._batches) + 1}"
        members = [self._member(id, *each) for each in zip(requests, asked, strict=True)]
        ends_at = time.monotonic() + self._dice.uniform(0.05, 0.8)
        self._batches[id] = batch = _Batch(id, members, ends_at, datetime.now(UTC))
        said = [[each.custom_id, each.run, each.step, each.fate, each.message] for each in members]
        self._history.say("batch.taken", id=id, members=said, fault=fault)
        return None if fault == "cut" else _error(500, "api_error") if fault else _answer(self._shown(batch))

    def _asked(self, request: dict[str, Any]) -> tuple[str, str, str]:
        content = request["params"]["messages"][0]["content"]
        return self._about(content if isinstance(content, str) else "".join(each["text"] for each in content))

    def _member(self, id: str, request: dict[str, Any], asked: tuple[str, str, str]) -> Member:
        run, step, text = asked
        self._came[run, step] += 1
        fate, name = _DONE, request["custom_id"]
        if is_refused(run, step):
            fate = _REFUSED
        elif self._came[run, step] == 1:
            fate = {0: "expired", 1: "api_error"}.get(throw(run, step, "batch", 6), _DONE)
        return Member(name, run, step, fate, text, request["params"]["model"], f"{id}_{name}")

    def _cancel(self, batch: _Batch) -> None:
        """End it. What was not done of it by then never is."""
        done = self._dice.randrange(len(batch.members))
        batch.members[done:] = [each._replace(fate=_CANCELED) for each in batch.members[done:]]
        batch.ends_at = time.monotonic()
        self._history.say("batch.canceled", id=batch.id, members=[each.custom_id for each in batch.members[done:]])

    def _shown(self, batch: _Batch) -> dict[str, Any]:
        ended = batch.ended
        counts = dict.fromkeys(("processing", _DONE, "errored", _CANCELED, "expired"), 0)
        for each in batch.members:
            fate = each.fate if each.fate in counts else "errored"
            counts[fate if ended else "processing"] += 1
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": batch.created_at.isoformat(),
            "expires_at": (batch.created_at + timedelta(days=1)).isoformat(),
            "ended_at": datetime.now(UTC).isoformat() if ended else None,
            "results_url": f"{self.url}{PATH}/{batch.id}/results" if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
        }


def _result(member: Member) -> dict[str, Any]:
    result: dict[str, Any] = {"type": member.fate}
    if member.fate == _DONE:
        message = {
            "id": member.message,
            "type": "message",
            "role": "assistant",
            "model": member.model,
            "content": [{"type": "text", "text": member.text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 7},
        }
        result = {"type": _DONE, "message": message}
    elif member.fate not in ("expired", _CANCELED):
        error = {"type": "error", "error": {"type": member.fate, "message": "as the dice fell"}, "request_id": "r"}
        result = {"type": "errored", "error": error}
    return {"custom_id": member.custom_id, "result": result}


def _answer(body: Any) -> Answer:
    return 200, json.dumps(body).encode()


def _error(status: int, type: str) -> Answer:
    return status, json.dumps({"type": "error", "error": {"type": type, "message": "as the dice fell"}}).encode()
