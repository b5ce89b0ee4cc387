"""Going on from a run, as a retry or a fork: whether that can be, from where, what it would do, and doing it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from baton_actors.orders.origins import (
    CannotGoOn,
    Origin,
    Version,
    has_failed,
    is_reused,
    read_origin,
    seq_by_which,
    version_of,
)
from baton_bus import Client, Run
from baton_bus.errors import RunExists
from baton_bus.store.bus import Bus
from baton_schemas.run.fork import origin_of
from baton_schemas.show.outlook import Outlook, outlook
from baton_schemas.wire.money import UNITS, Budget, cap_of, counted, shown


class Again(Struct, frozen=True, kw_only=True):
    """How to go on from a run."""

    old: Origin
    version: Version
    until_seq: int = 0
    failed: bool = False
    """Failures that did not end the run are done again too."""

    @property
    def outlook(self) -> Outlook | None:
        """What that would do, and about what it would cost."""
        old = self.old
        plan = self.version.plan or old.plan
        return outlook(old.plan, old.entries, old.log, old.state, plan, until_seq=self.until_seq, failed=self.failed)


def retry_of(old: Origin, flow: str = "", same: bool = False, budget: Budget | None = None) -> Again:
    """Return how to go on with a run from where it broke. Raises `CannotGoOn`, and as `version_of`."""
    version = version_of(old, flow, same, budget)
    if old.state.status == "running":
        advice = f"`baton up` goes on with it, `baton cancel {old.state.run}` ends it"
        raise CannotGoOn(old.state.run, "has not ended, so it needs no retry", advice)
    failed = old.state.status == "done"
    if failed and not has_failed(old.state):
        advice = f"`baton fork {old.state.run} --after STEP` does what comes after a step again"
        if version.plan is not None:
            advice = f"`baton fork {old.state.run}` does again what has changed in its flow since"
        raise CannotGoOn(old.state.run, "is done, there is nothing to retry", advice)
    return Again(old=old, version=version, failed=failed)


async def fork_of(
    bus: Bus,
    old: Origin,
    *,
    after: str = "",
    until_seq: int = 0,
    flow: str = "",
    same: bool = False,
    budget: Budget | None = None,
) -> Again:
    """Return how to go on from an earlier point of a run: when a step has ended, or what is done by a sequence.

    Raises `CannotGoOn`, and as `version_of`.
    """
    version = version_of(old, flow, same, budget)
    if after:
        # What a run has reused came into its log all at once: when each step ended, the other run's log says.
        meant = old
        while is_reused(old, after):
            old = await read_origin(bus, old.state.forked_from)
        until_seq = seq_by_which(old, after)
        if version.plan is None and old.plan.digest != meant.plan.digest:  # that one had another version
            version = replace(version, plan=meant.plan)
    return Again(old=old, version=version, until_seq=until_seq)


async def go_on(client: Client, again: Again, *, run_id: str = "", budget: Budget | None = None) -> Run:
    """Start the run that goes on. Raises as `Client.fork`."""
    return await client.fork(
        again.old.state.run,
        plan=again.version.plan,
        until_seq=again.until_seq,
        failed=again.failed,
        run_id=run_id,
        budget=budget,
    )


async def go_on_once(client: Client, again: Again, run_id: str, *, budget: Budget | None = None) -> str:
    """Start the run that goes on, and has this id; return it. One that went on from the same run before is that one.

    So that twice is once, whoever is quicker, and with whichever budget. Raises as `Client.fork`.
    """
    try:
        return (await go_on(client, again, run_id=run_id, budget=budget)).id
    except RunExists:
        _, first = await client.engine.runs.first(run_id)
        origin = origin_of(first)
        if origin is not None and origin.run == again.old.state.run:
            return run_id
        raise


class Allowed(Struct, frozen=True, kw_only=True):
    """What came of allowing a run to spend more."""

    waiting: int
    """How many of its steps were parked for that."""
    taken: bool
    """Whether a worker has taken it: else one does once it is up."""


async def allow(client: Client, old: Origin, budget: Budget) -> Allowed:
    """Let a run that has not ended spend so much in all. Raises `CannotGoOn` where it has spent that already."""
    run = old.state.run
    for unit in UNITS:
        cap = cap_of(budget, unit)
        spent = await client.engine.budgets.spent(run, unit) if cap is not None else 0
        if cap is not None and counted(unit, cap) <= spent:
            raise CannotGoOn(
                run, f"has spent {shown(unit, spent)} already", "Allow it more than that: --budget is for all of it"
            )
    waiting = await client.engine.budgets.waiting(run)
    return Allowed(waiting=waiting, taken=await client.run(run, old.plan.flow.name).allow(budget))
