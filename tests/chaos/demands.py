"""What a flow and an input demand of a run's log, worked out anew: how every step must end, and which there must be.

It follows the flow file and the twins of the handlers, and nothing that Baton says of its own work, but where the flow
leaves it open: which branches were the first so many, or there before a deadline. That is taken from the log, and
checked to be allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .asked import Asks, NotThere
from .asking import Asking, Reckoned
from .calls_twins import CALLS
from .course import Course
from .flow_file import FlowFile, Loop
from .inputs import Inputs
from .nest_twins import NEST
from .people_twins import PEOPLE
from .run_log import Chain, RunLog
from .spend_twins import SPEND
from .tools_twins import TOOLS
from .twins import TWINS, Done, Ended, Failed, Given, Skipped
from .ways_twins import WAYS

_TWINS = TWINS | WAYS | CALLS | PEOPLE | NEST | TOOLS | SPEND


class _Anything:
    """What is equal to whatever was put out."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Demands:
    """What one run must be. `met.py` says where its log is not."""

    def __init__(
        self,
        flow: FlowFile,
        run: str,
        key: str,
        log: RunLog,
        blobs: Mapping[str, bytes],
        lost_by_bad_luck: Callable[[str, str], bool],
    ) -> None:
        """`lost_by_bad_luck` says of a run and a step whether its workers died, as often as it may, not of it."""
        self.flow, self.run, self.key, self.log, self._blobs = flow, run, key, log, blobs
        self._bad_luck = lost_by_bad_luck
        self._ended: dict[str, Ended | None] = {}
        self.chains: dict[str, Chain] = {}
        """Of the joins that were looked at: see `joins.py`."""
        self.course = Course(flow, self._wants_another_round)
        self.inputs = Inputs(flow, key, log, self.course, self.ended)
        self.asking = Asking(flow, run, log, self.value, Reckoned(self.ended, self._as_its_agent, self._as_its_run))
        self.parent: Parent | None = None
        self.runs: dict[str, Demands] = {}
        """What the runs must be that steps of this one asked for, by the token of what was asked."""

    @cached_property
    def reached(self) -> dict[str, None]:
        """The steps and branches that the run comes to, in an order in which they may come, unless it ends before."""
        reached: dict[str, None] = {}
        for step in self.course.steps:
            sources = self.course.sources(step)
            if self.course.joins(step):
                if self.log.closing(step) is not None:
                    reached[step] = None
            elif not sources:
                reached[step] = None
            elif sources[0] in reached and not self._stops_at(sources[0], step):
                reached.update(dict.fromkeys(self.inputs.tokens(step)))
        return reached

    @property
    def is_done(self) -> bool:
        return self.log.result is not None and (self.log.result.body or {}).get("status") == "done"

    @property
    def is_over_budget(self) -> bool:
        """Whether it ended as there was too little left to spend."""
        return bool(self.log.over_budget)

    def ended(self, token: str) -> Ended | None:
        """Return how a step must end if it is come to; None for a join that has not closed."""
        if token not in self._ended:
            self._ended[token] = self._reckon(token)
        return self._ended[token]

    def _reckon(self, token: str) -> Ended | None:
        if self.flow.asked(token):
            return self.asking.ended(token) if token in self.asking.children.by_token else None
        step, index, _ = self.flow.place(token)
        values: dict[str, Any] = {}
        item = None
        if index is None and self.flow.spreads(step):
            return None
        if self.course.joins(token):
            if self.log.closing(token) is None:
                return None
            if reasons := self.inputs.left_out(token):
                return Skipped(reasons)
            values = self.inputs.joined(token)
            well = sum(isinstance(self.ended(branch), Done) for branch in self.inputs.named(token))
            if well < self.flow.policy(step).min_done:
                return Failed(token, "JoinShort")
        elif sources := self.course.sources(token):
            (source,) = sources
            ended = self.ended(source)
            if ended is None:
                return None
            if index is None and (reasons := self.inputs.left_out(token)):
                return Skipped(reasons)
            if index is not None:
                listed = self.inputs.listed(token) or []
                item = listed[index] if index < len(listed) else None
            if isinstance(ended, Done):
                values[self.flow.base(source)] = ended.output
        elif reasons := self.inputs.left_out(token):
            return Skipped(reasons)
        return self._as_its_twin(token, values, self.inputs.errors(token), item)

    def _as_its_twin(self, token: str, values: dict[str, Any], errors: list[Failed], item: Any) -> Ended | None:
        step, _, number = self.flow.place(token) if not self.flow.asked(token) else (token, None, 1)
        if (implied := self.flow.implied.get(step)) is not None:
            return Done(next(iter(values.values())) if implied == "list" else _Anything())
        asks, ended = self.asking.begin(token), None
        read = functools.partial(self.inputs.read, step, number)
        given = Given(self.run, token, self.key, values, errors, item, asks, read)
        is_lost = self._bad_luck(self.run, token)
        try:
            ended = _TWINS[self.flow.name][self.flow.base(token)](given)
            asks.is_complete = not is_lost
        except NotThere:
            pass
        except (KeyError, TypeError) as error:
            ended = Failed(token, f"nothing that its twin can do, as it was not given {error}")
        if token in self.log.over_budget:  # whether there was too little left, `budgets.py` says
            return Failed(token, "over_budget")
        return Failed(token, "WorkerLost") if is_lost else ended

    def _as_its_agent(self, child: str, given: Any) -> Ended | None:
        """Return how an agent ends that was asked by a step: it is given its arguments, and nothing else."""
        return self._as_its_twin(child, {}, [], given)

    def _as_its_run(self, child: str) -> Ended | None:
        """Return what the run came to that was asked for by this token."""
        run = self.runs.get(child)
        result = run.log.result if run is not None else None
        if run is None or result is None:
            return None
        status = (result.body or {})["status"]
        return run.ended(run.flow.final) if status == "done" else Failed(child, f"Run{status.capitalize()}")

    def _wants_another_round(self, loop: Loop, number: int) -> bool:
        return self.inputs.wants_another_round(loop, number)

    def _stops_at(self, source: str, successor: str) -> bool:
        """Say whether the run ends after this step, before that one."""
        if self.course.is_out_of_rounds(source):
            return True
        if source in self.log.over_budget:
            return True
        failed = isinstance(self.ended(source), Failed)
        return failed and self.flow.fails_run(self.flow.base(source), self.flow.base(successor))

    # ---- what else its records say ---------------------------------------------------------------

    def kills(self, token: str) -> bool:
        """Say whether this step kills its worker, whatever it is given."""
        twin = _TWINS[self.flow.name].get(self.flow.base(token))
        asked = token in self.asking.children.by_token
        item = self.asking.children.given(token) if asked else ""
        asks = Asks(self.flow, {}, self.ended, lambda *_: None)
        try:
            given = Given(self.run, token, self.key, {}, [], item, asks)
            ended = twin(given) if twin is not None else None
        except (KeyError, IndexError, TypeError, NotThere):  # it needs values, or asks: no step that kills does
            return False
        return ended == Failed(token, "WorkerLost")

    def value(self, outcome: dict[str, Any]) -> Any:
        """Return the output of an outcome, its blob put together and checked. Raises `ValueError`."""
        return value_of(outcome, self._blobs)


class Parent(NamedTuple):
    """Which step asked for a run."""

    demands: Demands
    """Of its run."""
    child: str
    """The token of what it asked for."""


def value_of(outcome: dict[str, Any], blobs: Mapping[str, bytes]) -> Any:
    """Return the output of an outcome, its blob put together and checked. Raises `ValueError`."""
    blob = outcome.get("blob")
    if blob is None:
        return outcome.get("output")
    data = blobs.get(blob["sha256"])
    if data is None or hashlib.sha256(data).hexdigest() != blob["sha256"] or len(data) != blob["size_bytes"]:
        raise ValueError(f"the blob {blob['sha256'][:8]} is not stored whole")
    return json.loads(data)
