"""What of a prompt was in the provider's cache, and what that saved, as people see it."""

from __future__ import annotations

from baton_actors.cli.show.costs import dollars
from baton_schemas.wire.outcomes import Usage


def cached_of(usage: Usage) -> str:
    """Return what stands behind the tokens of a prompt: how many were read from the cache, and how many written."""
    parts = [f"{usage.cache_read_tokens:,} cached"] if usage.cache_read_tokens else []
    parts += [f"{usage.cache_write_tokens:,} written to the cache"] if usage.cache_write_tokens else []
    return f" ({', '.join(parts)})" if parts else ""


def saving_of(value_usd: float | None) -> str:
    """Return what caching saved, or cost more, in words; nothing where nothing was cached, or there is no price."""
    if not value_usd:
        return ""
    return f"caching saved {dollars(value_usd)}" if value_usd > 0 else f"caching cost {dollars(-value_usd)} more"
