"""What was spent: one pass over the log, in which only messages are decoded that tell of a call, or of a run's flow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import msgspec
from msgspec import Struct

from baton_bus.store.bus import Bus
from baton_schemas.run.refs import name_of
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.show.children import is_child
from baton_schemas.show.spending import PaidCall, Spending
from baton_schemas.wire.messages import Begins, Handoff, Started

_TELLS = (b'"usage"', b'"type":"model"', b'"type":"exchange"')
"""What is in a message that tells of a call."""
_BEGINS = b'"begins"'
"""What is in the first handoff of a run."""


class SpentCall(Struct, frozen=True, kw_only=True):
    """A call, and what it was for."""

    flow: str
    """Empty when its run has no beginning in the log any more."""
    agent: str
    call: PaidCall


class _Step(Struct, frozen=True):
    agent: str = ""


class _Flow(Struct, frozen=True):
    name: str = ""
    steps: dict[str, _Step] = {}


async def spent_calls(bus: Bus, since: datetime | None = None) -> AsyncGenerator[SpentCall, None]:
    """Yield all calls that the log tells of, also those of runs that were cancelled, from a time on.

    It reads the whole log, some 30,000 messages a second. Raises `BusUnavailable`, `NoStream`.
    """
    spending, flows, known = Spending(), dict[str, _Flow](), dict[str, _Flow]()
    async with aclosing(bus.log.raw()) as log:
        async for each in log:
            begins = _BEGINS in each.data
            if not begins and not any(tells in each.data for tells in _TELLS):
                continue
            entry = read_entry(each.seq, each.at, each.subject, each.data)
            if begins:
                _learn(entry, flows, known)
            for call in spending.take(entry):
                if since is None or call.at >= since:
                    yield _spent(call, flows)
    for call in spending.rest():
        if since is None or call.at >= since:
            yield _spent(call, flows)


def _learn(entry: Entry, flows: dict[str, _Flow], known: dict[str, _Flow]) -> None:
    """Take in which flow a run has, by its first handoff."""
    match entry.message:
        case Handoff(run=run, flow=name, digest=digest, cause=Started(begins=Begins(flow_body=body))):
            if digest not in known:
                try:
                    known[digest] = msgspec.json.decode(body, type=_Flow)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a stranger's
                    known[digest] = _Flow(name=name)
            flows[run] = known[digest]
        case _:
            pass


def _spent(call: PaidCall, flows: dict[str, _Flow]) -> SpentCall:
    flow, step = flows.get(call.run, _Flow()), name_of(call.step)
    own = None if is_child(call.step) else flow.steps.get(step)
    return SpentCall(flow=flow.name, agent=own.agent if own is not None and own.agent else step, call=call)
