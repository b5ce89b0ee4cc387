"""Logs of Baton's processes: events with run, step and actor bound, to stderr; for people or as JSON."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, Self, TextIO, cast, get_args

import structlog
from msgspec import Struct
from structlog.typing import Processor

from baton_actors.steps.logged import add_fields

_IN_URL = re.compile(r"((?:nats|tls|wss?)://)[^\s,]+@|(?<=://)[^\s/]+@")
"""What a URL has before its host, up to the last @; of servers even with slashes, which nobody may have escaped."""

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class LogSettings(Struct, frozen=True, kw_only=True):
    """How to log."""

    format: LogFormat = "console"
    level: LogLevel = "info"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, *, level: LogLevel = "info") -> Self:
        """Read `BATON_LOG_FORMAT` and `BATON_LOG_LEVEL`; without them: console on a terminal, else JSON; `level`.

        Raises `ValueError` naming the variable.
        """
        default: LogFormat = "console" if sys.stderr.isatty() else "json"
        return cls(
            format=_one_of(LogFormat, environ, "BATON_LOG_FORMAT", default),
            level=_one_of(LogLevel, environ, "BATON_LOG_LEVEL", level),
        )


def configure(settings: LogSettings) -> None:
    """Set up the logs of this process. Call it once, before the first event."""
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_fields,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if settings.format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=_has_colors(), exception_formatter=plain)]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )


def without_secrets(text: str) -> str:
    """Return the text with user, password or token of each URL in it replaced: `nats://***@host`."""
    return _IN_URL.sub(r"\1***@", text)


class _Stderr:
    """Standard error as it is at each event, but for secrets.

    When nobody reads it any more (`| head`), no work stops for that.
    """

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(without_secrets(text))

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _has_colors() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org


def _one_of(kind: Any, environ: Mapping[str, str], variable: str, default: str) -> Any:
    value = environ.get(variable, "").strip().lower() or default
    known = get_args(kind)
    if value not in known:
        raise ValueError(f"{variable}={environ[variable]!r}: expected one of {', '.join(known)}")
    return value
