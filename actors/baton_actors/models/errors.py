"""The one error of model calls, and how HTTP statuses and headers become it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class ModelError(Exception):
    """A model call gave no usable answer.

    `type` is the API's error type (`rate_limit_error`) or one of ours: `timeout`, `connection`,
    `broken_answer`, `refusal`, `no_credentials`, `bad_setting`. `retryable` says whether the same call may
    well work later; `retry_after_s` is the least wait that the server asked for, already capped.
    """

    def __init__(
        self,
        *,
        type: str,
        message: str,
        retryable: bool,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        """`message` says what happened and what to do next."""
        self.type, self.message, self.retryable = type, message, retryable
        self.retry_after_s, self.request_id = retry_after_s, request_id
        super().__init__(message)


_RETRYABLE_STATUSES = frozenset({408, 409, 429})
"""Besides every 5xx. The same ones as the SDK's own retries take."""

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

_NEXT_STEPS = {
    400: "correct the model name, prompt or max_tokens of the agent",
    401: "check {credential}",
    402: "check the billing of the account that {credential} belongs to",
    403: "check that the account of {credential} may use the model {model!r}",
    404: "check the model name {model!r} and ANTHROPIC_BASE_URL (now {host})",
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


def next_step(status: int, retryable: bool, *, credential: str, model: str, host: str) -> str:
    """Return what the user can do about this status, as the end of a sentence."""
    default = "nothing to do unless this goes on" if retryable else "correct the request"
    return _NEXT_STEPS.get(status, default).format(credential=credential, model=model, host=host)


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
            except ValueError:
                return None
    return min(max(wait_s, 0.0), cap_s)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
