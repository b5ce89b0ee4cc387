"""Model calls that go in batches, as pure functions: what the handoff says that asks for one, and what it is called.

The step asks for a child of kind `batch`, whose arguments are the request and how it is to be gathered. Whoever has the
result notes it in the journal of the step as any model call, and answers the child, which brings the step back.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from baton_schemas.errors import BadMessage
from baton_schemas.show.asked import Asked
from baton_schemas.wire.messages import Asked as AskedCause
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.names import short_hash
from baton_schemas.wire.outcomes import Blob, State

REQUEST, CALL = "request", "call"
"""Arguments of the child."""
LOST = "batch_lost"
"""The type of the error of a call whose batch the provider does not know any more."""


class BatchCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model call is to be made that goes in a batch."""

    request_sha256: str
    """The hash of what is asked."""
    model: str
    """As the flow names it: with its provider."""
    attempt: int
    count: int
    seconds: float
    """When what was gathered is to be sent."""
    timeout_s: float
    """How long sending it may take."""
    size_bytes: int = 0
    """What the API is sent for it, about."""
    rehearsed: bool = False
    """No model is to be called."""
    held: str = ""
    """What is held for it of a budget, by its id."""


def state_of(call: BatchCall, request: Asked) -> State:
    """Return what the handoff carries that asks for a call."""
    return State(input={CALL: Raw(msgspec.json.encode(call)), REQUEST: Raw(msgspec.json.encode(request))})


def call_in(child: Handoff) -> BatchCall:
    """Return how the call is to be made that a handoff asks for. Raises `BadMessage`."""
    if not isinstance(child.cause, AskedCause) or child.cause.kind != "batch" or not child.cause.actor:
        raise BadMessage("it asks for no model call in a batch")
    try:
        return msgspec.json.decode(child.state.input.get(CALL, b""), type=BatchCall)
    except msgspec.DecodeError as error:
        raise BadMessage(f"what it says of the model call: {error}") from error


def request_in(child: Handoff) -> Raw | Blob:
    """Return the request in a handoff, as it is carried. Raises `BadMessage`."""
    found = child.state.input.get(REQUEST) or child.state.blobs.get(REQUEST)
    if found is None:
        raise BadMessage("it has no request")
    return found


def custom_id(run: str, child: str) -> str:
    """Return what a call is called in its batch, so that a result names whose it is, whoever has sent it."""
    return short_hash(run, child)
