"""Which version of the wire a flow needs: a release that knows only an older one gives its runs back, and rejects none.

A flow that uses nothing new is written as ever, so that workers of two releases share its runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Struct

from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.types import has_files
from baton_schemas.wire.messages import ASKING, FIRST

_SINCE_FIRST: dict[type[Struct], frozenset[str]] = {
    Agent: frozenset(
        {"model", "system", "prompt", "max_tokens", "handler", "reads", "actor", "concurrency", "max_in_flight"}
        | {"max_attempts", "timeout_s", "retry_base_s", "retry_max_s", "overload_max_s"}
    ),
    Field: frozenset({"type", "default", "description", "fields"}),
    Step: frozenset({"agent", "after", "each", "join", "on_error", "timeout_s"}),
    Flow: frozenset({"name", "v", "description", "input", "tiers", "agents", "steps", "on_error", "deadline_s"}),
}


def version_needed(flow: Flow) -> int:
    """Return the version of the wire from which on releases can do the runs of a flow."""
    parts: list[Struct] = [flow, *flow.agents.values(), *flow.steps.values(), *_fields(flow.input)]
    is_new = any(map(_is_new, parts)) or any(map(has_files, flow.input.values()))
    return ASKING if is_new else FIRST


def _fields(fields: Mapping[str, Field]) -> Iterator[Field]:
    for field in fields.values():
        yield field
        yield from _fields(field.fields)


def _is_new(part: Struct) -> bool:
    """Say whether a part of a flow says something that the first release did not know."""
    known = _SINCE_FIRST[type(part)]
    for field in msgspec.structs.fields(part):
        if field.name not in known and getattr(part, field.name) != _default(field):
            return True
    return False


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
