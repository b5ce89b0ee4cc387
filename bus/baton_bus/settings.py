"""Settings of the bus: frozen, read once at the edge from `BATON_…` variables, then passed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from baton_bus.addresses import check_address, redacted
from baton_bus.errors import BadSetting
from baton_bus.jetstream.api import DEFAULT_PREFIX, is_prefix
from baton_schemas.errors import BadToken
from baton_schemas.flow.budgets import is_amount
from baton_schemas.wire.names import check_token

REPLICAS = (1, 3, 5)
"""An even number of copies survives no more faults than the odd one below it."""
_SECRETS = frozenset({"password", "token"})
_BOUNDS: dict[str, tuple[float, float, str]] = {
    "inline_limit_bytes": (1, 64 * 1024 * 1024, "bytes from 1 to 64 MiB, the largest message that a server takes"),
    "branches_max": (1, 1_000_000, "a number from 1 to 1,000,000"),
    "lease_s": (0.5, 24 * 3600, "seconds from 0.5 (or leases lapse while they are kept) to a day"),
    "connect_timeout_s": (0.01, 3600, "seconds from 0.01 to an hour"),
    "request_timeout_s": (0.01, 3600, "seconds from 0.01 to an hour"),
    "patience_s": (0.01, 24 * 3600, "seconds from 0.01 to a day"),
}
"""The least, the most, and both in words."""
NO_LIMIT = -1
_MAX_BYTES_MOST = 2**63 - 1
"""What the server can count."""


class Settings(Struct, frozen=True, kw_only=True):
    """Where the bus is and what it may take. Each is also an environment variable: `url` is `BATON_URL`.

    Raises `BadSetting` when one cannot be used. Its `repr` holds no secret.
    """

    url: str = "nats://127.0.0.1:4222"
    """One server, or several of a cluster separated by commas. It may hold a login: show `shown_url` instead."""
    namespace: str = "baton"
    """First token of every subject, and the name of the stream: systems that share a server differ in it."""
    api_prefix: str = DEFAULT_PREFIX
    """Where JetStream is asked: another prefix in an account that has imported the questions which it may ask (in
    deploy/users.conf `baton-api`), or for the streams of a domain (`$JS.hub.API`)."""
    creds: str = ""
    """Path of a NATS credentials file: a JWT and its seed, for servers with decentralized accounts."""
    nkey: str = ""
    """Path of a file with the seed of an NKey."""
    user: str = ""
    """Name for a server that asks for a user and a password."""
    password: str = ""
    """Its password. Out of the URL it may hold any character."""
    token: str = ""
    """For a server that asks for a token."""
    tls_ca: str = ""
    """Path of the certificates (PEM) that the server's is checked against; the system's when empty. With any of the
    three, a server without TLS is refused, whatever the URL says."""
    tls_cert: str = ""
    """Path of our own certificate (PEM), for a server that asks who we are."""
    tls_key: str = ""
    """Path of its key (PEM)."""
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

    budget_usd_per_day: float = NO_LIMIT
    """What all runs of the namespace may spend on models in a day of UTC, in USD; -1 is no limit. Workers keep it."""
    budget_tokens_per_day: int = NO_LIMIT
    """The same in tokens, read and written."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, /, **given: object) -> Settings:
        """Read the settings; what is `given` (and not None) wins, and an empty variable is none.

        Raises `BadSetting` naming the variable.
        """
        values: dict[str, object] = {}
        for name, kind in cls.__annotations__.items():
            text = environ.get(variable(name), "")
            if not text or given.get(name) is not None:
                continue
            try:
                values[name] = msgspec.convert(text, _TYPES[kind], strict=False)
            except msgspec.ValidationError as error:
                raise BadSetting(variable(name), text, _KINDS[kind]) from error
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        for name, kind in self.__annotations__.items():
            value = getattr(self, name)
            right = (int, float) if kind == "float" else _TYPES[kind]
            if not isinstance(value, right) or isinstance(value, bool):
                raise _bad(name, value, _KINDS[kind])
        for name, (least, most, expected) in _BOUNDS.items():
            if not least <= getattr(self, name) <= most:  # false for NaN too
                raise _bad(name, getattr(self, name), expected)
        if self.replicas not in REPLICAS:
            raise _bad("replicas", self.replicas, "1, 3 or 5")
        if self.max_bytes != -1 and not 0 < self.max_bytes <= _MAX_BYTES_MOST:
            raise _bad("max_bytes", self.max_bytes, "a number of bytes, or -1 for no limit")
        for name in ("budget_usd_per_day", "budget_tokens_per_day"):
            amount = getattr(self, name)
            if amount != NO_LIMIT and not is_amount(name.removeprefix("budget_"), amount):
                unit = "USD" if "usd" in name else "tokens"
                raise _bad(name, amount, f"a number of {unit} that is more than 0, or -1 for no limit")
        try:
            check_token("namespace", self.namespace)
        except BadToken as error:
            raise _bad("namespace", self.namespace, "1 to 64 characters of A-Z a-z 0-9 _ -") from error
        if not is_prefix(self.api_prefix):
            raise _bad("api_prefix", self.api_prefix, f"a subject without wildcards, as {DEFAULT_PREFIX} or baton-api")
        self._check_servers()
        self._check_login()

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        hidden = {name: "***" for name in _SECRETS if shown[name]} | {"url": self.shown_url}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in (shown | hidden).items())})"

    @property
    def servers(self) -> list[str]:
        """The URLs, one by one, logins included."""
        # nats-py knows a scheme only in small letters.
        return [re.sub(r"^\w+://", lambda scheme: scheme[0].lower(), server) for server in _items(self.url)]

    @property
    def shown_url(self) -> str:
        """The URL for people and logs: `***@` stands for a login."""
        return redacted(self.url)

    @property
    def tags(self) -> list[str]:
        """The tags, one by one."""
        return _items(self.placement_tags)

    @property
    def needs_tls(self) -> bool:
        """Whether a server without TLS is refused even at a `nats://` URL."""
        return bool(self.tls_ca or self.tls_cert)

    def _check_servers(self) -> None:
        if not self.servers:
            raise _bad("url", self.url, "nats://host:port, or several with commas between them")
        for server in self.servers:
            if wrong := check_address(server):
                raise _bad("url", redacted(server), wrong)

    def _check_login(self) -> None:
        ways = [name for name in ("creds", "nkey", "user", "token") if getattr(self, name)]
        if len(ways) > 1:
            both = " and ".join(map(variable, ways))
            raise BadSetting(both, "both set", "one way to log in: leave all but one out")
        if bool(self.user) != bool(self.password):
            missing, other = ("password", "user") if self.user else ("user", "password")
            raise _bad(missing, "", f"a value, as {variable(other)} is set")
        if bool(self.tls_cert) != bool(self.tls_key):
            missing, other = ("tls_key", "tls_cert") if self.tls_cert else ("tls_cert", "tls_key")
            raise _bad(missing, "", f"a path, as {variable(other)} is set")


NO_LOGIN = {
    **dict.fromkeys(("creds", "nkey", "user", "password", "token", "tls_ca", "tls_cert", "tls_key"), ""),
    "api_prefix": DEFAULT_PREFIX,
}
"""Given to `from_environ` for a server whose URL says all: what the environment says of another does not fit it."""


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"BATON_{name.upper()}"


def _bad(name: str, found: object, expected: str) -> BadSetting:
    return BadSetting(variable(name), "a secret that cannot be used" if name in _SECRETS and found else found, expected)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


_TYPES: dict[str, type] = {"str": str, "int": int, "float": float}
_KINDS = {"str": "text", "int": "a whole number", "float": "a number"}
