"""What a delivery is: its message, checked to be one that the lifecycle could have made, and the flow of its run."""

from __future__ import annotations

from msgspec import Struct

from baton_bus.engine.engine import Engine
from baton_bus.jetstream.consumer import Delivery
from baton_schemas.errors import BadMessage
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fits import misfit, misplaced, unreadable
from baton_schemas.run.state import known
from baton_schemas.wire.codec import decode
from baton_schemas.wire.messages import Asked, Handoff, Reply, Started, Woken

from .plans import Plans


class Claim(Struct, frozen=True, kw_only=True):
    """A handoff that is to be done."""

    plan: Plan
    handoff: Handoff
    """The one that gives the step its state: not one that only wakes it."""
    seq: int
    """Where that is in the log."""
    woken: int = 0
    """How often the step's time had come; 0 for never."""
    is_woken: bool = False
    strays: int = 0
    """As in `Parked`."""
    due_s: float = 0.0
    """When a step that was woken is to be done, by the broker's clock."""

    @property
    def asks_models(self) -> bool:
        """Whether an LLM agent does the step, and not code of the user's."""
        return self.plan.agent(self.handoff.step).asks_models

    @property
    def start_seq(self) -> int:
        """Where the run's first handoff is."""
        return self.handoff.start_seq or self.seq

    @property
    def depth(self) -> int:
        """How many asked for one another above this step: 0 for a step of the flow."""
        cause = self.handoff.cause
        return cause.depth if isinstance(cause, Asked) else 0

    @property
    def begins(self) -> bool:
        """Whether it is the run's first handoff."""
        return isinstance(self.handoff.cause, Started) and self.handoff.cause.begins is not None

    @property
    def forks(self) -> bool:
        """Whether it begins a run that goes on from another."""
        cause = self.handoff.cause
        return isinstance(cause, Started) and cause.begins is not None and cause.begins.origin is not None


async def claim(engine: Engine, plans: Plans, delivery: Delivery) -> Claim:
    """Return what a delivery of the handoff consumer is.

    Raises `BadMessage` when it is nothing that the lifecycle could have written, `NewerMessage`, `BusUnavailable`.
    """
    handoff = decode(delivery.data, delivery.subject)
    if not isinstance(handoff, Handoff):
        raise BadMessage("expected a handoff", delivery.subject)
    plan = await plan_of(engine, plans, delivery, handoff)
    if isinstance(handoff.cause, Woken):
        return await _woken(engine, plan, handoff, handoff.cause)
    return Claim(plan=plan, handoff=handoff, seq=delivery.seq)


async def plan_of(engine: Engine, plans: Plans, delivery: Delivery, message: Handoff | Reply) -> Plan:
    """Return the plan of a message's run. Raises `BadMessage` when it is none that the lifecycle could have written."""
    plan = await plans.of(message)
    reason = misfit(plan, message) or unreadable(message, delivery.data)
    if not reason:
        actor = plan.actor(message.step)
        reason = misplaced(message, delivery.subject, lambda: engine.bus.subjects.of(actor, message))
    if reason:
        raise BadMessage(reason, delivery.subject)
    return plan


async def _woken(engine: Engine, plan: Plan, woken: Handoff, cause: Woken) -> Claim:
    """Return the handoff that a waking one is about."""
    entry = await engine.bus.log.at_sure(cause.seq)
    original = known(entry)
    found = isinstance(original, Handoff) and not isinstance(original.cause, Woken)
    if not found or (original.run, original.step) != (woken.run, woken.step):  # type: ignore[union-attr]
        raise BadMessage(f"sequence {cause.seq}, which it is to wake, is no handoff of step {woken.step!r}")
    return Claim(
        plan=plan,
        handoff=original,  # type: ignore[arg-type]
        seq=cause.seq,
        woken=cause.number,
        is_woken=True,
        strays=cause.strays,
        due_s=cause.due_s,
    )
