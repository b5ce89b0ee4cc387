"""Settings: one that cannot be used is told by its variable, and no secret is shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from baton_bus import Settings
from baton_bus.addresses import redacted
from baton_bus.errors import BadSetting

SECRETS = ("hunter2", "s3cret", "t0ken")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("url", url) for url in ("", " ", ",", " , ", "nats://", "nats://:4222", "http://a:4222", "ws://a:80")),
        *(("url", url) for url in ("nats://a:0", "nats://a:65536", "nats://a:x", "nats://a b:1", "::1", "nats://[::1")),
        *(("url", url) for url in ("nats://a:4222/x", "nats://a, nats://b:99999", "nats://a;nats://b", "nats://a\nb")),
        *(("namespace", text) for text in ("", "a b", "a.b", "a*", "x" * 65)),
        *(("api_prefix", text) for text in ("", "$JS.API.", ".a", "a b", "a.*", "a.>")),
        *(("replicas", number) for number in (0, 2, 4, 7, -1, 3.0, True)),
        *(("max_bytes", number) for number in (0, -2, 2**63)),
        *(("inline_limit_bytes", number) for number in (0, -1, 2**40, 1.5)),
        *(("branches_max", number) for number in (0, -1, 10**9)),
        *(("lease_s", number) for number in (0, 0.4, -1, 1e30, math.nan, math.inf, "15", None)),
        *(
            (name, number)
            for name in ("connect_timeout_s", "request_timeout_s", "patience_s")
            for number in (0, -1.0, 1e30, math.nan, math.inf, -math.inf, True)
        ),
        ("password", 5),
        ("creds", None),
    ],
)
def test_setting_that_cannot_be_used_is_refused_by_its_variable(name: str, value: Any) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings(**{name: value})
    assert caught.value.variable == f"BATON_{name.upper()}"
    assert caught.value.expected in str(caught.value)
    assert isinstance(caught.value, ValueError), "as a constructor's mistake is told everywhere in Python"


@pytest.mark.parametrize(
    ("variable", "text"),
    [("BATON_LEASE_S", "soon"), ("BATON_LEASE_S", "nan"), ("BATON_REPLICAS", "3.5"), ("BATON_URL", " ")],
)
def test_variable_that_cannot_be_read_is_told_with_what_was_found(variable: str, text: str) -> None:
    with pytest.raises(BadSetting, match=f"^{variable} is ") as caught:
        Settings.from_environ({variable: text})
    assert str(caught.value.found) == text


def test_empty_variables_are_none_and_what_is_given_goes_over_them() -> None:
    assert Settings.from_environ({"BATON_URL": "", "BATON_USER": ""}) == Settings()
    given = Settings.from_environ({"BATON_LEASE_S": "nonsense", "BATON_PATIENCE_S": "2"}, lease_s=3.0)
    assert (given.lease_s, given.patience_s) == (3.0, 2.0)


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:4222",
        "nats://a",
        "tls://a:4222",
        "nats://[::1]:4222",
        "nats://u:p@a:1, b:2 ,",
        "NATS://a",
    ],
)
def test_address_that_nats_takes_is_taken(url: str) -> None:
    assert not [server for server in Settings(url=url).servers if server != server.strip() or "NATS" in server]


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        ({"user": "u"}, "BATON_PASSWORD"),
        ({"password": "hunter2"}, "BATON_USER"),
        ({"tls_cert": "a.pem"}, "BATON_TLS_KEY"),
        ({"tls_key": "a.pem"}, "BATON_TLS_CERT"),
        ({"creds": "a", "token": "t0ken"}, "BATON_CREDS and BATON_TOKEN"),
    ],
)
def test_login_that_is_half_or_double_is_refused(given: dict[str, str], variable: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Settings(**given)  # type: ignore[arg-type]
    assert caught.value.variable == variable
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_no_secret_is_in_what_settings_show() -> None:
    settings = Settings(url="nats://me:hunter2@a:4222, tls://s3cret@b", token="t0ken")
    assert settings.shown_url == "nats://***@a:4222, tls://***@b"
    assert not [secret for secret in SECRETS if secret in repr(settings) + str(settings)]
    assert "lease_s=15.0" in repr(settings)
    assert Settings().shown_url == "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    "text",
    [
        "me:hunter2@host",
        "nats://me:hun/ter2@host:1",
        "a:4222,me:hunter2@host",
        "tls://me:hunter2@@host",
        "no://hunter2@x",
    ],
)
def test_login_is_taken_out_of_whatever_is_shown(text: str) -> None:
    shown = redacted(text)
    assert "hun" not in shown
    assert "***@" in shown


def test_bad_address_is_told_without_its_login() -> None:
    with pytest.raises(BadSetting) as caught:
        Settings(url="nats://me:hunter2@host:99999")
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert "***@host:99999" in str(caught.value)
