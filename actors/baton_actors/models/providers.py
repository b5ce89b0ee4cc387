"""Where each model is asked, and as whom: by the environment, or at a provider of the flow that names it.

A worker goes by the flows that it plays, and not by the flow that a run brings along: whoever may hand in a run would
else say where the worker's keys are sent. So a provider is looked up by its name, and one that moved is found where it
is now.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from baton_actors.models.types import ModelSettings
from baton_schemas.flow.flow import Provider
from baton_schemas.flow.models import split_model


class Where(Struct, frozen=True, kw_only=True):
    """Where a model is asked."""

    settings: ModelSettings
    model: str
    """Its id there."""
    provider: str = ""
    """The name of the provider; empty for the one that the environment names."""

    def named(self, model: str) -> str:
        """Return the name under which a model of this provider is recorded, priced and limited."""
        return f"{self.provider}/{model}" if self.provider else model


class Providers:
    """The providers of the flows that a process plays. `environ` has their keys."""

    def __init__(self, settings: ModelSettings, environ: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._by_flow: dict[str, dict[str, ModelSettings]] = {}

    def __bool__(self) -> bool:
        return any(self._by_flow.values())

    def know(self, flow: str, providers: Mapping[str, Provider]) -> None:
        """Take in the providers of a flow that is played here. Raises `ModelError` (`bad_setting`) for a broken key."""
        self._by_flow[flow] = {name: self._settings_of(name, provider) for name, provider in providers.items()}

    def lacks(self, flow: str, named: Mapping[str, Provider], model: str) -> str:
        """Return the provider that a run's version of a flow, which has those `named`, means, and nobody here knows."""
        name, _ = split_model(model, named)
        return name if name not in self._by_flow.get(flow, {}) else ""

    def where(self, flow: str, model: str) -> Where:
        """Return where a model is asked that a flow names; whether that may be is for `check_credentials` to say."""
        own = self._by_flow.get(flow, {})
        name, id = split_model(model, own)
        return Where(settings=own[name] if name else self._settings, model=id, provider=name)

    def _settings_of(self, name: str, provider: Provider) -> ModelSettings:
        key = self._environ.get(provider.key_env, "").strip() if provider.key_env else ""
        wish = self._settings.rehearse
        can_ask = bool(key) or not provider.key_env
        return replace(
            self._settings,
            api_key=key if provider.auth == "key" else "",
            auth_token=key if provider.auth == "bearer" else "",
            base_url=provider.base_url,
            provider=name,
            key_env=provider.key_env,
            rehearse=wish if wish is not None else self._settings.rehearses and not can_ask,
        )
