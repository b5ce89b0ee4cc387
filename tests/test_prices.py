"""What calls cost at list price, and how a user's own prices go over the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton_actors.models import ModelError, Models, ModelSettings, cost_usd, load_prices
from baton_schemas.wire.outcomes import Usage

from .model_servers import request_for

MILLION = Usage(input_tokens=1_000_000)
OWN = "[{model}]\ninput = 9\noutput = 9\ncache_read = 9\ncache_write = 9\n"


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=10_000, cache_write_tokens=2000)
    expected_usd = (1000 * 3 + 100 * 15 + 10_000 * 0.30 + 2000 * 3.75) / 1e6
    assert cost_usd("claude-sonnet-4-6", usage) == pytest.approx(expected_usd)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("claude-haiku-4-5", 1.0),
        ("claude-haiku-4-5-20251001", 1.0),
        ("claude-opus-4-5@20251101", 5.0),
        ("claude-sonnet-5", 2.0),
        ("claude-opus-5", 5.0),
        ("claude-opus-5-5", 4.0),
    ],
)
def test_snapshot_costs_what_its_model_costs(model: str, usd: float) -> None:
    assert cost_usd(model, MILLION) == pytest.approx(usd)


@pytest.mark.parametrize("model", ["", "llama3", "claude-opus-5-9", "claude-haiku-4-55"])
def test_unknown_model_has_no_cost_rather_than_a_wrong_one(model: str) -> None:
    assert cost_usd(model, MILLION) is None


def test_long_prompt_costs_more_where_the_model_says_so() -> None:
    short = Usage(input_tokens=60_000, cache_read_tokens=40_000)
    long = Usage(input_tokens=60_001, cache_read_tokens=40_000)
    assert cost_usd("claude-haiku-5-5", short) == pytest.approx((60_000 * 0.1 + 40_000 * 0.01) / 1e6)
    assert cost_usd("claude-haiku-5-5", long) == pytest.approx((60_001 * 0.5 + 40_000 * 0.05) / 1e6)


def test_what_is_cached_for_an_hour_costs_twice_the_input_or_what_the_price_says(tmp_path: Path) -> None:
    usage = Usage(cache_write_tokens=3_000_000, cache_write_1h_tokens=1_000_000)
    assert cost_usd("claude-sonnet-4-6", usage) == pytest.approx(2 * 3.75 + 6.0)
    own = tmp_path / "prices.toml"
    own.write_text(OWN.format(model="m") + "cache_write_1h = 20\n")
    assert cost_usd("m", usage, load_prices(str(own))) == pytest.approx(2 * 9 + 20)


def test_batch_costs_half_and_its_tools_what_they_cost() -> None:
    usage = Usage(input_tokens=1_000_000, server_tools={"web_search": 3, "web_fetch": 2})
    assert cost_usd("claude-sonnet-4-6", usage) == pytest.approx(3.0 + 0.03)
    assert cost_usd("claude-sonnet-4-6", usage, batch=True) == pytest.approx(1.5 + 0.03)


def test_tool_without_a_price_leaves_the_call_without_one(tmp_path: Path) -> None:
    usage = Usage(input_tokens=1_000_000, server_tools={"tell_fortune": 1})
    assert cost_usd("claude-sonnet-4-6", usage) is None
    own = tmp_path / "prices.toml"
    own.write_text("[server_tools]\ntell_fortune = 0.5\n")
    assert cost_usd("claude-sonnet-4-6", usage, load_prices(str(own))) == pytest.approx(3.5)


def test_own_prices_go_over_the_built_in_ones(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(OWN.format(model="llama3") + OWN.format(model="claude-haiku-4-5"))
    prices = load_prices(str(own))
    assert cost_usd("llama3", MILLION, prices) == 9.0
    assert cost_usd("claude-haiku-4-5", MILLION, prices) == 9.0
    assert cost_usd("claude-sonnet-4-6", MILLION, prices) == 3.0
    assert cost_usd("claude-haiku-4-5", MILLION) == 1.0


@pytest.mark.parametrize(
    "content",
    [
        "[m]\ninput = 'free'\n",
        "[m]\ninput = 1\n",
        "not toml",
        OWN.format(model="m") + "cache_write_1h = -1\n",
        OWN.format(model="m").replace("9", "inf"),
        "[server_tools]\nsearch = -1\n",
        None,
    ],
)
async def test_bad_price_file_is_refused_before_any_call(tmp_path: Path, content: str | None) -> None:
    own = tmp_path / "prices.toml"
    if content is not None:
        own.write_text(content)
    settings = ModelSettings.from_environ({"BATON_PRICES": str(own)})
    async with Models(settings) as models:
        with pytest.raises(ModelError, match="BATON_PRICES") as caught:
            await models.complete(request_for())
    assert str(own) in caught.value.message
    assert not caught.value.retryable
