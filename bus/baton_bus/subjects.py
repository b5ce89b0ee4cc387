"""Subjects: the only module that joins tokens. Every token is checked before it gets here or here.

The shape is `{ns}.{kind}.{who}.{run}.{…}`, so that a consumer filters on a fixed prefix.
"""

from __future__ import annotations

from typing import NamedTuple

from baton_schemas.wire.messages import Decisive, Handoff, OutcomeRecord, Reply, Result
from baton_schemas.wire.names import check_token


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
            "join.*.*.*",
            "note.*.*.*.*",
            "result.*.*.end",
        ]
        return [f"{self.namespace}.{shape}" for shape in shapes]

    def of(self, actor: str, message: Decisive) -> str:
        """Return the subject on which this message decides or follows: a pure function of flow, run, step."""
        match message:
            case Handoff():
                return f"{self._handoff}{actor}.{message.run}.{message.step}.{message.source}"
            case Reply():
                return self.reply(actor, message.run, message.step, message.branch)
            case OutcomeRecord():
                return f"{self.namespace}.outcome.{actor}.{message.run}.{message.step}"
            case Result():
                return self.result(message.flow, message.run)

    def task(self, flow: str) -> str:
        """Return where any client publishes a task."""
        return f"{self.namespace}.task.{check_token('flow', flow)}"

    def reply(self, merger: str, run: str, step: str, branch: str) -> str:
        """Return where a branch tells the join how it ended; `*` for all branches."""
        return f"{self.namespace}.reply.{merger}.{run}.{step}.{branch}"

    def join(self, merger: str, run: str, step: str) -> str:
        """Return where the join record of a step is."""
        return f"{self.namespace}.join.{merger}.{run}.{step}"

    def note(self, actor: str, run: str, step: str, n: str) -> str:
        """Return the subject of a note; `n` is unique among the notes of the step."""
        return f"{self.namespace}.note.{actor}.{run}.{step}.{n}"

    def rejected(self, actor: str, run: str, seq: str) -> str:
        """Return the subject of the note that the message with this stream sequence was rejected; `*` for all.

        In place of the step, which may be nonsense, is a fixed word, so that all such notes are found at once.
        """
        return f"{self.namespace}.note.{actor}.{run}.rejected.{seq}"

    def result(self, flow: str, run: str) -> str:
        """Return where the result of a run is; `*` as the flow when it is not known."""
        return f"{self.namespace}.result.{flow}.{check_token('run id', run)}.end"

    def timers(self) -> list[str]:
        """Return the kinds of subject of the stream of timers: what is set, and what is due."""
        return [f"{self.namespace}.timer.*.*.*", f"{self.namespace}.due.*.*.*"]

    def timer(self, who: str, run: str, step: str) -> str:
        """Return where a timer is set; for a cron schedule, `who` is `task`, `run` the flow, `step` its name."""
        return f"{self.namespace}.timer.{who}.{run}.{step}"

    def due(self, who: str, run: str, step: str) -> str:
        """Return where the broker publishes what a timer holds; `*` for all."""
        return f"{self.namespace}.due.{who}.{run}.{step}"

    def live(self, run: str, *what: str) -> str:
        """Return a subject of core NATS, not stored: `end`, or `running.{step}`."""
        return ".".join((self.namespace, "live", run, *what))

    def run_of_live(self, subject: str) -> str:
        """Return the run of a subject made by `live`."""
        return subject.split(".")[2]

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
        """Return the tokens of a stored subject."""
        _, kind, who, *rest = subject.split(".")
        return Parts(kind, who, rest[0] if rest else "", tuple(rest[1:]))
