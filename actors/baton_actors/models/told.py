"""What a provider says in the headers of its answers of how much it will take: `anthropic-ratelimit-*`. Pure.

It says its limit, what is left of it, and when all of it is there again. While much is left nobody need keep to it.
When little is, the calls that are under way in other processes may have it already: then all keep to the limit.

Source: https://docs.anthropic.com/en/api/rate-limits#response-headers
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from baton_schemas.flow.flow import Limit

_PREFIX = "anthropic-ratelimit-"
_LOW = 0.2
"""Of a limit. A process has up to a hundred calls under way, and there may be several processes."""
_COUNT_MAX = 10**9
KEPT_MIN_S, KEPT_MAX_S = 1.0, 300.0
"""For how long a limit that was heard is kept to. All of it is there again in a minute; the next answer says more."""


class Told(Struct, frozen=True, kw_only=True):
    """What all are to keep to, and for how many seconds from now."""

    limit: Limit
    for_s: float


def told_by(headers: Mapping[str, str], now_s: float) -> Told | None:
    """Return what is to be kept to, by the headers of an answer, at this time (seconds of Unix time).

    None where nothing is said, enough is left, or it makes no sense.
    """
    requests, for_requests_s = _low(headers, "requests", now_s)
    tokens, for_tokens_s = _low(headers, "tokens", now_s)
    if requests is None and tokens is None:
        return None
    limit = Limit(requests_per_minute=requests, tokens_per_minute=tokens)
    return Told(limit=limit, for_s=max(for_requests_s, for_tokens_s))


def lower(one: Limit | None, other: Limit | None) -> Limit | None:
    """Return what keeps to both."""
    if one is None or other is None:
        return one or other
    return Limit(
        requests_per_minute=_lower(one.requests_per_minute, other.requests_per_minute),
        tokens_per_minute=_lower(one.tokens_per_minute, other.tokens_per_minute),
        concurrency=_lower(one.concurrency, other.concurrency),
    )


def _low(headers: Mapping[str, str], what: str, now_s: float) -> tuple[int | None, float]:
    """Return a limit of which little is left, and for how long; None when enough is."""
    limit, left = (_count(headers.get(f"{_PREFIX}{what}-{each}", "")) for each in ("limit", "remaining"))
    if not limit or left is None or left > limit * _LOW:
        return None, 0.0
    try:
        reset_s = datetime.fromisoformat(headers.get(f"{_PREFIX}{what}-reset", "")).timestamp() - now_s
    except (ValueError, OverflowError):
        return None, 0.0
    if not math.isfinite(reset_s) or not -KEPT_MAX_S < reset_s < 24 * 3600.0:
        return None, 0.0
    return limit, min(max(reset_s, KEPT_MIN_S), KEPT_MAX_S)


def _count(said: str) -> int | None:
    return int(said) if said.isascii() and said.isdigit() and len(said) < 12 and int(said) <= _COUNT_MAX else None


def _lower(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
