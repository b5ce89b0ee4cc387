"""Logs of Baton's processes: events with run, step and actor bound, to stderr; for people or as JSON."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, Self, TextIO, cast, get_args

import structlog
from msgspec import Struct
from structlog.typing import Processor

from baton_actors.steps.logged import add_fields

_IN_URL = re.compile(r"((?:nats|tls|wss?)://)[^\s,]+@|(?<=://)[^\s/]+@")
"""What a URL has before its host, up to the last @; of servers even with slashes, which nobody may have escaped."""

_OURS = "baton."
"""What the names of Baton's own loggers begin with."""

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class LogSettings(Struct, frozen=True, kw_only=True):
    """How to log."""

    format: LogFormat = "console"
    level: LogLevel = "info"
    """Of what Baton says itself."""
    handlers: LogLevel = "info"
    """Of what handlers say with structlog."""
    logging: LogLevel = "warning"
    """Of what they say with `logging`, unless they set a level themselves: Python's own default."""
    colors: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, *, level: LogLevel = "info") -> Self:
        """Read `BATON_LOG_FORMAT` and `BATON_LOG_LEVEL`; without them: console on a terminal, else JSON; `level`.

        `level` is for Baton's own words only; the variable is for all that is logged. Raises `ValueError` naming the
        variable.
        """
        default: LogFormat = "console" if sys.stderr.isatty() else "json"
        return cls(
            format=_one_of(LogFormat, environ, "BATON_LOG_FORMAT", default),
            level=_one_of(LogLevel, environ, "BATON_LOG_LEVEL", level),
            handlers=_one_of(LogLevel, environ, "BATON_LOG_LEVEL", "info"),
            logging=_one_of(LogLevel, environ, "BATON_LOG_LEVEL", "warning"),
            colors=sys.stderr.isatty() and not environ.get("NO_COLOR"),  # https://no-color.org
        )


def configure(settings: LogSettings) -> None:
    """Set up the logs of this process. Call it once, before the first event."""
    ours, theirs = _number(settings.level), _number(settings.handlers)

    def loud_enough(logger: Any, _: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if _number(event["level"]) < (ours if logger.name.startswith(_OURS) else theirs):
            raise structlog.DropEvent
        return event

    structlog.configure(
        processors=[structlog.processors.add_log_level, loud_enough, *_first(), *_last(settings)],
        wrapper_class=structlog.make_filtering_bound_logger(min(ours, theirs)),
        logger_factory=lambda *names: _Logger(str(names[0]) if names else ""),
        cache_logger_on_first_use=True,
    )


def carry_logging(settings: LogSettings) -> None:
    """Have what handlers say with the standard library's `logging` look like our logs, and say run, step and actor.

    For as long as they give it no handler of their own (`basicConfig`, `dictConfig`): then it goes where they want.
    """
    handler = logging.StreamHandler(cast(TextIO, _Stderr()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                *_first(),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_last(settings)],
        )
    )
    logging.lastResort = handler
    logging.getLogger().setLevel(_number(settings.logging))


def _first() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        add_fields,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _last(settings: LogSettings) -> list[Processor]:
    if settings.format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=settings.colors, exception_formatter=plain)]


def without_secrets(text: str) -> str:
    """Return the text with user, password or token of each URL in it replaced: `nats://***@host`."""
    return _IN_URL.sub(r"\1***@", text)


class _Stderr:
    """Standard error as it is at each event, but for secrets.

    When nobody reads it any more (`| head`), no work stops for that.
    """

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            write = getattr(sys.stderr, "write_log", sys.stderr.write)  # of a worker: no line of a handler's
            write(without_secrets(text))

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


class _Logger(structlog.WriteLogger):
    """Writes to standard error, and knows whose logger it is."""

    def __init__(self, name: str) -> None:
        super().__init__(cast(TextIO, _Stderr()))
        self.name = name


def _number(level: str) -> int:
    return int(logging.getLevelName(level.upper()))


def _one_of(kind: Any, environ: Mapping[str, str], variable: str, default: str) -> Any:
    value = environ.get(variable, "").strip().lower() or default
    known = get_args(kind)
    if value not in known:
        raise ValueError(f"{variable}={environ[variable]!r}: expected one of {', '.join(known)}")
    return value
