"""How we log in, from the settings: what nats-py is given, with files that cannot be read told as such."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from baton_bus.errors import BadSetting
from baton_bus.settings import Settings, variable

_CREDS = "a credentials file with a JWT and a seed, as `nsc` makes"


def login_options(settings: Settings) -> dict[str, Any]:
    """Return the options of `nats.aio.client.Client.connect` for login and TLS. Raises `BadSetting`."""
    options: dict[str, Any] = {}
    if settings.creds:
        if "-----BEGIN USER NKEY SEED-----" not in _text(settings, "creds"):
            raise BadSetting(variable("creds"), settings.creds, _CREDS)
        options["user_credentials"] = str(Path(settings.creds).expanduser())
    if settings.nkey:
        options["nkeys_seed_str"] = _seed(settings)
    if settings.user:
        options |= {"user": settings.user, "password": settings.password}
    if settings.token:
        options["token"] = settings.token
    if settings.needs_tls:
        options["tls"] = _tls(settings)
    return options


def _seed(settings: Settings) -> str:
    import nkeys  # a tenth of a second that nobody else should wait for

    seed = _text(settings, "nkey").strip()
    try:
        nkeys.from_seed(bytearray(seed.encode()))
    except (nkeys.NkeysError, ValueError) as error:
        raise BadSetting(variable("nkey"), settings.nkey, "a file that holds the seed of a user (SU…)") from error
    return seed


def _tls(settings: Settings) -> ssl.SSLContext:
    for name in ("tls_ca", "tls_cert", "tls_key"):
        if getattr(settings, name):
            _text(settings, name)
    try:
        context = ssl.create_default_context(cafile=_path(settings.tls_ca))
    except ssl.SSLError as error:
        raise BadSetting(variable("tls_ca"), settings.tls_ca, "certificates in PEM") from error
    if settings.tls_cert:
        try:
            # An encrypted key would otherwise be asked for on the terminal.
            context.load_cert_chain(str(_path(settings.tls_cert)), _path(settings.tls_key), password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            both = f"{variable('tls_cert')} and {variable('tls_key')}"
            found = f"{settings.tls_cert} and {settings.tls_key}"
            raise BadSetting(both, found, "a certificate and its key in PEM, without a passphrase") from error
    return context


def _text(settings: Settings, name: str) -> str:
    """Return what is in the file of a setting."""
    path = getattr(settings, name)
    try:
        return Path(path).expanduser().read_text("ascii", errors="replace")
    except OSError as error:
        raise BadSetting(variable(name), path, f"a file that can be read ({error.strerror})") from error


def _path(setting: str) -> Path | None:
    return Path(setting).expanduser() if setting else None
