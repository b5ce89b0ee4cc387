"""What an answer of the Messages API says, as it comes, and what of it is recorded. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from baton_actors.models.events import Event, as_object, joined, read_event, valid, write_events
from baton_actors.models.reading import Reading
from baton_actors.models.texts import Joiner
from baton_schemas.errors import BadContent
from baton_schemas.wire.values import encode_value

_HALF = re.compile(rb"\\\\u[dD][89a-fA-F]")
CUT = "it ended before the answer did"


class Heard:
    """One answer, streamed or not."""

    def __init__(self) -> None:
        self.reading = Reading()
        """What it takes, and who answers."""
        self.body: bytes | None = None
        """What is to be recorded, as JSON, once all of it is there: a list of events, or a message."""
        self.why = CUT
        """Why there is nothing to be recorded."""
        self.error_type = ""
        """Of an error that it brought in place of the rest."""
        self._events: list[Event] = []
        self._is_broken = False
        self._joiners: dict[int, Joiner] = {}
        """By block: what joins the halves of characters in it."""

    def event(self, raw: bytes) -> tuple[str, bytes]:
        """Take the bytes of one event; return its type, empty for what readers pass over or cannot read, and the bytes
        to be passed on: the same, but for a text that is cut in the middle of a character, as it is to be recorded.
        """
        try:
            event = read_event(raw)
            if event is None:
                return "", raw
            mended = self._mended(raw, event)
            if event["type"] == "error":
                self.error_type = error_type(event)
                self._break(f"it ended with {self.error_type}")
            elif not self._is_broken:
                self.reading.take(as_object(event))
                self._events += mended
                if event["type"] == "message_stop":
                    self._is_whole()
        except Exception:  # whatever reading a missing field raises
            self._break("what it streamed cannot be read")
            return "", raw
        return event["type"], raw if mended == [event] else write_events(mended)

    def message(self, body: bytes) -> None:
        """Take the body of an answer that is not streamed."""
        try:
            message = json.loads(body)
            self.reading.take(as_object({"type": "message_start", "message": _counted(message)}))
            self.reading.take(
                as_object({"type": "message_delta", "delta": _stopped(message), "usage": message["usage"]})
            )
            self.body = encode_value(valid(message), "the answer")
        except Exception:
            self._break("it is no message")

    def _mended(self, raw: bytes, event: Event) -> list[Event]:
        """Return what an event says, once halves of characters are put together: one may wait for the next event."""
        index: Any = event.get("index")
        joiner = self._joiners.get(index) if isinstance(index, int) else None
        if joiner is None and _HALF.search(raw) is None:
            return [event]
        if event["type"] == "content_block_stop" and joiner is not None:
            rest = joiner.end()
            text = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": rest}}
            return [text, event] if rest else [event]
        delta: Any = event.get("delta")
        if not isinstance(index, int) or not isinstance(delta, dict) or delta.get("type") != "text_delta":
            return [event]
        joiner = self._joiners.setdefault(index, Joiner())
        return [{**event, "delta": {**delta, "text": joiner.add(str(delta["text"]))}}]

    def _is_whole(self) -> None:
        if not self.reading.begun:
            self._break("it did not begin")
            return
        try:
            self.body = encode_value(joined(self._events), "the answer")
        except BadContent as error:
            self._break(str(error))

    def _break(self, why: str) -> None:
        if not self._is_broken:
            self._is_broken, self.why = True, why
        self._events = []


def played(body: bytes, *, streamed: bool) -> bytes:
    """Return the bytes of an answer whose record has this body."""
    return write_events(json.loads(body)) if streamed else body


def error_type(error: Any) -> str:
    """Return the type of an error, as the API has it in an event or a body."""
    inner = error.get("error") if isinstance(error, dict) else None
    type = inner.get("type") if isinstance(inner, dict) else None
    return type if isinstance(type, str) else "error"


def _counted(message: Any) -> dict[str, Any]:
    return {"model": message["model"], "usage": message["usage"]}


def _stopped(message: Any) -> dict[str, Any]:
    return {"stop_reason": message.get("stop_reason")}
