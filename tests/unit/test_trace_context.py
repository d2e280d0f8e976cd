"""The trace that a caller is in, as it is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from mindia import _trace_context

_CONTEXT = SpanContext(0x0AF7, 0xB7AD, is_remote=False, trace_flags=TraceFlags(1))
_PARENT = "00-00000000000000000000000000000af7-000000000000b7ad-01"


@contextmanager
def _in_span(*, state: TraceState | None = None) -> Iterator[None]:
    context = SpanContext(_CONTEXT.trace_id, _CONTEXT.span_id, False, _CONTEXT.trace_flags, state)
    with trace.use_span(NonRecordingSpan(context)):
        yield


def test_without_a_span_there_is_nothing_to_keep() -> None:
    assert _trace_context.current() is None


def test_the_form_is_that_of_w3c() -> None:
    with _in_span(state=TraceState([("vendor", "value")])):
        kept = _trace_context.current()

    assert kept is not None
    assert json.loads(kept) == {"traceparent": _PARENT, "tracestate": "vendor=value"}
    read = _trace_context.span_context_of(json.loads(kept))
    assert (read.trace_id, read.span_id, read.trace_flags) == (_CONTEXT.trace_id, _CONTEXT.span_id, 1)
    assert read.trace_state == {"vendor": "value"}
    assert read.is_remote


def test_a_long_state_is_left_out() -> None:
    with _in_span(state=TraceState([(f"vendor{number}", "v" * 100) for number in range(5)])):
        kept = _trace_context.current()

    assert kept is not None
    assert json.loads(kept) == {"traceparent": _PARENT}


def test_what_cannot_be_read_is_no_context() -> None:
    assert not _trace_context.span_context_of({"traceparent": "00-nonsense"}).is_valid


def test_nothing_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with _in_span():
        assert _trace_context.current() is None
    assert "opentelemetry.trace" not in sys.modules
