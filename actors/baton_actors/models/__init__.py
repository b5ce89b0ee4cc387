"""Model calls: Claude through the official SDK, or a rehearsal of it when there are no credentials.

Importing this package does not import the SDK (more than a second); the first call does, in a thread.
"""

from __future__ import annotations

from baton_actors.models.client import Models
from baton_actors.models.errors import ModelError
from baton_actors.models.pace import Pace
from baton_actors.models.prices import Price, Prices, cost_usd, load_prices
from baton_actors.models.types import ModelAnswer, ModelRequest, ModelSettings, request_digest

__all__ = [
    "ModelAnswer",
    "ModelError",
    "ModelRequest",
    "ModelSettings",
    "Models",
    "Pace",
    "Price",
    "Prices",
    "cost_usd",
    "load_prices",
    "request_digest",
]
