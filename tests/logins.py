"""What a server that checks its clients needs in tests: certificates, NKeys, and JWTs of an operator."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import nkeys


class Key:
    """An NKey: of an operator, an account or a user."""

    def __init__(self, kind: int) -> None:
        """`kind` is one of `nkeys.PREFIX_BYTE_…`."""
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def signed(self, subject: Key, name: str, claims: dict[str, Any]) -> str:
        """Return a JWT in which this key vouches for another."""
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public}
        body["nats"] = {"version": 2, **claims}
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(map(_encoded, (json.dumps(head).encode(), json.dumps(body).encode())))
        return f"{text}.{_encoded(self._pair.sign(text.encode()))}"


def operator_mode(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return the options of a server whose accounts are JWTs, and a credentials file of one of its users."""
    operator, user = Key(nkeys.PREFIX_BYTE_OPERATOR), Key(nkeys.PREFIX_BYTE_USER)
    account, system = Key(nkeys.PREFIX_BYTE_ACCOUNT), Key(nkeys.PREFIX_BYTE_ACCOUNT)
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    limits = {**unlimited, **storage, "wildcards": True}
    of_account = operator.signed(account, "team", {"type": "account", "limits": limits})
    of_system = operator.signed(system, "system", {"type": "account", "limits": {**unlimited, "wildcards": True}})
    of_user = account.signed(user, "me", {"type": "user", "subs": -1, "data": -1, "payload": -1})
    creds = folder / "me.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    options = {
        "operator": operator.signed(operator, "us", {"type": "operator"}),
        "resolver": "MEMORY",
        "resolver_preload": {account.public: of_account, system.public: of_system},
        "system_account": system.public,
    }
    return options, creds


def certificates(folder: Path) -> dict[str, Path]:
    """Make an authority, and certificates of a server at 127.0.0.1 and of a client, with their keys."""
    files = {
        name: folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key")
    }
    _openssl("req", "-x509", *_NEW, "-keyout", files["ca.key"], "-out", files["ca.pem"], "-subj", "/CN=test authority")
    for name in ("server", "client"):
        signed_by = ("-CA", files["ca.pem"], "-CAkey", files["ca.key"])
        named = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
        made = ("-keyout", files[f"{name}.key"], "-out", files[f"{name}.pem"])
        _openssl("req", "-x509", *_NEW, *signed_by, *named, *made, "-addext", "basicConstraints=critical,CA:FALSE")
    return files


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
