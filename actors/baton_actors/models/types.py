"""What a model call takes and gives, and the settings that say where it goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from baton_actors.models.content import Block
from baton_actors.models.errors import ModelError
from baton_actors.models.texts import without_secrets
from baton_schemas.show.asked import Asked
from baton_schemas.wire.outcomes import Usage

DEFAULT_BASE_URL = "https://api.anthropic.com"

PLACEHOLDER_KEY = "none"
"""Sent as the key when only a base URL is set: local servers want no key, but the SDK wants some."""

_SECRETS = frozenset({"api_key", "auth_token"})
_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


class ModelRequest(Asked, frozen=True, kw_only=True):
    """One call: what is asked, and how long it may take. With tools, the answer has its content blocks."""

    timeout_s: float
    """Bound on the whole call, from the request to the last chunk."""
    flow: str = ""
    """The flow whose providers its model may name."""
    fallback: tuple[str, ...] = ()
    """Models that are asked in its place while it is overloaded; what they answer is the answer to this."""
    warm: bool = False
    """Whether it waits for the first of those that have a prefix in common with it."""
    files: Mapping[str, bytes] = {}
    """The bytes of the files in the prompt, by their SHA-256: at hand only while the call is made."""


class Bound(Struct, frozen=True, kw_only=True):
    """What is known of a call before it is made: what it may take at the most, and how it may wait."""

    model: str
    input_tokens: int
    """An estimate, by the size of what is sent."""
    output_tokens: int
    """Its `max_tokens`."""
    server_tools: dict[str, int] = {}
    """How often the provider's own tools may be used, as far as the call has a limit of that."""
    unlimited: tuple[str, ...] = ()
    """Those of them that it may use as often as the model likes."""
    endless: tuple[str, ...] = ()
    """Those of these that have a price (`Models.priced`)."""
    cost_usd: float | None = None
    """What it may cost, at list prices (`Models.priced`); None for a model without a price, or without an end."""
    rehearsed: bool = False
    """No model is called: it takes nothing."""
    holds: bool = False
    """It waits where it is, however long; else its step may be let go of until its turn has come."""
    patience_s: float | None = None
    """When the provider asks to wait for longer, another model is asked."""


class ModelAnswer(Struct, frozen=True, kw_only=True):
    """What the model answered, and what it took."""

    text: str
    model: str
    """The model that answered, as the server names it."""
    stop_reason: str
    usage: Usage
    cost_usd: float | None
    """List price of the call; None for a model without a price, 0.0 for a rehearsal."""
    truncated: bool
    """The answer was cut at `max_tokens`, or at the end of the model's context."""
    rehearsed: bool
    """No model was called: the text is an extract from the prompt."""
    request_id: str
    """The API's id of the call, to quote to its support; empty when the server sends none."""
    content: list[Block] = []
    """The content blocks as they came (see `content.py`), of an answer to a request with tools."""
    container: str = ""
    """In which the provider ran code for it."""


class ModelSettings(Struct, frozen=True, kw_only=True):
    """Where model calls go, and as whom. Secrets are left out of its repr.

    Raises `ModelError` (`bad_setting`) for a value that could not be used in any call.
    """

    api_key: str = ""
    auth_token: str = ""
    """Used when there is no `api_key`."""
    base_url: str = ""
    """Any server with the Messages API; empty for Anthropic's own. Without a key, it gets a placeholder."""
    retry_after_max_s: float = 60.0
    """Cap on what `retry-after` may ask for where nothing is overloaded: "in six hours" must not hold a step."""
    rehearse: bool | None = None
    """None: rehearse when there is no key, no token and no base URL."""
    traceparent: bool = False
    """Whether requests carry the trace context of the spans that the SDK makes of them, where a tracer is set."""
    prices_path: str = ""
    """A TOML file whose prices go over those of `prices.toml`."""
    provider: str = ""
    """The provider of a flow that these are for; empty for what the environment says."""
    key_env: str = ""
    """The variable that has its key; empty for a provider that needs none."""

    def __post_init__(self) -> None:
        key, token = self.key_env or "ANTHROPIC_API_KEY", self.key_env or "ANTHROPIC_AUTH_TOKEN"
        for name, value in ((key, self.api_key), (token, self.auth_token)):
            if not all("!" <= char <= "~" for char in value):
                raise _bad(name, "has a space, a line break or a non-ASCII character in it: copy it again")
        if self.base_url and not _is_http(self.base_url):
            raise _bad(
                "ANTHROPIC_BASE_URL",
                f"is {without_secrets(self.base_url, ())!r}: expected http(s)://host[:port][/path]",
            )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> ModelSettings:
        """Read the settings from `ANTHROPIC_API_KEY`, `ANTHROPIC_AUTH_TOKEN`, `ANTHROPIC_BASE_URL`,
        `BATON_REHEARSE` (1 or 0), `BATON_TRACEPARENT` (1 or 0) and `BATON_PRICES`. White space alone counts as not
        set.
        """
        source = os.environ if environ is None else environ
        return cls(
            api_key=source.get("ANTHROPIC_API_KEY", "").strip(),
            auth_token=source.get("ANTHROPIC_AUTH_TOKEN", "").strip(),
            base_url=source.get("ANTHROPIC_BASE_URL", "").strip(),
            rehearse=_wish(source, "BATON_REHEARSE"),
            traceparent=_wish(source, "BATON_TRACEPARENT") or False,
            prices_path=source.get("BATON_PRICES", "").strip(),
        )

    @property
    def rehearses(self) -> bool:
        """Whether calls are answered by the rehearsal model."""
        if self.rehearse is not None:
            return self.rehearse
        return not (self.api_key or self.auth_token or self.base_url)

    @property
    def credential(self) -> str:
        """As whom calls are made, for errors: a variable."""
        if self.provider:
            return self.key_env or f"providers.{self.provider}.key_env (none is named)"
        if self.api_key:
            return "ANTHROPIC_API_KEY"
        return "ANTHROPIC_AUTH_TOKEN" if self.auth_token else "ANTHROPIC_API_KEY (not set)"

    @property
    def address(self) -> str:
        """What says where calls go, for errors."""
        return f"base_url of [providers.{self.provider}]" if self.provider else "ANTHROPIC_BASE_URL"

    @property
    def host(self) -> str:
        """Host and port that calls go to."""
        return urlsplit(self.base_url or DEFAULT_BASE_URL).netloc.rpartition("@")[2]

    def check_credentials(self) -> None:
        """Raise `ModelError` (`no_credentials`) when a rehearsal was declined and there is nobody to call as.

        A provider whose key is not set is rehearsed only where all is.
        """
        if self.provider and self.key_env and not (self.rehearses or self.api_key or self.auth_token):
            raise ModelError(
                type="no_credentials",
                message=f"no key for the provider {self.provider!r} of the flow: set {self.key_env} in the environment "
                "of its workers, or BATON_REHEARSE=1 to rehearse without a model",
                retryable=False,
            )
        if not (self.rehearses or self.api_key or self.auth_token or self.base_url):
            raise ModelError(
                type="no_credentials",
                message="no credentials for the model API: set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for a "
                "server that needs none, or unset BATON_REHEARSE to rehearse without a model",
                retryable=False,
            )

    def hide(self, text: str) -> str:
        """Return the text without the key, the token, and user or password of the base URL."""
        parts = urlsplit(self.base_url)
        given = [parts.password or "", parts.username or ""]
        return without_secrets(text, (self.api_key, self.auth_token, *given, *map(unquote, given)))

    def __repr__(self) -> str:
        return f"ModelSettings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        shown = [(name, without_secrets(value, ()) if isinstance(value, str) else value) for name, value in fields]
        return [(name, "***" if value and name in _SECRETS else value) for name, value in shown]


def request_digest(request: ModelRequest, settings: ModelSettings) -> str:
    """Return the hash by which a recorded answer is found again: SHA-256, in hex, of what is asked and of whom.

    In it: all of `Asked`, and whether the call is rehearsed, so that a rehearsed answer is not reused once there is a
    key. Not in it: how long we wait, the credentials, and the base URL: the model names what answers, and a run that
    moves to another gateway must not pay twice.
    """
    return request.digest(rehearses=settings.rehearses)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _wish(environ: Mapping[str, str], variable: str) -> bool | None:
    """Return what a variable wishes; None when it is not set."""
    wish = environ.get(variable, "").strip().lower()
    if wish and wish not in _YES | _NO:
        raise _bad(variable, f"is {wish!r}: expected 1 or 0, or leave it unset")
    return wish in _YES if wish else None


def _bad(variable: str, what: str) -> ModelError:
    return ModelError(type="bad_setting", message=f"{variable} {what}", retryable=False)
