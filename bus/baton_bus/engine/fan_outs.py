"""Fan-outs: what the branches that follow from an event are handed, and whether a loop has another round first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from msgspec import Raw

from baton_bus.errors import TooManyBranches
from baton_bus.store.bus import Bus
from baton_schemas.errors import InputError
from baton_schemas.flow.conditions import unmet
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, items_of
from baton_schemas.run.carry import with_outcome
from baton_schemas.run.leaving_out import is_left_out
from baton_schemas.run.lifecycle import Begun, Event, Recorded, next_branch, spreads, spreads_again
from baton_schemas.run.refs import base_of, whole
from baton_schemas.run.rounds import after, follows, next_state
from baton_schemas.wire.messages import Handoff, OutcomeRecord, Result
from baton_schemas.wire.outcomes import Done, Value

from .spread import SpreadLists
from .values import Spread, Values

NO_FAN_OUT = Spread({}, {})


class FanOuts:
    """Reads what they need on one bus."""

    def __init__(self, bus: Bus, values: Values, lists: SpreadLists) -> None:
        self._bus, self._values, self._lists = bus, values, lists

    async def first(self, plan: Plan, checked: Mapping[str, Raw]) -> Spread:
        """Return what first steps that fan out over the input are handed: the first handoff carries one item of it.

        Raises `InputError`.
        """
        lists: dict[str, Sequence[Value]] = {}
        left_out: dict[str, str] = {}
        for step, each in spreads(plan, None).items():
            if why := unmet(plan.step(step).when, checked):
                left_out[step] = why
                continue
            try:
                items = items_of(each, checked[each.split(".")[0]])
            except NotAList as error:
                raise InputError(plan.flow.name, each, str(error)) from error
            limit = self._bus.settings.branches_max
            if len(items) > limit:
                raise InputError(plan.flow.name, each, f"{len(items)} items; at most {limit} (BATON_BRANCHES_MAX)")
            lists[step] = [*[await self._values.stored(bytes(item)) for item in items[:1]], *items[1:]]
        return Spread(lists, left_out)

    async def after(self, plan: Plan, event: Event) -> Spread:
        """Return what the fan-outs that follow from an event are handed. Raises as `Values.spread`."""
        match event:
            case Begun(first=first):
                return await self._values.spread(plan, spreads(plan, None), first.state)
            case Recorded(record=OutcomeRecord() as record):
                refused = () if isinstance(record.outcome, Done) else (NotAList, TooManyBranches)
                with contextlib.suppress(*refused):  # the step that failed could not refuse it
                    return await self.after_record(plan, record)
        return NO_FAN_OUT

    async def after_record(self, plan: Plan, record: OutcomeRecord) -> Spread:
        """Return what the fan-outs that follow from a record are handed, and whether its loop has another round.

        Raises as `Values.spread`.
        """
        base = base_of(record)
        to_spread, loops = spreads(plan, base), base in plan.loops
        if is_left_out(record.outcome) or not (to_spread or loops):  # what comes after it is left out too
            return NO_FAN_OUT
        state = record.state if record.branch else with_outcome(record.state, base, record.outcome)
        decides = loops and isinstance(record.outcome, Done)
        again = decides and await self._values.holds_again(plan, base, state)
        match follows(plan, record, again):
            case "again":
                state, to_spread = next_state(plan, base, state), spreads_again(plan, base)
            case "fail":
                to_spread = {}
            case _:
                pass
        return (await self._values.spread(plan, to_spread, state))._replace(again=again)

    async def next_item(self, plan: Plan, event: Recorded) -> Value | None:
        """Return the item of the branch that follows the one which ended, unless the joins after them have closed.

        Raises `NotAList`, `BlobMissing`, `NewerMessage`, `BusUnavailable`.
        """
        ended = event.handoff
        assert ended is not None
        index = next_branch(plan, ended)
        if index is None or isinstance(event.record, Result) or await self._are_closed(plan, ended):
            return None
        items = await self._lists.items(plan, ended.run, event.record.start_seq, whole(ended.step))
        if index >= len(items):
            raise NotAList(plan.step(ended.step).each, f"{len(items)} items in the log, and branch {index}")
        return await self._values.stored(bytes(items[index]))

    async def _are_closed(self, plan: Plan, branch: Handoff) -> bool:
        """Say whether all that waits for a branch has begun without it. Looked up only where that may be."""
        joins = [after(plan, whole(branch.step), join) for join in plan.successors[base_of(branch)]]
        if not all(plan.closes_early(join) for join in joins):
            return False
        subjects = [self._bus.subjects.closing(plan.actor(join), branch.run, join) for join in joins]
        return None not in await asyncio.gather(*map(self._bus.log.last_sure, subjects))


def may_fan_out(plan: Plan, event: Event) -> bool:
    """Say whether lists may be fanned out over after an event: they are only read then."""
    match event:
        case Begun():
            return plan.starts_many
        case Recorded(record=record):
            return isinstance(record, OutcomeRecord)
        case _:
            return False
