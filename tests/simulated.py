"""Logs of simulated runs as people read them: entries a second apart, with work that is paid, and the notes on it."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from baton_schemas.flow.flow import Flow
from baton_schemas.run.refs import base_of
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Fact, ModelCall, Retry, Waits, key_of
from baton_schemas.wire.messages import Handoff, Message, Note
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, State, Usage, Work

from .logs import second
from .simulator import RUN, Simulator, Stored

ATTEMPTS_MAX = 3
_USAGE = Usage(input_tokens=10, output_tokens=2)


class Noting(Simulator):
    """A run whose workers write notes, create-only as real ones are, and whose calls of models are paid.

    `paid` has what the notes tell of: `(step, cost, in vain)`, each call once.
    """

    def __init__(self, flow: Flow, choose: Random, *, stops: bool = False) -> None:
        super().__init__(flow, choose, stops=stops)
        self.paid: list[tuple[str, float, bool]] = []
        self._notes: dict[tuple[str, str], Fact] = {}

    def _handle(self, handoff: Handoff, state: State) -> Outcome:
        outcome = super()._handle(handoff, state)
        if base_of(handoff) in self.plan.implied:
            return outcome
        step, attempt = handoff.step, 1
        if self.choose.randint(0, 3) == 0:
            what = self.choose.choice(["provider", "limits", "handler"])
            self._note(step, Waits(what=what, reason=f"its {what}", since_s=second(len(self.log)).timestamp()))
        while attempt < ATTEMPTS_MAX and ((step, f"retry-{attempt}") in self._notes or self.choose.randint(0, 3) == 0):
            error = Error(step=step, type="Overloaded", message="try again", attempts=attempt)
            work = self._worked(attempt, self._price())
            self._note(step, Retry(attempt=attempt, error=error, delay_s=self.choose.choice([0.0, 1.5]), work=work))
            attempt += 1
        match outcome:
            case Done():
                call = ModelCall(request_sha256=step, attempt=attempt, usage=_USAGE, cost_usd=self._price(), model="m")
                stored = self._note(step, replace(call, request_id=f"r{len(self.log)}"))
                assert isinstance(stored, ModelCall)
                work = replace(self._worked(attempt, stored.cost_usd or 0.0), request_id=stored.request_id)
                return replace(outcome, work=work)
            case Failed(error=error):
                work = replace(self._worked(attempt, None), usage=None)
                return replace(outcome, error=replace(error, attempts=attempt), work=work)
            case _:
                return outcome

    def _price(self) -> float:
        return self.choose.randint(1, 64) / 64  # sums of such are exact

    def _worked(self, attempt: int, cost_usd: float | None) -> Work:
        elapsed_s = self.choose.choice([0.0, 0.5, 3.0])
        return Work(attempt=attempt, worker="w", elapsed_s=elapsed_s, model="m", usage=_USAGE, cost_usd=cost_usd)

    def _note(self, step: str, fact: Fact) -> Fact:
        """Write a fact unless there is one under its key; return the one that is there."""
        key = (step, key_of(fact))
        if key not in self._notes:
            self._store("a", Note(run=RUN, step=step, fact=fact, worker="w"))
            self._notes[key] = fact
            match fact:
                case Retry(work=work):
                    self.paid.append((step, work.cost_usd or 0.0, True))
                case ModelCall(cost_usd=cost_usd):
                    self.paid.append((step, cost_usd or 0.0, False))
                case _:
                    pass
        return self._notes[key]


def simulated(flow: Flow, choose: Random, *, stops: bool = False) -> Noting:
    """Return a run of the flow that is over."""
    run = Noting(flow, choose, stops=stops)
    run.run()
    return run


def entries_of(run: Simulator) -> list[Entry]:
    """Return the log of a run as a reader has it."""
    return [_entry(stored) for stored in run.log]


def _entry(stored: Stored[Message]) -> Entry:
    return read_entry(stored.seq, second(stored.seq), f"b.any.a.{RUN}.s", encode(stored.message))
