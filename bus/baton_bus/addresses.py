"""Addresses of NATS servers: what is wrong with one, and how it is shown without the login in it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LOGIN = re.compile(r"(?:(?<=//)|(?<![^\s,]))[^\s/,]*@")
"""What stands before the `@` of an address, with a scheme or without one."""
_LOGIN_WITH_MORE = re.compile(r"(?<=//)[^\s,]*@")
"""The same when a password holds slashes, which an address cannot, but which must not be shown either."""
_NATS = "nats://host:port"
_SCHEMES = ("nats", "tls")


def redacted(text: str) -> str:
    """Return text in which `***@` stands for the login of each address."""
    return _LOGIN.sub("***@", _LOGIN_WITH_MORE.sub("***@", text))


def check_address(server: str) -> str:
    """Return what was expected in place of an address that cannot be used; empty for a good one."""
    if any(character.isspace() or not character.isprintable() for character in server):
        return f"{_NATS} without spaces; with commas between several"
    try:
        parts = urlsplit(server if "://" in server else f"nats://{server}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{_NATS} with a port from 1 to 65535, and an IPv6 address in brackets (nats://[::1]:4222)"
    if parts.scheme not in _SCHEMES:
        return f"{_NATS}, or tls://host:port for a connection that is encrypted"
    if not host:
        return f"{_NATS}: the host is missing"
    if port == 0:
        return f"{_NATS} with a port from 1 to 65535"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f"{_NATS} and nothing behind it; a password with other characters goes into BATON_PASSWORD"
    return ""
