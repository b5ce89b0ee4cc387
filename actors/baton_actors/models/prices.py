"""What a model call costs at list price, from `prices.toml` and a file of the user's."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from baton_actors.models.errors import ModelError
from baton_schemas.wire.outcomes import Usage

_SNAPSHOT = re.compile(r"[-@]\d{8}\Z")
_PER_MILLION = 1_000_000


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD per million tokens. Prompts over `long_prompt_tokens`, if that is not 0, cost `long` instead."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    long_prompt_tokens: int = 0
    long: Price | None = None


Prices = dict[str, Price]
"""By model name, without the date of a snapshot."""


def load_prices(path: str = "") -> Prices:
    """Return the built-in prices, with those of the TOML file at `path` over them.

    Raises `ModelError` (`bad_setting`) when that file cannot be read or is not of the form of `prices.toml`.
    """
    if not path:
        return _built_in()
    try:
        own = msgspec.toml.decode(Path(path).expanduser().read_bytes(), type=Prices)
    except (OSError, ValueError) as error:
        raise ModelError(
            type="bad_setting",
            message=f"BATON_PRICES: {path}: {error}; "
            "expected a TOML table for each model with input, output, cache_read and cache_write",
            retryable=False,
        ) from error
    return _built_in() | own


def price_of(model: str, prices: Prices) -> Price | None:
    """Return the price of a model, or of a dated snapshot of it; None when none is known."""
    return prices.get(model) or prices.get(_SNAPSHOT.sub("", model))


def cost_usd(model: str, usage: Usage, prices: Prices | None = None) -> float | None:
    """Return the price in USD of one call, or None for a model without one; by default at built-in prices."""
    price = price_of(model, _built_in() if prices is None else prices)
    if price is None:
        return None
    prompt_tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    if price.long is not None and prompt_tokens > price.long_prompt_tokens:
        price = price.long
    return (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + usage.cache_write_tokens * price.cache_write
    ) / _PER_MILLION


@cache
def _built_in() -> Prices:
    return msgspec.toml.decode(resources.files(__package__).joinpath("prices.toml").read_bytes(), type=Prices)
