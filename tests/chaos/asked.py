"""What one step asks for, as its twin does it over the log: which children there must be, and what they come to.

A child is known by what was asked, and not by its token: who asked, whom, with which arguments, and how often alike. A
new kind of ask is a method here, which its twins call as handlers call that of the `Context`, and a row in `KINDS`.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .flow_file import FlowFile
from .raw import Record
from .talks import Talk

TIME_IS_UP = "DeadlinePassed"
WITHDRAWN = "Withdrawn"
"""Of a question that is open when the step that asked has ended."""


class NotThere(Exception):
    """What a step would ask for, or need, is not in the log: as far as that says, it has not come to it."""


class Kind(NamedTuple):
    """Of what can be asked."""

    who: str
    """On whose subject its handoffs are: empty for the actor of the agent that is asked."""


KINDS = {
    "agent": Kind(""),
    "sleep": Kind("-timer"),
    "person": Kind("-person"),
    "event": Kind("-event"),
    "flow": Kind("-flow"),
}


class Child(NamedTuple):
    """A step that was asked for, as its handoff has it."""

    token: str
    name: str
    """Who is asked: an agent, a flow, a role, or an event."""
    asker: str
    kind: str
    words: str
    """What was asked, as `words_of` says it."""
    due_s: float
    handoff: Record


def question(
    text: str,
    answers: Iterable[str] | None = None,
    deadline_s: float | None = None,
    default: Any = None,
    fields: Iterable[str] = (),
) -> dict[str, Any]:
    """What a person is asked: a text, what may be answered or its fields, and what holds when nobody does in time."""
    asked = {"text": text, "answers": list(answers or ()), "fields": sorted(fields)}
    return asked | event_asked(deadline_s, default)


def event_asked(deadline_s: float | None = None, default: Any = None) -> dict[str, Any]:
    """What is said of an event that is waited for, besides its name."""
    return {"has_deadline": bool(deadline_s), "default": default}


def asked_text(child: Child) -> str:
    """What a person was asked."""
    return str(json.loads(child.words)[2]["text"])


def words_of(kind: str, name: str, asked: Any, number: int) -> str:
    """What is asked, said in one way."""
    return json.dumps([kind, name, asked, number], sort_keys=True)


class Children:
    """All that the steps of one run asked for, by the log."""

    def __init__(self, flow: FlowFile, handoffs: list[Record], value: Callable[[dict[str, Any]], Any]) -> None:
        """`value` gives what an outcome, or what refers to a blob, holds."""
        self._flow = flow
        self.by_token: dict[str, Child] = {}
        self.of: dict[str, dict[str, list[Child]]] = defaultdict(lambda: defaultdict(list))
        """By asker and words. More than one is wrong."""
        slept: Counter[str] = Counter()
        for record in sorted(handoffs, key=lambda each: each.seq):
            body = record.body or {}
            cause, token = body["cause"], record.rest[0]
            kind, name, asker = cause.get("kind", "agent"), flow.asked(token), cause["step"]
            number, state = cause.get("number", 1), body.get("state", {})
            asked: Any = dict(state.get("input", {}))
            asked |= {each: value({"blob": blob}) for each, blob in state.get("blobs", {}).items()}
            if kind == "sleep":  # those of one step come one after the other
                slept[asker] += 1
                asked, number = None, slept[asker]
            elif kind == "person":
                said = cause["question"]
                asked = question(
                    said["text"], said.get("answers"), cause.get("due_s"), cause.get("default"), said.get("output", ())
                )
            elif kind == "event":
                asked = event_asked(cause.get("due_s"), cause.get("default"))
            child = Child(
                token, name, asker, kind, words_of(kind, name, asked, number), cause.get("due_s", 0.0), record
            )
            self.by_token[token] = child
            self.of[asker][child.words].append(child)

    def given(self, token: str) -> dict[str, Any]:
        """Return what a child is given."""
        given: dict[str, Any] = json.loads(self.by_token[token].words)[2]
        return given

    def asked_of_a_model(self) -> dict[str, str]:
        """Return the tokens of what models are asked, by their topic."""
        models = {name for name, agent in self._flow.agents.items() if "model" in agent}
        found = [token for token in self.by_token if self._flow.asked(token) in models]
        return {self.given(token)["topic"]: token for token in found}


class Asks:
    """What a twin asks with. It gives what a handler would be given: an output, or what says that there is none."""

    def __init__(
        self,
        flow: FlowFile,
        children: dict[str, list[Child]],
        came_to: Callable[[str], Any],
        recorded: Callable[[str, int], Any],
        called: Callable[[str, int], Any] = lambda *_: None,
        talk: Talk | None = None,
    ) -> None:
        """`came_to` says of a child's token what it gives, `recorded` what was recorded, `called` what a model said:
        all raise `NotThere`. `talk` is what the log has of one with tools.
        """
        self._flow, self._children, self._came_to, self._recorded = flow, children, came_to, recorded
        self._called = called
        self.talk = talk or Talk((), lambda _: None)
        self._alike: Counter[str] = Counter()
        self.tokens: list[str] = []
        """Of what was asked so far and is in the log."""
        self.words: set[str] = set()
        self.is_complete = False
        """Whether the twin came to its end."""

    def ask(self, agent: str, **arguments: Any) -> Any:
        return self._child("agent", agent, with_defaults(self._flow, agent, arguments))

    def sleep(self) -> None:
        self._child("sleep", "sleep", None)

    def run_flow(self, flow: str, **given: Any) -> Any:
        return self._child("flow", flow, given)

    def ask_person(self, role: str, text: str, **how: Any) -> Any:
        return self._child("person", role, question(text, **how))

    def wait_for(self, event: str, **how: Any) -> Any:
        return self._child("event", event, event_asked(**how))

    def wait_for_nothing(self, event: str) -> None:
        """Wait for an event that does not come, and need not be asked for when something else is there by then."""
        with contextlib.suppress(NotThere):
            self.wait_for(event)

    def record(self, name: str) -> Any:
        number = self._count(words_of("record", name, None, 0))
        self.words.add(words_of("record", name, None, number))
        return self._recorded(name, number)

    def call(self, what: str) -> Any:
        number = self._count(words_of("call", "", what, 0))
        self.words.add(words_of("call", "", what, number))
        return self._called(what, number)

    def about(self, role: str, what: str) -> None:
        """Know of the questions to a role, of nobody's plan, whose text says what they are about."""
        for words, children in self._children.items():
            if children[0].kind == "person" and children[0].name == role and what in asked_text(children[0]):
                self.words.add(words)
                self.tokens.append(children[0].token)

    def at_once(self, *asked: Callable[[], Any]) -> list[Any]:
        """Do all of these, as far as they can be, before what is missing in one of them ends it."""
        found, missing = [], None
        for each in asked:
            try:
                found.append(each())
            except NotThere as error:
                missing = error
        if missing is not None:
            raise missing
        return found

    def _child(self, kind: str, name: str, asked: Any) -> Any:
        number = self._count(words_of(kind, name, asked, 0))
        words = words_of(kind, name, asked, number)
        self.words.add(words)
        if words not in self._children:
            raise NotThere(words)
        token = self._children[words][0].token
        self.tokens.append(token)
        return self._came_to(token)

    def _count(self, alike: str) -> int:
        self._alike[alike] += 1
        return self._alike[alike]


def with_defaults(flow: FlowFile, agent: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what an agent is given that is asked with these arguments."""
    fields = flow.agents.get(agent, {}).get("input", {})
    defaults = {name: each["default"] for name, each in fields.items() if isinstance(each, dict) and "default" in each}
    return {**defaults, **arguments}
