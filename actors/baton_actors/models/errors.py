"""The one error of model calls, and how HTTP statuses and headers become it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from baton_schemas.wire.outcomes import Usage


class ModelError(Exception):
    """A model call gave no usable answer.

    `type` is the API's error type (`rate_limit_error`) or one of ours: `timeout`, `connection`,
    `broken_answer`, `empty_answer`, `unasked_tool`, `refusal`, `overloaded` (of `Pace`: the patience has run out),
    `cancelled` (only ever given to `on_cut`), `no_credentials`, `bad_setting`.

    `retryable` says whether the same call may well work later. `overloaded` says that the provider asked to wait:
    that is no failed attempt, and `Pace` deals with it. `retry_after_s` is the least wait that the server asked
    for; it is capped at `RETRY_AFTER_MAX_S`, and at the setting's `retry_after_max_s` where nothing is overloaded.

    What the call took until it failed is in `usage` (None: no answer had begun), `cost_usd` and `model`. With
    `estimated`, the count of output tokens is a guess from the text that came.
    """

    def __init__(
        self,
        *,
        type: str,
        message: str,
        retryable: bool,
        overloaded: bool = False,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        """`message` says what happened and what to do next."""
        self.type, self.message, self.retryable, self.overloaded = type, message, retryable, overloaded
        self.retry_after_s, self.request_id = retry_after_s, request_id
        self.usage: Usage | None = None
        self.cost_usd: float | None = None
        self.model = ""
        self.estimated = False
        self.request_sha256 = ""
        """The hash of what was asked, where that is known."""
        super().__init__(message)

    def took(self, usage: Usage, *, cost_usd: float | None, model: str, estimated: bool) -> None:
        """Note what the call took until it failed."""
        self.usage, self.cost_usd, self.model, self.estimated = usage, cost_usd, model, estimated

    def took_as(self, other: ModelError) -> None:
        """Note that this error stands for the other one, with what its call took."""
        self.usage, self.cost_usd, self.model, self.estimated = (
            other.usage,
            other.cost_usd,
            other.model,
            other.estimated,
        )


RETRY_AFTER_MAX_S = 24 * 3600.0
"""A server that asks for more than a day means something else than a wait."""

_RETRYABLE_STATUSES = frozenset({408, 409, 429})
"""Besides every 5xx. The same ones as the SDK's own retries take."""

_OVERLOADED_STATUSES = frozenset({429, 529})
_OVERLOADED_TYPES = frozenset({"overloaded_error", "rate_limit_error"})
"""Inside a stream they come with status 200, and from some gateways with 500 or 503."""

_FINAL_TYPES = frozenset(
    {
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "billing_error",
        "request_too_large",
    }
)
"""Error events inside a stream come with status 200; these types say that the same call fails again."""

_BAD_REQUEST_STATUSES = frozenset({400, 422})
_NEXT_STEPS = {
    400: "correct the model name, prompt or max_tokens of the agent",
    401: "check {credential}",
    402: "check the billing of the account that {credential} belongs to",
    403: "check that the account of {credential} may use the model {model!r}",
    404: "check the model name {model!r} and {address} (now {host})",
    413: "give the step less text, for instance by a fan-out over its parts",
    422: "correct the model name, prompt or max_tokens of the agent",
    429: "lower the concurrency of the actor if this goes on",
}


def is_retryable(status: int, type: str, headers: Mapping[str, str]) -> bool:
    """Whether the same call may work later; the server's own word (`x-should-retry`) goes first."""
    said = headers.get("x-should-retry", "")
    if said in ("true", "false"):
        return said == "true"
    if status < 400:
        return type not in _FINAL_TYPES
    return status in _RETRYABLE_STATUSES or status >= 500


def is_overloaded(status: int, type: str, headers: Mapping[str, str]) -> bool:
    """Whether the server asked to wait: 429, 529, 503 with a time, or such a type with whatever status.

    A refusal for good is none, though it comes with 429: the server says so (`x-should-retry`), or its type does.
    """
    if type in _FINAL_TYPES or not is_retryable(status, type, headers):
        return False
    if status in _OVERLOADED_STATUSES or type in _OVERLOADED_TYPES:
        return True
    return status == 503 and ("retry-after" in headers or "retry-after-ms" in headers)


def next_step(
    status: int, retryable: bool, *, credential: str, model: str, address: str, host: str, output: bool = False
) -> str:
    """Return what the user can do about this status, as the end of a sentence. `output`: a schema was sent."""
    if output and status in _BAD_REQUEST_STATUSES:
        return "correct the output, model name, prompt or max_tokens of the agent"
    default = "nothing to do unless this goes on" if retryable else "correct the request"
    return _NEXT_STEPS.get(status, default).format(credential=credential, model=model, address=address, host=host)


def retry_after_s(headers: Mapping[str, str], cap_s: float, now_s: float) -> float | None:
    """Return the wait that `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110) asks for.

    It is between 0 and `cap_s`; None when there is no such header, or it makes no sense.
    """
    wait_s = _number(headers.get("retry-after-ms"))
    if wait_s is not None:
        wait_s /= 1000
    else:
        value = headers.get("retry-after", "")
        wait_s = _number(value)
        if wait_s is None:
            try:
                wait_s = parsedate_to_datetime(value).timestamp() - now_s
            except (ValueError, OverflowError):
                return None
    return min(max(wait_s, 0.0), cap_s)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
