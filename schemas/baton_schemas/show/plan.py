"""The plan of the flow that a log carries."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw

from baton_schemas.errors import SchemaError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.state import RunState

_PLANS_MAX = 64
"""Plans that are kept: a list of runs is mostly of a few flows, and to check one takes a hundred times longer than to
fold a short run.
"""


def plan_of(state: RunState) -> Plan | None:
    """Return the plan of the flow that the log carries; None when it carries none that this release can read."""
    return _plan(bytes(state.flow_body)) if state.flow_body is not None else None


@lru_cache(maxsize=_PLANS_MAX)
def _plan(body: bytes) -> Plan | None:
    try:
        return check_flow(decode_flow(Raw(body)), stored=True)
    except (msgspec.DecodeError, ValueError, RecursionError, SchemaError):
        return None
