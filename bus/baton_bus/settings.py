"""Settings of the bus: frozen, read once at the edge from `BATON_…` variables, then passed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from baton_schemas.wire.names import check_token

REPLICAS = (1, 3, 5)
"""An even number of copies survives no more faults than the odd one below it."""


class Settings(Struct, frozen=True, kw_only=True):
    """Where the bus is and what it may take. Each is also an environment variable: `url` is `BATON_URL`."""

    url: str = "nats://127.0.0.1:4222"
    """One server, or several of a cluster separated by commas."""
    namespace: str = "baton"
    """First token of every subject, and the name of the stream: systems that share a server differ in it."""
    creds: str = ""
    """Path of a NATS credentials file."""
    replicas: int = 1
    """Copies of the log, the timers and the blobs in a cluster: 1, 3 or 5. A stream with fewer gets as many; one with
    more keeps them, so that a client which leaves this out never takes copies away."""
    placement_cluster: str = ""
    """The cluster of a super-cluster in which streams are made; empty leaves it to the server."""
    placement_tags: str = ""
    """Tags that servers must have to hold copies, separated by commas. Both are used when a stream is made; moving one
    later is for an operator (`nats stream edit`), or two clients with different settings would move it in turns."""
    max_bytes: int = -1
    """Size of the log at which the server refuses new work, in bytes; -1 is no limit of ours."""
    inline_limit_bytes: int = 256 * 1024
    """A larger value becomes a blob: several values must fit in one message, and a server takes 1 MiB."""
    branches_max: int = 10_000
    """Branches of one fan-out: a larger one is more likely a mistake, and its join record must fit a message."""
    lease_s: float = 15.0
    """`ack_wait`: how soon the handoff of a dead worker comes back. Kept alive at a third of this."""
    connect_timeout_s: float = 5.0
    """Of the first connection; later ones are tried until they succeed."""
    request_timeout_s: float = 5.0
    """After this a publish or a read without an answer is sent again: a leader election takes up to 5 s."""
    patience_s: float = 30.0
    """How long a client's call goes on sending again before it gives up with `BusUnavailable`."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, **given: object) -> Settings:
        """Read the settings; what is `given` (and not None) wins. Raises `ValueError` naming the variable."""
        values: dict[str, object] = {}
        for name, kind in cls.__annotations__.items():
            variable = f"BATON_{name.upper()}"
            if environ.get(variable):
                try:
                    values[name] = msgspec.convert(environ[variable], _TYPES[kind], strict=False)
                except msgspec.ValidationError as error:
                    raise ValueError(f"{variable}={environ[variable]!r}: {error}") from error
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        check_token("namespace", self.namespace)
        if self.replicas not in REPLICAS:
            raise ValueError(f"replicas is {self.replicas}; expected 1, 3 or 5")
        if self.lease_s < 0.5:
            raise ValueError(f"lease_s is {self.lease_s}; expected at least 0.5 s, or leases lapse while kept")

    @property
    def servers(self) -> list[str]:
        """The URLs, one by one."""
        return _items(self.url)

    @property
    def tags(self) -> list[str]:
        """The tags, one by one."""
        return _items(self.placement_tags)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float}
