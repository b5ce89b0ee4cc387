"""Subjects: the only module that joins tokens. Every token is checked before it gets here or here.

The shape is `{ns}.{kind}.{who}.{run}.{…}`, so that a consumer filters on a fixed prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from baton_schemas.run.refs import key_of_child, replied, source_token
from baton_schemas.wire.messages import Answer, Decisive, Handoff, OutcomeRecord, Reply, Result
from baton_schemas.wire.names import BATCH, JOIN, MORE, REJECTED, TOKEN, WHOLE_RUN, check_token, gatherer_of, sender_of

ROLL = "roll"
"""The kind of the live word that asks who is at work."""
WHOLE_ROLL = "-"
"""In place of a run: of all runs, and of those who have no work."""


class Parts(NamedTuple):
    """The tokens of a stored subject."""

    kind: str
    who: str
    run: str = ""
    rest: tuple[str, ...] = ()


class Subjects:
    """The subjects of one namespace."""

    def __init__(self, namespace: str) -> None:
        """Raises `BadToken` when the namespace could not stand in a subject."""
        self.namespace = check_token("namespace", namespace)
        self._handoff = f"{namespace}.handoff."

    def stored(self) -> list[str]:
        """Return the kinds of subject that the stream takes, and no others."""
        shapes = [
            "task.*",
            "handoff.*.*.*.*",
            "reply.*.*.*.*",
            "answer.*.*.*.*",
            "outcome.*.*.*",
            "say.*.*.*",
            "join.*.*.*.*",
            "note.*.*.*.*",
            "result.*.*.end",
        ]
        return [f"{self.namespace}.{shape}" for shape in shapes]

    def of(self, actor: str, message: Decisive) -> str:
        """Return the subject on which this message decides or follows: a pure function of flow, run, step."""
        match message:
            case Handoff():
                return f"{self._handoff}{actor}.{message.run}.{message.step}.{source_token(message)}"
            case Reply():
                return self.reply(actor, message.run, message.step, replied(message))
            case OutcomeRecord():
                return self.outcome(actor, message.run, message.step)
            case Answer():
                return self.answer(actor, message.run, message.step, key_of_child(message.child))
            case Result():
                return self.result(message.flow, message.run)

    def task(self, flow: str) -> str:
        """Return where any client publishes a task."""
        return f"{self.namespace}.task.{check_token('flow', flow)}"

    def reply(self, merger: str, run: str, step: str, branch: str) -> str:
        """Return where a branch tells the join how it ended; `*` for all branches."""
        return f"{self.namespace}.reply.{merger}.{run}.{step}.{branch}"

    def answer(self, actor: str, run: str, step: str, key: str) -> str:
        """Return where a child's answer is, or what stands in its place; `*` as the key for all of a step."""
        return f"{self.namespace}.answer.{actor}.{run}.{step}.{key}"

    def say(self, who: str, run: str, step: str) -> str:
        """Return where a word from outside is published: to a role or of an event, for a child of this run or step."""
        return f"{self.namespace}.say.{who}.{run}.{step}"

    def more(self, run: str) -> str:
        """Return where the words are that allow a run to spend more."""
        return self.say(MORE, run, WHOLE_RUN)

    def words(self) -> str:
        """Return the filter of the clerks' consumer: all words from outside."""
        return f"{self.namespace}.say.>"

    def asked(self, who: str, run: str = "*", child: str = "*", asker: str = "*") -> str:
        """Return where the handoff of a child is that `who` is asked for; without more, those of all runs."""
        return f"{self._handoff}{who}.{run}.{child}.{asker}"

    def gathered(self, actor: str) -> str:
        """Return the filter of the consumer of those who gather an actor's model calls into batches."""
        return f"{self._handoff}{gatherer_of(check_token('actor', actor))}.>"

    def batch(self, actor: str, batch: str) -> str:
        """Return where a batch is that was gathered for an actor; `*` for all of them."""
        return f"{self._handoff}{sender_of(actor)}.{batch}.{BATCH}.{BATCH}"

    def outcome(self, actor: str, run: str, step: str) -> str:
        """Return where it is recorded how a step ended, where that is not one handoff or reply."""
        return f"{self.namespace}.outcome.{actor}.{run}.{step}"

    def closing(self, merger: str, run: str, step: str) -> str:
        """Return where the handoff is that closes a join."""
        return f"{self._handoff}{merger}.{run}.{step}.{JOIN}"

    def join(self, merger: str, run: str, step: str, number: int | None) -> str:
        """Return where a link of a join's chain is; None for all of them."""
        return f"{self.namespace}.join.{merger}.{run}.{step}.{'*' if number is None else number}"

    def note(self, actor: str, run: str, step: str, key: str) -> str:
        """Return the subject of a note: its key follows from what it is about; `*` for all notes on the step."""
        return f"{self.namespace}.note.{actor}.{run}.{step}.{key}"

    def rejected(self, actor: str, run: str, seq: str) -> str:
        """Return the subject of the note that the message with this stream sequence was rejected; `*` for all.

        In place of the step, which may be nonsense, is a fixed word, so that all such notes are found at once; and in
        place of an actor or a run that could not stand in a subject, a hyphen.
        """
        who, of = (token if token == "*" or TOKEN.match(token) else "-" for token in (actor, run))
        return f"{self.namespace}.note.{who}.{of}.{REJECTED}.{seq}"

    def result(self, flow: str, run: str) -> str:
        """Return where the result of a run is; `*` as the flow when it is not known."""
        return f"{self.namespace}.result.{flow}.{check_token('run id', run)}.end"

    def start(self, run: str) -> str:
        """Return the pattern on which a run starts, whatever its actors: a message for each of its first steps."""
        return f"{self._handoff}*.{check_token('run id', run)}.*.start"

    def stored_result(self, flow: str, run: str = "*") -> str:
        """Return where the server says that a result is stored, with the result itself; `*` for all."""
        return f"{self.namespace}-stored.result.{flow}.{run}.end"

    def republished(self) -> tuple[str, str]:
        """Return what the server says again once it is stored, and where: results."""
        return f"{self.namespace}.result.>", f"{self.namespace}-stored.result.>"

    def timers(self) -> list[str]:
        """Return the kinds of subject of the stream of timers: what is set, and what is due."""
        return [f"{self.namespace}.timer.*.*.*", f"{self.namespace}.due.*.*.*"]

    def timer(self, who: str, run: str, step: str) -> str:
        """Return where a timer is set; for a cron schedule, `who` is `task`, `run` the flow, `step` its name."""
        return f"{self.namespace}.timer.{who}.{run}.{step}"

    def due(self, who: str, run: str, step: str) -> str:
        """Return where the broker publishes what a timer holds; `*` for all."""
        return f"{self.namespace}.due.{who}.{run}.{step}"

    def blobs(self) -> list[str]:
        """Return the kinds of subject of the stream of blobs."""
        return [f"{self.namespace}-blobs.*.*"]

    def blob(self, sha256: str, index: int | str) -> str:
        """Return where a chunk of a blob is, or a mark on it; `*` as the index for all of them."""
        return f"{self.namespace}-blobs.{sha256}.{index}"

    def blob_of(self, subject: str) -> str:
        """Return the SHA-256 in a subject made by `blob`."""
        return subject.split(".")[1]

    def counters(self, kind: str) -> list[str]:
        """Return the kinds of subject of a stream of counters: `spend`, or another."""
        return [f"{self.namespace}-{kind}.>"]

    def counter(self, kind: str, name: Sequence[str]) -> str:
        """Return where a counter is: what is counted, of what, in which unit. `*` for all."""
        tokens = [part if part == "*" else check_token("counter", part) for part in name]
        return ".".join((f"{self.namespace}-{kind}", *tokens))

    def counter_of(self, subject: str) -> tuple[str, ...]:
        """Return the name in a subject made by `counter`."""
        return tuple(subject.split(".")[1:])

    def slots(self) -> list[str]:
        """Return the kinds of subject of the stream of slots."""
        return [f"{self.namespace}-slots.*.*"]

    def slot(self, of: str, index: int | str) -> str:
        """Return where a slot is taken, of those of something; `*` as the index for all of them."""
        return f"{self.namespace}-slots.{check_token('slot', of)}.{index}"

    def live(self, run: str, *what: str) -> str:
        """Return a subject of core NATS, not stored: `running.{step}` of a run, or, by its token, a model's `pace`."""
        return ".".join((self.namespace, "live", run, *what))

    def roll(self, run: str = WHOLE_ROLL) -> str:
        """Return where workers are asked what they hold of a run; without one, who is there; `*` for both."""
        return self.live(run, ROLL, WHOLE_RUN)

    def here(self) -> str:
        """Return where workers say that they are there."""
        return self.live(WHOLE_ROLL, "here", WHOLE_RUN)

    def live_of(self, subject: str) -> tuple[str, str, str] | None:
        """Return run, kind and step in a subject made by `live`; None when it is another."""
        tokens = subject.removeprefix(f"{self.namespace}.live.").split(".")
        return (tokens[0], tokens[1], tokens[2]) if len(tokens) == 3 else None

    def run_of_stored(self, subject: str) -> str:
        """Return the run of a subject made by `stored_result`."""
        return subject.split(".")[3]

    def for_actor(self, kind: str, actor: str) -> str:
        """Return the filter of an actor's consumer: all `handoff` or `reply` messages to it."""
        return f"{self.namespace}.{kind}.{check_token('actor', actor)}.>"

    def tasks(self) -> str:
        """Return the filter of the steward's consumer."""
        return f"{self.namespace}.task.*"

    def run(self, run: str, actor: str = "*", kind: str = "*") -> str:
        """Return the pattern of all messages of a run, or those of one actor, or of one kind."""
        return f"{self.namespace}.{kind}.{actor}.{check_token('run id', run)}.>"

    def starts(self) -> list[str]:
        """Return the patterns of what begins and ends runs: first handoffs, joins of nothing, results."""
        return [f"{self._handoff}*.*.*.start", f"{self._handoff}*.*.*.join", f"{self.namespace}.result.>"]

    def split(self, subject: str) -> Parts:
        """Return the tokens of a stored subject, whoever wrote it."""
        _, kind, who, *rest = [*subject.split("."), "", ""]
        while rest and not rest[-1]:
            rest.pop()
        return Parts(kind, who, rest[0] if rest else "", tuple(rest[1:]))


def matcher(patterns: Sequence[str]) -> Callable[[str], object]:
    """Return a function that says whether a subject matches any of these patterns, as the server would."""
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern and ">" not in pattern)
    wild = "|".join(_expression(pattern) for pattern in patterns if pattern not in exact)
    matches = re.compile(wild).fullmatch if wild else None
    return lambda subject: subject in exact or (matches is not None and matches(subject) is not None)


def _expression(pattern: str) -> str:
    tokens = {"*": "[^.]+", ">": ".+"}
    return r"\.".join(tokens.get(token) or re.escape(token) for token in pattern.split("."))
