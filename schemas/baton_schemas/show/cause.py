"""Why a run failed, as what it has in common with others: without the numbers and ids that differ from run to run.

Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from baton_schemas.run.refs import name_of
from baton_schemas.run.state import RunState
from baton_schemas.wire.names import short_hash
from baton_schemas.wire.outcomes import Error

from .children import asked_name, is_child
from .excerpt import head_of
from .why import error_of

_MESSAGE_WIDE = 200
_KEPT = 4_096
"""Messages whose causes are remembered: the same ones come again and again."""
_FAILURES = ("failed", "expired")
"""How a run ends that was neither done nor called off."""
_DIFFERS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\b(?=\w*\d)(?=\w*[^\W\d])\w{8,}\b"
    r"|\b0x[0-9a-f]+\b"
    r"|\d+(?:[.,:]\d+)*",
    re.IGNORECASE,
)
"""UUIDs, words with letters and digits that are long enough to be ids, addresses in memory, and numbers."""


class Cause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What failures have in common."""

    key: str
    """Of 20 characters: a function of all that is here."""
    flow: str
    step: str = ""
    """The step of the flow that failed, without its branch and round; empty where none did."""
    type: str = ""
    """Of the error; of a run without one, how it ended: `expired`."""
    message: str = ""
    """With `#` in place of each number and id."""


def cause_of(state: RunState) -> Cause | None:
    """Return why a run failed or expired; None for any other."""
    if state.status not in _FAILURES:
        return None
    error = error_of(state)
    if error is None:
        return made(state.flow, "", state.status, state.result.reason if state.result else "")
    return cause_of_error(state.flow, error)


def cause_of_error(flow: str, error: Error) -> Cause:
    """Return the cause of the failure of a step of this flow."""
    step = asked_name(error.step) if is_child(error.step) else name_of(error.step)
    return made(flow, step, error.type, error.message)


@lru_cache(maxsize=_KEPT)
def made(flow: str, step: str, type_: str, message: str) -> Cause:
    """Return the cause of failures of a step with such an error."""
    alike = head_of(_DIFFERS.sub("#", message[: 8 * _MESSAGE_WIDE]), _MESSAGE_WIDE)
    key = short_hash(flow, step, type_, alike)
    return Cause(key=key, flow=flow, step=step, type=type_, message=alike)
