"""A step as its page shows it: long texts a part at a time, what it read by who put it out, what came of each call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from markupsafe import Markup
from msgspec import Raw

from baton_actors.models.saved import saved_by_seen
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import Filled
from baton_schemas.run.refs import parse
from baton_schemas.show.attempts import Attempt
from baton_schemas.show.excerpt import size, text_of
from baton_schemas.show.lines import one_line
from baton_schemas.show.paid import Paid, paid_for
from baton_schemas.show.readers import mentions_of, readers_of, source_of_value
from baton_schemas.show.slices import SLICE, Slice, slice_of
from baton_schemas.show.spans import Lane, SpanKind, time_in_words
from baton_schemas.show.step import BranchSeen, ChildSeen, StepSeen
from baton_schemas.show.step_words import Said, came_of, has_prompt, proof_of_prompt, who_does
from baton_schemas.show.timeline import timeline_of
from baton_schemas.show.tool_calls import ToolSeen
from baton_schemas.show.turns import TurnSeen, converses, stray_tools, turns_of
from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.outcomes import Blob, Value

from .markdown import rendered
from .page import Given
from .sources import Source

VALUE_SHOWN = 2_000
"""Characters of a value that was read, or came of a call, before there is a link to more of it."""
BRANCHES_SHOWN = 200
CHILDREN_SHOWN = 200
TURNS_SHOWN = 50
_AS = ("text", "rendered", "json")


class Long(NamedTuple):
    """A text of any length."""

    name: str
    """In addresses: what is shown of it is chosen there."""
    part: Slice
    beside: str = ""
    """Why there is no text: it is kept beside the log, and was not fetched."""
    blob: Blob | None = None
    html: Markup | None = None
    """The same, rendered."""
    next: str = ""
    """The address of the part that follows; empty for the last."""
    before: str = ""
    size: str = ""


class Line(NamedTuple):
    """A message that is about the step."""

    number: int
    text: str


class StepView:
    """A step of a run, as it is seen, with what is chosen by the address."""

    def __init__(self, source: Source, seen: StepSeen, plan: Plan, given: Given, now: datetime) -> None:
        """Raises `ValueError` for an attempt that there is not."""
        self.source, self.seen, self.plan, self.given, self.now = source, seen, plan, given, now
        self.base = source.base
        self.path = f"{self.base}/steps/{quote(self.name, safe='')}"
        self.chosen = given["show"]
        self.start = _number(given["from"], "from")
        self.as_ = given["as"] or "text"
        if self.as_ not in _AS:
            raise ValueError(f"as={self.as_!r}: an answer is shown as {', '.join(_AS)}")
        self.attempt = self._attempt()

    @property
    def name(self) -> str:
        """What people call it where they name a step."""
        return self.seen.label.replace(" #", "#") or self.seen.step

    # ---- what it is ------------------------------------------------------------------------------------

    @property
    def who(self) -> str:
        """Who does it, and of what it is a branch."""
        return who_does(self.seen)

    @property
    def rehearsed(self) -> bool:
        """Whether the rehearsal model answered any of its calls."""
        calls: list[ModelCall | Exchange] = [*self.seen.calls, *self.seen.exchanges]
        return any(call.rehearsed for call in calls)

    @property
    def answers_with(self) -> str:
        """The fields of a structured answer."""
        asked = self.seen.asked
        return ", ".join(asked.output.get("properties", {})) if asked is not None and asked.output else ""

    @cached_property
    def lane(self) -> Lane | None:
        """Who waited and worked when, of this step alone."""
        state, own = self.source.feed.state, self.seen.state
        if own is None or self.seen.reused_from:
            return None
        steps = {name: step for name, step in state.steps.items() if name == own.name or step.source == own.name}
        found = timeline_of(self.source.feed.entries, msgspec.structs.replace(state, steps=steps))
        return found.lanes.get(own.name)

    @property
    def time_in_words(self) -> str:
        """For how long it worked, and waited for what."""
        lane = self.lane
        if lane is None:
            return ""
        took: dict[SpanKind, float] = {span.kind: lane.seconds(span.kind, self.now) for span in lane.spans}
        return time_in_words({kind: took_s for kind, took_s in took.items() if took_s > 0})

    @cached_property
    def paid(self) -> Paid | None:
        """What its calls took; None when there was none."""
        return paid_for(self.seen)

    @property
    def saved_usd(self) -> float | None:
        """What caching saved; None where that is not known."""
        return saved_by_seen(self.seen)

    @property
    def request_ids(self) -> list[str]:
        """By which the provider knows its calls."""
        found = [attempt.request_id for attempt in self.seen.attempts] + [call.request_id for call in self.seen.calls]
        return list(dict.fromkeys(each for each in found if each))

    # ---- attempts --------------------------------------------------------------------------------------

    @property
    def attempts(self) -> list[int]:
        """The numbers of its attempts."""
        return list(dict.fromkeys(attempt.number for attempt in self.seen.attempts))

    @property
    def shown_attempts(self) -> list[Attempt]:
        """What the log says of the attempt that is chosen: more than one thing where it was given back, say."""
        return [attempt for attempt in self.seen.attempts if attempt.number == self.attempt]

    def _attempt(self) -> int:
        numbers = self.attempts
        if not self.given["attempt"]:
            return numbers[-1] if numbers else 0
        number = _number(self.given["attempt"], "attempt")
        if number not in numbers:
            there = ", ".join(map(str, numbers)) or "none yet"
            raise ValueError(f"{self.name} has no attempt {number}: there is {there}")
        return number

    # ---- texts -----------------------------------------------------------------------------------------

    def long(self, name: str, value: Value | str | Sequence[Filled], shown: int = SLICE) -> Long:
        """Return a value, or a text, as it is shown; `shown` characters unless more of it is asked for."""
        if isinstance(value, Blob):
            why = self.seen.lacking.get(value.sha256, "not fetched")
            return Long(name, slice_of(""), f"{size(value.size_bytes)} kept beside the log, {why}", value)
        text: str | Sequence[Filled] = text_of(value) if isinstance(value, Raw) else value
        chosen = name == self.chosen
        part = slice_of(text, self.start if chosen else 0, SLICE if chosen else shown)
        total = size(len(text.encode(errors="replace"))) if isinstance(text, str) else ""
        more = SLICE if chosen else 0
        return Long(
            name,
            part,
            next=self._more(name, part.next if more else 0) if part.next is not None else "",
            before=self._more(name, part.before) if part.before is not None else "",
            size=total,
        )

    def with_(self, **changed: str) -> str:
        """Return the address of this page with some of it changed; an empty value takes it away."""
        given = {name: value for name, value in {**self.given, **changed}.items() if value}
        return self.path + (f"?{urlencode(given)}" if given else "")

    def _more(self, name: str, start: int) -> str:
        return self.with_(show=name, **{"from": str(start) if start else ""}) + f"#{quote(name)}"

    @property
    def values(self) -> Iterator[tuple[str, str, Long]]:
        """What it read: under which name, which step put that out, and the value."""
        for name, value in self.seen.values.items():
            if name == "index" and self.seen.index is not None:
                continue  # which branch it is stands above
            yield name, source_of_value(self.plan, self.seen, name), self.long(f"value.{name}", value, VALUE_SHOWN)

    @property
    def system(self) -> Long | None:
        """Its system prompt; None where there is none."""
        return self.long("system", self.seen.filled[0], VALUE_SHOWN) if self.seen.filled[0] else None

    @property
    def prompt(self) -> Long | None:
        """What its model was asked, with what came from placeholders marked; None where it cannot be shown."""
        return self.long("prompt", self.seen.filled[1] or "") if self.seen.asked is not None else None

    @property
    def proof(self) -> Said | None:
        """Whether the prompt that is shown is the one that was sent; None where no model is asked."""
        return proof_of_prompt(self.seen) if has_prompt(self.seen) else None

    @cached_property
    def answer(self) -> Long | None:
        """What it put out, or was answered last: as text, rendered, or as JSON that people can read."""
        value = self.answer_value
        if value is None:
            return None
        if isinstance(value, Blob):
            return self.long("answer", value)
        long = self.long("answer", _pretty(value) if self.as_ == "json" or not _is_text(value) else value)
        if self.as_ == "rendered":
            return long._replace(html=rendered(long.part.text))
        return long

    @property
    def answer_value(self) -> Value | None:
        """What is shown as its answer."""
        seen = self.seen
        if seen.output is not None:
            return seen.output if seen.kind != "sleep" else None
        return (seen.calls[-1].blob or seen.calls[-1].text) if seen.calls else None

    @property
    def answer_title(self) -> str:
        """What that is."""
        seen = self.seen
        if seen.output is None:
            return "Last answer"
        return "Put out" if (seen.handler or seen.person) and not seen.kind else "Answer"

    # ---- what it did -----------------------------------------------------------------------------------

    @cached_property
    def turns(self) -> list[TurnSeen]:
        """The conversation of its model, where there is more to it than a question and an answer."""
        found = turns_of(self.seen)
        return found if converses(found) else []

    @property
    def shown_turns(self) -> list[TurnSeen]:
        """The last of them."""
        return self.turns[-TURNS_SHOWN:]

    @property
    def strays(self) -> list[ToolSeen]:
        """Calls of tools whose turn is not at hand."""
        return stray_tools(self.seen)

    def came(self, tool: ToolSeen) -> Said:
        """Return what came of a call of a tool."""
        return came_of(tool)

    def arguments(self, value: Any) -> str:
        """Return what a call was made with as JSON that people can read."""
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()

    @property
    def children(self) -> list[ChildSeen]:
        """What it asked for: of many, what failed or is open first."""
        found = self.seen.children
        if len(found) <= CHILDREN_SHOWN:
            return found
        order = {"failed": 0, "running": 1, "queued": 1, "dropped": 2}
        return sorted(found, key=lambda child: order.get(child.status, 3))[:CHILDREN_SHOWN]

    @property
    def branches(self) -> list[BranchSeen]:
        """Those of a fan-out: of many, what failed or is open first."""
        order = {"failed": 0, "running": 1, "queued": 1, "dropped": 2}
        found = self.seen.branches
        return sorted(found, key=lambda each: order.get(each.status, 3))[:BRANCHES_SHOWN]

    @property
    def readers(self) -> list[str]:
        """The steps that read what it puts out."""
        return readers_of(self.plan, self.seen.step)

    @cached_property
    def mentions(self) -> list[Line]:
        """The messages that are about it."""
        found = mentions_of(self.source.feed.entries, self.seen.step)
        return [Line(each.number, one_line(each.entry)) for each in found]

    # ---- where one may go ------------------------------------------------------------------------------

    @property
    def beside(self) -> tuple[str, str]:
        """The branches before and after this one; empty where there is none."""
        if self.seen.index is None:
            return "", ""
        steps = self.source.feed.state.steps
        names = [branch_at(self.seen.step, self.seen.index + by) for by in (-1, 1)]
        before, after = (name if name in steps else "" for name in names)
        return before, after

    @property
    def fork_path(self) -> str:
        """Where a run is forked that does this step, and what comes after it, again; empty where that cannot be."""
        if not self.source.can_act or self.seen.kind is not None:
            return ""
        before = self.plan.before(self.seen.of)
        steps = self.source.feed.state.steps
        ended = [
            (ended_at, name)
            for name in before
            if (own := steps.get(name)) is not None and (ended_at := own.ended_at) is not None
        ]
        after = max(ended)[1] if ended else (before[0] if before else "")
        return f"{self.base}/fork" + (f"?after={quote(after, safe='')}" if after else "?at=1")

    def step_path(self, step: str) -> str:
        """Return the page of another step of the run."""
        return f"{self.base}/steps/{quote(step.replace(' #', '#'), safe='')}"

    def message_path(self, number: int) -> str:
        """Return the page of a message of the run."""
        return f"{self.base}/messages/{number}"

    def blob_path(self, blob: Blob) -> str:
        """Return where a value is downloaded that is kept beside the log."""
        return f"{self.base}/blobs/{blob.sha256}"

    @property
    def compare_path(self) -> str:
        """Where one of its branches is compared with another."""
        name = quote(self.source.name, safe=":")
        return f"/compare/{name}/{name}"


def _number(text: str, name: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise ValueError(f"{name}={text!r}: expected a number")
    return int(text)


def _is_text(value: Raw) -> bool:
    return bytes(value)[:1] == b'"'


def _pretty(value: Raw) -> str:
    try:
        return msgspec.json.format(bytes(value), indent=2).decode(errors="replace")
    except (ValueError, RecursionError):  # no JSON, as a stranger may have published it
        return bytes(value).decode(errors="replace")


def branch_at(step: str, index: int) -> str:
    """Return the token of another branch of the same fan-out."""
    return msgspec.structs.replace(parse(step), index=index).token
