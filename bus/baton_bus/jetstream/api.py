"""The subjects of the JetStream API. No other module makes them: in some accounts they begin with other words.

An account that has no streams of its own may have imported those questions about another's that it may ask, under a
prefix (`baton-api.STREAM.INFO.*`); and the streams of a JetStream domain are asked at `$JS.{domain}.API`. What was not
imported has no listener, and the server says so (503).
"""

from __future__ import annotations

import re

DEFAULT_PREFIX = "$JS.API"
_PREFIX = re.compile(r"[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*")


def is_prefix(text: str) -> bool:
    """Say whether the API can be asked under this: tokens of a subject without wildcards."""
    return _PREFIX.fullmatch(text) is not None


class Api:
    """Where what is asked of JetStream."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        """`prefix` as `is_prefix` accepts it."""
        self.prefix = prefix

    def account(self) -> str:
        """Return where the account's limits and use are asked."""
        return f"{self.prefix}.INFO"

    def names(self) -> str:
        """Return where the names of streams are asked."""
        return f"{self.prefix}.STREAM.NAMES"

    def info(self, stream: str) -> str:
        """Return where a stream is looked at."""
        return f"{self.prefix}.STREAM.INFO.{stream}"

    def create(self, stream: str) -> str:
        """Return where a stream is made."""
        return f"{self.prefix}.STREAM.CREATE.{stream}"

    def update(self, stream: str) -> str:
        """Return where a stream is changed."""
        return f"{self.prefix}.STREAM.UPDATE.{stream}"

    def purge(self, stream: str) -> str:
        """Return where messages of a stream are removed."""
        return f"{self.prefix}.STREAM.PURGE.{stream}"

    def delete(self, stream: str) -> str:
        """Return where one message of a stream is removed, by its sequence."""
        return f"{self.prefix}.STREAM.MSG.DELETE.{stream}"

    def get(self, stream: str) -> str:
        """Return where the leader of a stream is asked for a message."""
        return f"{self.prefix}.STREAM.MSG.GET.{stream}"

    def direct(self, stream: str) -> str:
        """Return where any replica is asked for messages; with a dot and a subject behind it, for the last on that."""
        return f"{self.prefix}.DIRECT.GET.{stream}"

    def consumers(self, stream: str) -> str:
        """Return where the consumers of a stream are listed."""
        return f"{self.prefix}.CONSUMER.LIST.{stream}"

    def consumer(self, stream: str, consumer: str) -> str:
        """Return where a consumer is looked at."""
        return f"{self.prefix}.CONSUMER.INFO.{stream}.{consumer}"

    def make_consumer(self, stream: str, consumer: str) -> str:
        """Return where a consumer of this name, without a filter in the subject, is made."""
        return f"{self.prefix}.CONSUMER.CREATE.{stream}.{consumer}"

    def remove_consumer(self, stream: str, consumer: str) -> str:
        """Return where a consumer is removed."""
        return f"{self.prefix}.CONSUMER.DELETE.{stream}.{consumer}"

    def pull(self, stream: str, consumer: str) -> str:
        """Return where a consumer is asked for messages."""
        return f"{self.prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
