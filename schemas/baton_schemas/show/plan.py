"""The plan of the flow that a log carries."""

from __future__ import annotations

import msgspec

from baton_schemas.errors import SchemaError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.state import RunState


def plan_of(state: RunState) -> Plan | None:
    """Return the plan of the flow that the log carries; None when it carries none that this release can read."""
    if state.flow_body is None:
        return None
    try:
        return check_flow(decode_flow(state.flow_body), stored=True)
    except (msgspec.DecodeError, ValueError, RecursionError, SchemaError):
        return None
