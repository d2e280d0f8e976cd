"""Which trace a caller is in, kept with what is done for it later.

In the form of https://www.w3.org/TR/trace-context/, as JSON: `traceparent`, and `tracestate` where there is one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_MAX_STATE_CHARS = 512
"""So much of `tracestate` everybody is to hand on; a longer one is left out."""


def current() -> str | None:
    """Return the context of the span that is current, or None: there is none, or OpenTelemetry is not in use."""
    if "opentelemetry.trace" not in sys.modules:  # then nobody in this process has begun a span
        return None
    from opentelemetry import trace

    if not trace.get_current_span().get_span_context().is_valid:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if len(carrier.get("tracestate", "")) > _MAX_STATE_CHARS:
        del carrier["tracestate"]
    return json.dumps(carrier)


def span_context_of(carrier: Mapping[str, str]) -> SpanContext:
    """Return the context that was kept; an invalid one where it cannot be read."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return get_current_span(TraceContextTextMapPropagator().extract(dict(carrier))).get_span_context()
