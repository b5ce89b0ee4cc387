"""What a flow and an input demand of a run's log, worked out anew: every step, output, error, join and result.

It follows the flow file and the twins of the handlers, and nothing that Baton says of its own work, but where the flow
leaves it open: which branches were the first so many, or there before a deadline. That is taken from the log, and
checked to be allowed.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .asked import TIME_IS_UP, WITHDRAWN, Asks, Child, Children, NotThere
from .called import answer_to, is_refused
from .calls_twins import CALLS
from .conditions import unmet
from .flow_file import FlowFile, Loop, in_round, indices
from .nest_twins import NEST
from .people_twins import PEOPLE
from .raw import Record
from .run_log import Chain, Kept, RunLog
from .twins import TWINS, Done, Ended, Failed, Given, Skipped, error_in_place
from .ways_twins import WAYS

_TWINS = TWINS | WAYS | CALLS | PEOPLE | NEST


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
        self._asks: dict[str, Asks] = {}
        self.chains: dict[str, Chain] = {}
        """Of the joins that were looked at: see `joins.py`."""
        self.children = Children(flow, log.asked, self.value)
        self.parent: Parent | None = None
        self.runs: dict[str, Demands] = {}
        """What the runs must be that steps of this one asked for, by the token of what was asked."""

    # ---- what there must be ----------------------------------------------------------------------

    @cached_property
    def steps(self) -> list[str]:
        """The steps, each in all its rounds that there are, in an order in which they may come."""
        steps: list[str] = []
        for step in self.flow.order:
            loop = self.flow.loop_of(step)
            if loop is None:
                steps.append(step)
            elif step == loop.first:
                within = [each for each in self.flow.order if each in loop.steps]
                for number in range(1, self.rounds(loop) + 1):
                    steps += [in_round(each, number) for each in within]
        return steps

    @cached_property
    def reached(self) -> dict[str, None]:
        """The steps and branches that the run comes to, in an order in which they may come, unless it ends before."""
        reached: dict[str, None] = {}
        for step in self.steps:
            sources = self.sources(step)
            if self.joins(step):
                if self.log.closing(step) is not None:
                    reached[step] = None
            elif not sources:
                reached[step] = None
            elif sources[0] in reached and not self._stops_at(sources[0], step):
                reached.update(dict.fromkeys(self.tokens(step)))
        return reached

    def rounds(self, loop: Loop) -> int:
        """Return how many rounds of a loop there are, as far as the log has them."""
        return next(number for number in itertools.count(1) if not self._goes_again(loop, number))

    def _goes_again(self, loop: Loop, number: int) -> bool:
        return number < loop.rounds and self._is_to_go_again(loop, number)

    def _is_to_go_again(self, loop: Loop, number: int) -> bool:
        last = in_round(loop.last, number)
        after = functools.partial(self.read, loop.last, number, after=True)
        return isinstance(self.ended(last), Done) and not unmet(loop.when, after)

    def is_out_of_rounds(self, token: str) -> bool:
        """Say whether the run fails after this step, as there is to be another round, and it was the last."""
        step, _, number = self.flow.place(token)
        loop = self.flow.loop_of(step)
        if loop is None or step != loop.last or not loop.fails:
            return False
        return number == loop.rounds and self._is_to_go_again(loop, number)

    def sources(self, token: str) -> list[str]:
        """Return the steps right before this one, in their rounds."""
        step, _, number = self.flow.place(token)
        loop = self.flow.loop_of(step)
        if loop is not None and step == loop.first and number > 1:
            return [in_round(loop.last, number - 1)]
        return [self._last_of(source, loop, number) for source in self.flow.sources[step]]

    def after(self, token: str) -> list[str]:
        """Return the steps that come right after this one, in their rounds, unless it is done once more."""
        step, _, number = self.flow.place(token)
        loop = self.flow.loop_of(step)
        within = loop.steps if loop is not None else frozenset()
        return [in_round(each, number if each in within else 1) for each in self.flow.successors[step]]

    def _last_of(self, step: str, loop: Loop | None, number: int) -> str:
        """Return a step as it is seen in this round of a loop: in that round, or of another loop in its last."""
        if loop is not None and step in loop.steps:
            return in_round(step, number)
        other = self.flow.loop_of(step)
        return step if other is None else in_round(step, self.rounds(other))

    def joins(self, token: str) -> bool:
        """Say whether a step waits for several: the first of a loop does so in its first round alone."""
        step, _, number = self.flow.place(token)
        loop = self.flow.loop_of(step)
        return self.flow.joins(step) and (loop is None or step != loop.first or number == 1)

    def read(self, reader: str, number: int, name: str, *, after: bool = False) -> Any:
        """Return what a step reads, in its round, under the name of an input or another step; None for nothing.

        `after` that it is done, it reads itself as well.
        """
        if name not in self.flow.steps:
            return self.key if name == "key" else None
        loop = self.flow.loop_of(reader)
        if loop is not None and name in loop.steps:
            if not (reader in self.flow.all_after(name) or (after and name == reader)):
                number, reader = number - 1, loop.last  # what the round before has put out
            if number == 0:
                return None
        token = self._last_of(name, loop, number)
        following = self.after(token)
        if following and all(map(self.joins, following)):  # so it is known by what the join was given of it
            join = next((j for j in following if self.flow.base(j) in self._before(reader)), None)
            return self._joined(join).get(name) if join is not None and self.log.closing(join) else None
        ended = self.ended(token)
        return ended.output if isinstance(ended, Done) else None

    def _before(self, step: str) -> set[str]:
        return {step} | {each for each in self.flow.steps if step in self.flow.all_after(each)}

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
            if not isinstance(ended, Done | Failed):
                raise NotThere(child)
            return {"failed": ended.type} if isinstance(ended, Failed) else ended.output

        def recorded(name: str, number: int) -> Any:
            facts = [note["fact"] for note in self.log.notes[token] if note["fact"]["type"] == "recorded"]
            found = [fact for fact in facts if (fact["name"], fact.get("number", 1)) == (name, number)]
            if not found:
                raise NotThere(name)
            return self.value({"output": found[0].get("value"), "blob": found[0].get("blob")})

        def called(what: str, number: int) -> Any:
            if is_refused(self.run, token, what):
                return {"refused": "BadRequestError"}
            found = answer_to(self.log.notes[token], self.value, what, number)
            if found is None:
                raise NotThere(what)
            return found

        self._asks[token] = Asks(self.flow, self.children.of[token], came_to, recorded, called)
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
        return self.is_done and not any(self.went_on_without(join) for join in self._joins_after(token))

    def _joins_after(self, token: str) -> Iterator[str]:
        """Yield the joins that a step is before, in its round or after the loop: a loop is left when all of it is."""
        step, _, number = self.flow.place(token)
        loop = self.flow.loop_of(step)
        for join in filter(self.flow.joins, self.flow.all_after(step)):
            if loop is not None and join in loop.steps:
                yield in_round(join, number)
            elif (other := self.flow.loop_of(join)) is None or other.first == join:
                yield join

    def went_on_without(self, join: str) -> bool:
        """Say whether a join may have gone on without all that it could wait for."""
        closing = self.log.closing(join)
        was_late = closing is not None and bool((closing.body or {})["cause"].get("deadline"))
        return was_late or self.flow.policy(self.flow.base(join)).wait is not None

    def must_have_answers(self, token: str) -> bool:
        """Say whether what a step asked for must have been answered: one that was late is not waited for."""
        return self.must_be_there(token) and not self.is_late(token)

    def branches(self, step: str) -> int | None:
        """Return how many branches a fan-out has, in its round; None when it is none.

        One that is left out, or whose list is not there, has none to do.
        """
        listed = self._listed(step)
        return None if listed is None else len(listed)

    def _listed(self, token: str) -> list[Any] | None:
        """Return the items of a fan-out."""
        step, _, number = self.flow.place(token)
        if not self.flow.spreads(step):
            return None
        (source,) = self.sources(token)
        if isinstance(self.ended(source), Failed) or self.left_out(token):
            return []
        name, *path = self.flow.spreads(step).split(".")
        value = self.read(step, number, name)
        for part in path:
            value = value[part] if value else []
        return value or []

    def left_out(self, token: str) -> tuple[str, ...]:
        """Return why a step (a fan-out as a whole) is left out, any of these; empty when it is done."""
        step, _, number = self.flow.place(token)
        sources = self.sources(token)
        bases = [self.flow.base(source) for source in sources]
        if sources and all(self.is_left_out(source) for source in sources):
            listed = " and ".join(filter(None, (", ".join(bases[:-1]), bases[-1])))
            return (f"{listed} {'was' if len(bases) == 1 else 'were'} skipped",)
        return unmet(self.flow.conditions(step), functools.partial(self.read, step, number))

    def is_left_out(self, token: str) -> bool:
        step, index, number = self.flow.place(token)
        if self.flow.spreads(step):
            (source,) = self.sources(token)
            return index is None and self.ended(source) is not None and bool(self.left_out(in_round(step, number)))
        return isinstance(self.ended(token), Skipped)

    def tokens(self, source: str) -> list[str]:
        """Return the branches of a step, or itself."""
        count = self.branches(source)
        return [source] if count is None else [self.branch(source, index) for index in range(count)]

    def branch(self, step: str, index: int | None) -> str:
        """Return the token of a branch; of the step when it is none."""
        name, _, number = self.flow.place(step)
        return in_round(name if index is None else f"{name}-{index}", number)

    def ended(self, token: str) -> Ended | None:
        """Return how a step must end if it is come to; None for a join that has not closed."""
        if token not in self._ended:
            self._ended[token] = self._reckon(token)
        return self._ended[token]

    def errors(self, token: str) -> list[Failed]:
        """Return the errors that a step must be given: each once, in the order of the flow."""
        found: list[Failed] = []
        befores = self.sources(token)
        if self.joins(token):
            closed_with = self._closed_with(token)
            nothing = [s for s in befores if self.branches(s) == 0 and self.flow.base(s) in closed_with]
            befores = [*self.named(token), *(before for empty in nothing for before in self.sources(empty))]
        for before in befores:
            found += self.errors(before)
            ended = self.ended(before)
            if isinstance(ended, Failed):
                found.append(ended)
        return list(dict.fromkeys(found))

    def named(self, join: str) -> list[str]:
        """Return the branches that the closing handoff of a join names, in the order of the flow.

        An empty fan-out is named too, by itself: it has no branch. So is what was left out.
        """
        branches = self._closed_with(join)
        return [
            self.branch(source, index)
            for source in self.sources(join)
            if self.branches(source) != 0
            for index in indices(branches.get(self.flow.base(source), ""))
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
            given = Given(self.run, token, self.key, {}, [], item, asks)
            ended = twin(given) if twin is not None else None
        except (KeyError, IndexError, TypeError, NotThere):  # it needs values, or asks: no step that kills does
            return False
        return ended == Failed(token, "WorkerLost")

    def _reckon(self, token: str) -> Ended | None:
        if self.flow.asked(token):
            return self._reckon_child(token) if token in self.children.by_token else None
        step, index, _ = self.flow.place(token)
        values: dict[str, Any] = {}
        item = None
        if index is None and self.flow.spreads(step):
            return None
        if self.joins(token):
            if self.log.closing(token) is None:
                return None
            if reasons := self.left_out(token):
                return Skipped(reasons)
            values = self._joined(token)
            well = sum(isinstance(self.ended(branch), Done) for branch in self.named(token))
            if well < self.flow.policy(step).min_done:
                return Failed(token, "JoinShort")
        elif sources := self.sources(token):
            (source,) = sources
            ended = self.ended(source)
            if ended is None:
                return None
            if index is None and (reasons := self.left_out(token)):
                return Skipped(reasons)
            if index is not None:
                listed = self._listed(token) or []
                item = listed[index] if index < len(listed) else None
            if isinstance(ended, Done):
                values[self.flow.base(source)] = ended.output
        elif reasons := self.left_out(token):
            return Skipped(reasons)
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
        """Return what its run came to; that nobody ended it in time, by the log, is told by whoever asked."""
        if self.is_late(child.token):
            return Failed(child.token, TIME_IS_UP)
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
        step, _, number = self.flow.place(token) if not self.flow.asked(token) else (token, None, 1)
        if (implied := self.flow.implied.get(step)) is not None:
            return Done(next(iter(values.values())) if implied == "list" else _Anything())
        asks, ended = self._new_asks(token), None
        read = functools.partial(self.read, step, number)
        given = Given(self.run, token, self.key, values, errors, item, asks, read)
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
        """Return what a join is given of the steps before it, by their names: nothing of those that were left out."""
        passes = self.flow.policy(self.flow.base(join)).failed == "pass"
        lists = [s for s in self.sources(join) if self.flow.spreads(self.flow.base(s)) and not self.is_left_out(s)]
        values: dict[str, Any] = {self.flow.base(source): [] for source in lists}
        for branch in self.named(join):
            ended, source = self.ended(branch), self.flow.base(branch)
            if isinstance(ended, Skipped) or (isinstance(ended, Failed) and not passes):
                continue
            value = error_in_place(ended) if isinstance(ended, Failed) else ended.output if ended else None
            if source in values and self.flow.spreads(source):
                values[source].append(value)
            else:
                values[source] = value
        return values

    def _stops_at(self, source: str, successor: str) -> bool:
        """Say whether the run ends after this step, before that one."""
        if self.is_out_of_rounds(source):
            return True
        failed = isinstance(self.ended(source), Failed)
        return failed and self.flow.fails_run(self.flow.base(source), self.flow.base(successor))

    # ---- what there is ---------------------------------------------------------------------------

    def kept(self, token: str) -> Kept | None:
        """Return how the log says that a step ended, from the one record that decides it."""
        if self.flow.asked(token):
            record = self.log.answers.get(token)
            return Kept((record.body or {})["outcome"], record) if record is not None else None
        after = self.after(token)
        if self._ends_a_loop(token) or len(after) > 1 or any(self.branches(each) is not None for each in after):
            record = self.log.outcomes.get(token)
            outcome = record.body.get("outcome") if record is not None and record.body else None
        elif not after:
            record = self.log.result
            body = record.body if record is not None else None
            outcome = body.get("outcome") if body and body.get("step") == token else None
        elif self.joins(after[0]):
            record = self.log.replies.get((after[0], self._in_reply(token)))
            outcome = record.body.get("outcome") if record is not None and record.body else None
        else:
            record = self.log.handoffs.get((after[0], token))
            outcome = record.body["cause"].get("outcome") if record is not None and record.body else None
        return Kept(outcome, record) if record is not None and outcome is not None else None

    def _ends_a_loop(self, token: str) -> bool:
        loop = self.flow.loop_of(self.flow.base(token))
        return loop is not None and self.flow.base(token) == loop.last

    def _in_reply(self, token: str) -> str:
        """Return how a step or branch is named on the subject of a reply: the join has the round."""
        step, index, _ = self.flow.place(token)
        return step if index is None else f"{step}-{index}"

    def followers(self, token: str, kept: Kept) -> list[tuple[str, Record | None]]:
        """Return what must be written after a step has ended, each with the record that is it, if it is there."""
        if self.flow.asked(token):
            body = kept.record.body or {}
            name = f"wake-s{body['wakes']['parked']}" if body.get("wakes") else ""
            return [(f"the handoff {name}", self.log.handoffs.get((body["step"], name)))] if name else []
        step, _, number = self.flow.place(token)
        failed = kept.outcome["status"] == "failed"
        after = self.after(token)
        fails = any(self.flow.fails_run(step, self.flow.base(successor)) for successor in after or [step])
        if self.is_out_of_rounds(token) or (failed and fails):
            return [("the run's result", self.log.result)]
        found = self._next_in_lane(token)
        if kept.record.kind != "outcome":
            return found
        loop = self.flow.loop_of(step)
        if loop is not None and step == loop.last and self._goes_again(loop, number):
            again = in_round(loop.first, number + 1)
            return [(f"the handoff to {again}", self.log.handoffs.get((again, token)))]
        if not after:
            return [("the run's result", self.log.result)]
        for successor in after:
            if self.joins(successor):
                found.append((f"its reply to {successor}", self.log.replies.get((successor, self._in_reply(token)))))
            elif tokens := self.tokens(successor)[: self.flow.lanes(self.flow.base(successor))]:
                found += [(f"the handoff to {each}", self.log.handoffs.get((each, token))) for each in tokens]
            else:  # word that there was nothing to do, or that it is left out
                name = self.flow.base(successor)
                joins = self.after(successor)
                found += [(f"an empty reply to {join}", self.log.replies.get((join, name))) for join in joins]
        return found

    def _next_in_lane(self, token: str) -> list[tuple[str, Record | None]]:
        """Return the handoff to the branch that this one lets begin; or what says that it is not needed any more."""
        behind = self.behind(token)
        if behind is None:
            return []
        (source,) = self.sources(token)
        closings = [self.log.closing(join) if self.went_on_without(join) else None for join in self.after(token)]
        needless = None if None in closings else max(filter(None, closings), key=lambda each: each.seq)
        return [(f"the handoff to {behind}", self.log.handoffs.get((behind, source)) or needless)]

    def behind(self, token: str) -> str | None:
        """Return the branch that begins when this one has ended; None when there is none, or it need not wait."""
        step, index, number = self.flow.place(token)
        lanes = self.flow.lanes(step)
        if index is None or lanes is None or index + lanes >= (self.branches(in_round(step, number)) or 0):
            return None
        return self.branch(token, index + lanes)

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
