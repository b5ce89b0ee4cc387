"""A run as it is compared with another: what its steps read, were asked and cost; and values side by side. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import msgspec
from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState, StepState
from baton_schemas.wire.outcomes import Blob, Usage, Value, total

from .asked import Asked
from .given import Fetched, given_to, inline, values_of
from .plan import plan_of
from .seeing import see, wanted
from .spending import PaidCall, calls_of


class Run:
    """One of two runs that are compared: its entries, all of them in order, and what is kept beside its log."""

    def __init__(self, entries: Sequence[Entry], state: RunState | None = None, fetched: Fetched | None = None) -> None:
        """`state` is the fold of the entries, with the id by which the run was found."""
        self.state = state or fold(entries)
        self.entries, self.fetched = entries, fetched or {}

    @cached_property
    def plan(self) -> Plan | None:
        """The plan of its flow; None when its log has none that can be read."""
        return plan_of(self.state)

    @cached_property
    def calls(self) -> list[PaidCall]:
        """What was paid in it."""
        return calls_of(self.entries)

    @cached_property
    def of_step(self) -> Mapping[str, list[Entry]]:
        """The entries on each step, by its token."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(getattr(entry.message, "step", ""), []).append(entry)
        return found

    @cached_property
    def cost_of(self) -> Mapping[str, float]:
        """What was paid for each step that has a price, by its token."""
        found: dict[str, float] = {}
        for call in self.calls:
            if call.cost_usd is not None:
                found[call.step] = found.get(call.step, 0.0) + call.cost_usd
        return found

    def usage_of(self, step: str) -> Usage:
        """Return the tokens of all calls that were made for a step."""
        return total(call.usage for call in self.calls if call.step == step)

    @property
    def input(self) -> dict[str, Value]:
        """What went in, by name."""
        given: dict[str, Value] = {**self.state.input, **self.state.input_blobs}
        return {name: inline(value, self.fetched) for name, value in given.items()}

    def output(self, step: StepState) -> Value | None:
        """Return what a step put out; None for nothing."""
        value = step.blob or step.output
        return inline(value, self.fetched) if value is not None else None

    def values(self, step: str) -> dict[str, Value]:
        """Return what a step read; nothing where its log does not tell."""
        given = given_to(self.of_step.get(step, ()), step)
        if given is None or self.plan is None:
            return {}
        try:
            return values_of(self.plan, given, self.fetched)
        except (KeyError, ValueError, TypeError, RecursionError):  # a stranger's handoff, or values that are no JSON
            return {}

    def asked(self, step: str) -> Asked | None:
        """Return what the model of a step was asked first, made again of the log; None where that cannot be."""
        if self.plan is None:
            return None
        return see(self.plan, self.state, self.of_step.get(step, ()), step, fetched=self.fetched).asked

    def wanted(self, step: str) -> list[Blob]:
        """Return what is kept beside the log of all that a step read, was answered and put out."""
        if self.plan is None:
            return []
        return wanted(self.plan, self.state, self.of_step.get(step, ()), step)


class Pair(Struct, frozen=True, kw_only=True):
    """A value in both runs; None where a run has none."""

    name: str
    before: Value | None
    after: Value | None


def same(before: Value | None, after: Value | None) -> bool:
    """Say whether two values are the same JSON, wherever they are kept."""
    if before is None or after is None:
        return before is after
    if isinstance(before, Blob) or isinstance(after, Blob):
        return _sha256(before) == _sha256(after)
    if bytes(before) == bytes(after):
        return True
    try:
        return bool(msgspec.json.decode(before) == msgspec.json.decode(after))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return False


def _sha256(value: Value) -> str:
    return value.sha256 if isinstance(value, Blob) else hashlib.sha256(bytes(value)).hexdigest()


def pairs(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[Pair]:
    """Return the values that differ between two runs, by name."""
    found = [Pair(name=name, before=before.get(name), after=after.get(name)) for name in {**before, **after}]
    return [pair for pair in found if not same(pair.before, pair.after)]
