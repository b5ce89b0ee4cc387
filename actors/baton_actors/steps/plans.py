"""The flows that a worker knows, by digest: from its own start, from first handoffs, or read from the log."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from msgspec import Raw

from baton_bus import Bus
from baton_schemas.errors import BadMessage, FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Handoff, OutcomeRecord, Reply

KNOWN_MAX = 256
"""Versions of flows kept worked out: far more than run at one time, and each is some kilobytes."""


class Plans:
    """Finds the plan of a message. The first handoff of a run carries the flow; the others name its digest."""

    def __init__(self, bus: Bus, *known: Plan) -> None:
        self._bus = bus
        self._known: OrderedDict[str, Plan] = OrderedDict((plan.digest, plan) for plan in known)

    async def of(self, message: Handoff | Reply | OutcomeRecord) -> Plan:
        """Return the plan of the flow that this message belongs to. Raises `BadMessage`, `BusUnavailable`."""
        plan = self._known.get(message.digest)
        if plan is not None:
            return plan
        body = message.flow_body if isinstance(message, Handoff) else Raw(b"null")
        if message.start_seq:
            first = await self._bus.log.at(message.start_seq)
            if first is None or not isinstance(first.message, Handoff):
                raise BadMessage(f"start_seq {message.start_seq} is no first handoff of run {message.run}")
            body = first.message.flow_body
        plan = _plan(body)
        if plan.digest != message.digest:
            raise BadMessage(f"digest {message.digest} is not that of the run's flow, {plan.digest}")
        self._known[plan.digest] = plan
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return plan


def _plan(body: Raw) -> Plan:
    try:
        return check_flow(decode_flow(body))
    except msgspec.DecodeError as error:
        raise BadMessage(f"the flow in the first handoff: {error}") from error
    except FlowError as error:
        raise BadMessage(f"the flow in the first handoff cannot run: {error}") from error
