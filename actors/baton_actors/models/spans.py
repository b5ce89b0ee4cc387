"""OpenTelemetry spans of calls that are made: those of calls that are answered from the record are not ended, so that
nobody exports them. Imported with the SDK, which needs OpenTelemetry's API itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import Attributes, AttributeValue


class MadeCallsOnly(TracerProvider):
    """Gives the tracers of the program's own provider, whichever that is, with spans that can be dropped."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Return a tracer; see the base."""
        provider = trace.get_tracer_provider()
        return _Tracer(provider.get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url))


def drop(span: Span) -> None:
    """Have nothing come of a span: its call was not made."""
    if isinstance(span, _Span):
        span.is_dropped = True


class _Tracer(Tracer):
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        return _Span(
            self._tracer.start_span(
                name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
            )
        )

    def start_as_current_span(self, *args: Any, **more: Any) -> Any:
        return self._tracer.start_as_current_span(*args, **more)


class _Span(Span):
    """A span that does all that another does, except that it does not end it once it is dropped."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.is_dropped = False

    def end(self, end_time: int | None = None) -> None:
        if not self.is_dropped:
            self._span.end(end_time)

    def get_span_context(self) -> SpanContext:
        return self._span.get_span_context()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        self._span.set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._span.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._span.add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._span.add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._span.update_name(name)

    def is_recording(self) -> bool:
        return self._span.is_recording()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._span.set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._span.record_exception(exception, attributes, timestamp, escaped)
