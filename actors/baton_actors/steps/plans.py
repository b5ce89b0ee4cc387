"""The flows that a worker knows, by digest: from its own start, from first handoffs, or read from the log."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from msgspec import Raw

from baton_bus.engine.runs import begins_run
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage, FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.state import known
from baton_schemas.wire.messages import Handoff, Reply, Started

KNOWN_MAX = 256
"""Versions of flows kept worked out: far more than run at one time, and each is some kilobytes."""


class Plans:
    """Finds the plan of a message. The first handoff of a run carries the flow; the others name its digest."""

    def __init__(self, bus: Bus, *known: Plan) -> None:
        self._bus = bus
        self._known: OrderedDict[str, Plan] = OrderedDict((plan.digest, plan) for plan in known)

    async def of(self, message: Handoff | Reply) -> Plan:
        """Return the plan of the flow that this message belongs to.

        Whether it belongs to the run that it says is looked up only when its flow is not known. Raises `BadMessage`,
        `NewerMessage`, `BusUnavailable`.
        """
        plan = self._known.get(message.digest)
        if plan is not None:
            return plan
        plan = _plan(_flow_body(message) or await self._first_body(message))
        if plan.digest != message.digest:
            raise BadMessage(f"digest {message.digest} is not that of the run's flow, {plan.digest}")
        self._known[plan.digest] = plan
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return plan

    async def _first_body(self, message: Handoff | Reply) -> Raw:
        """Return the flow in the first handoff of the message's run, by the leader's word: a replica may lag."""
        entry = await self._bus.log.at_sure(message.start_seq) if message.start_seq else None
        known(entry)
        first = entry.message if entry is not None and begins_run(entry) else None
        body = _flow_body(first) if isinstance(first, Handoff) and first.run == message.run else None
        if body is None:
            raise BadMessage(f"sequence {message.start_seq} is no first handoff of run {message.run}")
        return body


def _flow_body(message: Handoff | Reply) -> Raw | None:
    cause = message.cause if isinstance(message, Handoff) else None
    return cause.begins.flow_body if isinstance(cause, Started) and cause.begins is not None else None


def _plan(body: Raw) -> Plan:
    try:
        return check_flow(decode_flow(body), stored=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"the flow in the first handoff: {error}") from error
    except FlowError as error:
        raise BadMessage(f"the flow in the first handoff cannot run: {error}") from error
