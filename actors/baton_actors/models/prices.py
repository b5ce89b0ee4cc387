"""What a model call costs at list price, from `prices.toml` and a file of the user's."""

from __future__ import annotations

import math
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Struct

from baton_actors.models.errors import ModelError
from baton_actors.models.types import Bound
from baton_schemas.wire.outcomes import Usage

_SNAPSHOT = re.compile(r"[-@]\d{8}\Z")
_PER_MILLION = 1_000_000


_BATCH = 0.5
"""What a token costs in a batch, as a part of its price; uses of tools cost the same."""
_HOUR = 2.0
"""What a token that is written into the cache for an hour costs, in tokens of input, where no price says."""
_TOOLS = "server_tools"

_Usd = Annotated[float, msgspec.Meta(ge=0.0)]


class Price(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD per million tokens. Prompts over `long_prompt_tokens`, if that is not 0, cost `long` instead."""

    input: _Usd
    output: _Usd
    cache_read: _Usd
    cache_write: _Usd
    cache_write_1h: _Usd | None = None
    """None: twice the price of input."""
    long_prompt_tokens: int = 0
    long: Price | None = None

    @property
    def hour(self) -> float:
        """USD per million tokens that are kept in the cache for an hour."""
        return _HOUR * self.input if self.cache_write_1h is None else self.cache_write_1h

    @property
    def dearest_input(self) -> float:
        """USD per million tokens of a prompt, whatever becomes of it in the cache and however long it is."""
        dearest = max(self.input, self.cache_read, self.cache_write, self.hour)
        return dearest if self.long is None else max(dearest, self.long.dearest_input)

    @property
    def dearest_output(self) -> float:
        """USD per million tokens of an answer, however long its prompt is."""
        return self.output if self.long is None else max(self.output, self.long.dearest_output)


class Prices(Struct, frozen=True, kw_only=True):
    """What models cost, and the provider's own tools."""

    models: dict[str, Price] = {}
    """By model name, without the date of a snapshot."""
    server_tools: dict[str, float] = {}
    """USD per use, by the name under which the API counts them: `web_search`."""


def load_prices(path: str = "") -> Prices:
    """Return the built-in prices, with those of the TOML file at `path` over them.

    Raises `ModelError` (`bad_setting`) when that file cannot be read or is not of the form of `prices.toml`.
    """
    if not path:
        return _built_in()
    try:
        own = _read(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            type="bad_setting",
            message=f"BATON_PRICES: {path}: {error}; "
            "expected a TOML table for each model with input, output, cache_read and cache_write, none negative",
            retryable=False,
        ) from error
    built_in = _built_in()
    return Prices(models=built_in.models | own.models, server_tools=built_in.server_tools | own.server_tools)


def plain_name(model: str) -> str:
    """Return the name of a model without the date of a snapshot."""
    return _SNAPSHOT.sub("", model)


def price_of(model: str, prices: Prices) -> Price | None:
    """Return the price of a model, or of a dated snapshot of it; None when none is known."""
    return prices.models.get(model) or prices.models.get(_SNAPSHOT.sub("", model))


def cost_usd(model: str, usage: Usage, prices: Prices | None = None, *, batch: bool = False) -> float | None:
    """Return the price in USD of one call, by default at built-in prices; one of a batch costs half.

    None for a model without a price, and for a use of a tool without one: no price rather than a wrong one.
    """
    prices = _built_in() if prices is None else prices
    price = price_of(model, prices)
    if price is None or not usage.server_tools.keys() <= prices.server_tools.keys():
        return None
    if price.long is not None and usage.prompt_tokens > price.long_prompt_tokens:
        price = price.long
    hour_tokens = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    tokens_usd = (
        usage.input_tokens * price.input
        + usage.output_tokens * price.output
        + usage.cache_read_tokens * price.cache_read
        + (usage.cache_write_tokens - hour_tokens) * price.cache_write
        + hour_tokens * price.hour
    ) / _PER_MILLION
    tools_usd = sum(count * prices.server_tools[tool] for tool, count in usage.server_tools.items())
    return tokens_usd * (_BATCH if batch else 1.0) + tools_usd


def bound_usd(bound: Bound, prices: Prices, *, batch: bool = False) -> float | None:
    """Return what a call costs at the most, whatever of it is cached and however long it is; None as `cost_usd`, and
    where it may use without end what has a price."""
    price = price_of(bound.model, prices)
    if price is None or endless(bound, prices) or not bound.server_tools.keys() <= prices.server_tools.keys():
        return None
    tokens_usd = (bound.input_tokens * price.dearest_input + bound.output_tokens * price.dearest_output) / _PER_MILLION
    tokens_usd *= _BATCH if batch else 1.0
    return tokens_usd + sum(count * prices.server_tools[tool] for tool, count in bound.server_tools.items())


def endless(bound: Bound, prices: Prices) -> tuple[str, ...]:
    """Return which of the provider's tools have a price, and may be used without end."""
    return tuple(tool for tool in bound.unlimited if prices.server_tools.get(tool, 0.0) > 0)


def saved_usd(model: str, usage: Usage, prices: Prices) -> float | None:
    """Return what a model's cache saved of the price of some calls together; None for a model without a price.

    Negative when more was written than read. Prices of long prompts are left out, as a sum does not tell which were
    long: of those more was saved.
    """
    price = price_of(model, prices)
    if price is None:
        return None
    hour_tokens = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
    return (
        usage.cache_read_tokens * (price.input - price.cache_read)
        + (usage.cache_write_tokens - hour_tokens) * (price.input - price.cache_write)
        + hour_tokens * (price.input - price.hour)
    ) / _PER_MILLION


@cache
def _built_in() -> Prices:
    return _read(resources.files(__package__).joinpath("prices.toml").read_bytes())


def _read(text: bytes) -> Prices:
    """Return the prices of a TOML file. Raises `ValueError` for what is none."""
    found = msgspec.toml.decode(text)
    tools = msgspec.convert(found.pop(_TOOLS, {}), type=dict[str, _Usd])
    prices = Prices(models=msgspec.convert(found, type=dict[str, Price]), server_tools=tools)
    numbers = [number for price in prices.models.values() for number in (price.dearest_input, price.dearest_output)]
    if not all(map(math.isfinite, (*numbers, *tools.values()))):
        raise ValueError("a price that is no finite number")
    return prices
