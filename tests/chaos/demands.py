"""What a flow and an input demand of a run's log, worked out anew: every step, output, error, join and result.

It follows the flow file and the twins of the handlers, and nothing that Baton says of its own work, but where the flow
leaves it open: which branches were the first so many, or there before a deadline. That is taken from the log, and
checked to be allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .asked import TIME_IS_UP, WITHDRAWN, Asks, Child, Children, NotThere
from .flow_file import FlowFile, indices
from .nest_twins import NEST
from .people_twins import PEOPLE
from .raw import Record
from .run_log import Chain, Kept, RunLog
from .twins import TWINS, Done, Ended, Failed, Given, error_in_place

_TWINS = TWINS | PEOPLE | NEST


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
        self._asks: dict[str, Asks] = {}
        self.chains: dict[str, Chain] = {}
        """Of the joins that were looked at: see `joins.py`."""
        self.children = Children(flow, log.asked, self.value)
        self.parent: Parent | None = None
        self.runs: dict[str, Demands] = {}
        """What the runs must be that steps of this one asked for, by the token of what was asked."""

    # ---- what there must be ----------------------------------------------------------------------

    @cached_property
    def reached(self) -> dict[str, None]:
        """The steps and branches that the run comes to, in an order in which they may come, unless it ends before."""
        reached: dict[str, None] = {}
        for step in self.flow.order:
            sources = self.flow.sources[step]
            if self.flow.joins(step):
                if self.log.closing(step) is not None:
                    reached[step] = None
            elif not sources:
                reached[step] = None
            elif sources[0] in reached and not self._stops_at(sources[0], step):
                count = self.branches(step)
                reached.update(dict.fromkeys([step] if count is None else [f"{step}-{n}" for n in range(count)]))
        return reached

    @cached_property
    def unknown(self) -> set[str]:
        """Fan-outs whose list cannot be reckoned, as their source has not ended."""
        return {step for step in self.flow.steps if self.flow.spreads(step) and self.branches(step) is None}

    def with_children(self, tokens: Iterable[str]) -> Iterator[str]:
        """Yield these steps, each with all that it must have asked for, as far as that is in the log."""
        for token in tokens:
            yield token
            yield from self.with_children(self.asks(token).tokens)

    def asks(self, token: str) -> Asks:
        """Return what a step must have asked for, as far as the log has it."""
        self.ended(token)
        return self._asks.get(token) or self._new_asks(token)

    def _new_asks(self, token: str) -> Asks:
        def came_to(child: str) -> Any:
            ended = self.ended(child)
            if ended is None:
                raise NotThere(child)
            return {"failed": ended.type} if isinstance(ended, Failed) else ended.output

        def recorded(name: str, number: int) -> Any:
            facts = [note["fact"] for note in self.log.notes[token] if note["fact"]["type"] == "recorded"]
            found = [fact for fact in facts if (fact["name"], fact.get("number", 1)) == (name, number)]
            if not found:
                raise NotThere(name)
            return self.value({"output": found[0].get("value"), "blob": found[0].get("blob")})

        self._asks[token] = Asks(self.flow, self.children.of[token], came_to, recorded)
        return self._asks[token]

    def asker(self, token: str) -> str | None:
        """Return the step that asked for this one; None for a step of the flow."""
        child = self.children.by_token.get(token)
        return child.asker if child is not None else None

    @property
    def is_done(self) -> bool:
        return self.log.result is not None and (self.log.result.body or {}).get("status") == "done"

    def must_be_there(self, token: str) -> bool:
        """Say whether a run that is done must have done this: no join after it went on without all."""
        if (asker := self.asker(token)) is not None:
            return self.asks(asker).is_complete and not self.is_late(asker) and self.must_be_there(asker)
        after = filter(self.flow.joins, self.flow.all_after(self.flow.base(token)))
        return self.is_done and not any(self.flow.policy(join).wait or self._was_late(join) for join in after)

    def _was_late(self, join: str) -> bool:
        closing = self.log.closing(join)
        return closing is not None and bool((closing.body or {})["cause"].get("deadline"))

    def must_have_answers(self, token: str) -> bool:
        """Say whether what a step asked for must have been answered: one that was late is not waited for."""
        return self.must_be_there(token) and not self.is_late(token)

    def branches(self, step: str) -> int | None:
        """Return how many branches a fan-out has; None when it is none. One whose source failed has none to do."""
        if not self.flow.spreads(step):
            return None
        ended = self.ended(self.flow.sources[step][0])
        value: Any = ended.output if isinstance(ended, Done) else []
        for part in self.flow.spreads(step).split(".")[1:]:
            value = value[part] if value else []
        return len(value)

    def tokens(self, source: str) -> list[str]:
        """Return the branches of a step, or itself."""
        count = self.branches(source)
        return [source] if count is None else [f"{source}-{index}" for index in range(count)]

    def ended(self, token: str) -> Ended | None:
        """Return how a step must end if it is come to; None for a join that has not closed."""
        if token not in self._ended:
            self._ended[token] = self._reckon(token)
        return self._ended[token]

    def errors(self, token: str) -> list[Failed]:
        """Return the errors that a step must be given: each once, in the order of the flow."""
        base = self.flow.base(token)
        found: list[Failed] = []
        befores = self.flow.sources[base]
        if self.flow.joins(base):
            nothing = [s for s in befores if self.branches(s) == 0 and s in self._closed_with(base)]
            befores = [*self.named(base), *(before for empty in nothing for before in self.flow.sources[empty])]
        for before in befores:
            found += self.errors(before)
            ended = self.ended(before)
            if isinstance(ended, Failed):
                found.append(ended)
        return list(dict.fromkeys(found))

    def named(self, join: str) -> list[str]:
        """Return the branches that the closing handoff of a join names, in the order of the flow.

        An empty fan-out is named too, by itself: it has no branch.
        """
        branches = self._closed_with(join)
        return [
            source if index is None else f"{source}-{index}"
            for source in self.flow.sources[join]
            if self.branches(source) != 0
            for index in indices(branches.get(source, ""))
        ]

    def _closed_with(self, join: str) -> dict[str, str]:
        closing = self.log.closing(join)
        found: dict[str, str] = (closing.body or {})["cause"].get("branches", {}) if closing is not None else {}
        return found

    def kills(self, token: str) -> bool:
        """Say whether this step kills its worker, whatever it is given."""
        twin = _TWINS[self.flow.name].get(self.flow.base(token))
        asked = token in self.children.by_token
        item = self.children.given(token) if asked else ""
        asks = Asks(self.flow, {}, self.ended, lambda *_: None)
        try:
            ended = twin(Given(self.run, token, self.key, {}, [], item, asks)) if twin is not None else None
        except (KeyError, IndexError, NotThere):  # it needs values, or asks: no step that kills does
            return False
        return ended == Failed(token, "WorkerLost")

    def _reckon(self, token: str) -> Ended | None:
        if self.flow.asked(token):
            return self._reckon_child(token) if token in self.children.by_token else None
        base, index = self.flow.place(token) if token not in self.flow.steps else (token, None)
        values: dict[str, Any] = {}
        item = None
        if self.flow.joins(base):
            if self.log.closing(base) is None:
                return None
            values = self._joined(base)
            well = sum(isinstance(self.ended(branch), Done) for branch in self.named(base))
            if well < self.flow.policy(base).min_done:
                return Failed(token, "JoinShort")
        elif self.flow.sources[base]:
            (source,) = self.flow.sources[base]
            ended = self.ended(source)
            if ended is None:
                return None
            if isinstance(ended, Done):
                values[source] = ended.output
                if index is not None:
                    listed = ended.output
                    for part in self.flow.spreads(base).split(".")[1:]:
                        listed = listed[part]
                    item = listed[index]
        return self._as_its_twin(token, values, self.errors(token), item)

    def _reckon_child(self, token: str) -> Ended | None:
        child = self.children.by_token[token]
        if child.kind == "sleep":
            return Done(None)
        if child.kind in ("person", "event"):
            return self._as_was_said(child)
        if child.kind == "flow":
            return self._as_its_run(child)
        ended = self._as_its_twin(token, {}, [], self.children.given(token))
        return Failed(token, TIME_IS_UP) if self.is_late(token) else ended

    def _as_was_said(self, child: Child) -> Ended | None:
        """Return what somebody said, by the log; whether they did, and in time, is looked at in `said.py`."""
        answer = self.log.answers.get(child.token)
        if answer is None:
            return None
        body = answer.body or {}
        if body.get("say"):
            return Done(self.value(body["outcome"]))
        if body["outcome"].get("error", {}).get("type") == WITHDRAWN:
            return Failed(child.token, WITHDRAWN)
        default = self.children.given(child.token)["default"]
        return Failed(child.token, TIME_IS_UP) if default is None else Done(default)

    def _as_its_run(self, child: Child) -> Ended | None:
        run = self.runs.get(child.token)
        result = run.log.result if run is not None else None
        if run is None or result is None:
            return None
        status = (result.body or {})["status"]
        return run.ended(run.flow.final) if status == "done" else Failed(child.token, f"Run{status.capitalize()}")

    def is_late(self, token: str) -> bool:
        """Say whether a child was answered by itself, as its time was up: the log says so."""
        child, answer = self.children.by_token.get(token), self.log.answers.get(token)
        if child is None or child.kind == "sleep" or not child.due_s or answer is None:
            return False
        outcome = (answer.body or {})["outcome"]
        return bool(outcome.get("error", {}).get("type") == TIME_IS_UP)

    def _as_its_twin(self, token: str, values: dict[str, Any], errors: list[Failed], item: Any) -> Ended | None:
        asks, ended = self._new_asks(token), None
        given = Given(self.run, token, self.key, values, errors, item, asks)
        is_lost = self._bad_luck(self.run, token)
        try:
            ended = _TWINS[self.flow.name][self.flow.base(token)](given)
            asks.is_complete = not is_lost
        except NotThere:
            pass
        except (KeyError, TypeError) as error:
            ended = Failed(token, f"nothing that its twin can do, as it was not given {error}")
        return Failed(token, "WorkerLost") if is_lost else ended

    def _joined(self, join: str) -> dict[str, Any]:
        passes = self.flow.policy(join).failed == "pass"
        values: dict[str, Any] = {source: [] for source in self.flow.sources[join] if self.flow.spreads(source)}
        for branch in self.named(join):
            ended, source = self.ended(branch), self.flow.base(branch)
            if isinstance(ended, Failed) and not passes:
                continue
            value = error_in_place(ended) if isinstance(ended, Failed) else ended.output if ended else None
            if source in values and self.flow.spreads(source):
                values[source].append(value)
            else:
                values[source] = value
        return values

    def _stops_at(self, source: str, successor: str) -> bool:
        """Say whether the run ends after this step, or has not come past it by the log's own word."""
        return isinstance(self.ended(source), Failed) and self.flow.fails_run(source, successor)

    # ---- what there is ---------------------------------------------------------------------------

    def kept(self, token: str) -> Kept | None:
        """Return how the log says that a step ended, from the one record that decides it."""
        if self.flow.asked(token):
            record = self.log.answers.get(token)
            return Kept((record.body or {})["outcome"], record) if record is not None else None
        base = self.flow.base(token)
        after = self.flow.successors[base]
        if not after:
            record = self.log.result
            body = record.body if record is not None else None
            outcome = body.get("outcome") if body and body.get("step") == token else None
        elif len(after) == 1 and not self.flow.spreads(after[0]):
            joins = self.flow.joins(after[0])
            record = self.log.replies.get((after[0], token)) if joins else self.log.handoffs.get((after[0], token))
            body = record.body if record is not None else None
            outcome = (body if joins else body["cause"]).get("outcome") if body else None
        else:
            record = self.log.outcomes.get(token)
            outcome = record.body.get("outcome") if record is not None and record.body else None
        return Kept(outcome, record) if record is not None and outcome is not None else None

    def followers(self, token: str, kept: Kept) -> list[tuple[str, Record | None]]:
        """Return what must be written after a step has ended, each with the record that is it, if it is there."""
        if self.flow.asked(token):
            body = kept.record.body or {}
            name = f"wake-s{body['wakes']['parked']}" if body.get("wakes") else ""
            return [(f"the handoff {name}", self.log.handoffs.get((body["step"], name)))] if name else []
        base = self.flow.base(token)
        failed = kept.outcome["status"] == "failed"
        after = self.flow.successors[base]
        if failed and any(self.flow.fails_run(base, successor) for successor in after):
            return [("the run's result", self.log.result)]
        if kept.record.kind != "outcome":
            return []
        found: list[tuple[str, Record | None]] = []
        for successor in after:
            if self.flow.joins(successor):
                found.append((f"its reply to {successor}", self.log.replies.get((successor, token))))
            elif not self.flow.spreads(successor):
                found.append((f"the handoff to {successor}", self.log.handoffs.get((successor, token))))
            elif tokens := self.tokens(successor):
                found += [(f"the handoff to {each}", self.log.handoffs.get((each, token))) for each in tokens]
            else:  # word that there was nothing to do
                joins = self.flow.successors[successor]
                found += [(f"an empty reply to {join}", self.log.replies.get((join, successor))) for join in joins]
        return found

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
