"""What an agent is asked with: arguments that fit its input, and the files in them, which are stored first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from baton_actors.agents.asks import AskRefused
from baton_bus.engine.engine import Engine
from baton_schemas.errors import InputError
from baton_schemas.flow.nested import input_of
from baton_schemas.flow.types import has_files
from baton_schemas.wire.files import with_made

from .allowed import fitting
from .claim import Claim
from .sure import sure


async def given_with(engine: Engine, work: Claim, agent: str, arguments: Mapping[str, Any]) -> dict[str, Raw]:
    """Return arguments as JSON, as the agent's input has them, with defaults. Raises `AskRefused`, `NotRecorded`."""
    values, made = with_made(fitting, work, agent, arguments)
    fields = input_of(work.plan.flow, agent)
    if not made and not any(map(has_files, fields.values())):
        return values
    await sure(lambda: engine.files.keep(made))
    try:
        return await sure(lambda: engine.files.settled(agent, fields, values))
    except InputError as error:
        raise AskRefused(f"agent {agent!r}, input {error.place!r}: {error.reason}") from error
