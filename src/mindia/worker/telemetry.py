"""Spans and counters of OpenTelemetry, where the host has its API installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mindia._trace_context import span_context_of
from mindia._version import __version__
from mindia.domain.tasks import Task

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from mindia.worker.execution import Execution, Outcome


class Telemetry:
    """Tells the tracer and the meter of the host of attempts. Thread-safe.

    Attributes are named by the semantic conventions for messaging:
    https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/

    Args:
        tracers: Where spans go; the global provider of the process by default.
        meters: Where figures go; likewise.
    """

    def __init__(self, *, tracers: TracerProvider | None = None, meters: MeterProvider | None = None) -> None:
        from opentelemetry import metrics, trace

        self._tracer = trace.get_tracer("mindia", __version__, tracers)
        self._has_own_tracers = tracers is not None
        self._global_tracers = trace.get_tracer_provider
        self._stand_in = trace.ProxyTracerProvider
        self._kind = trace.SpanKind.CONSUMER
        self._link = trace.Link
        meter = metrics.get_meter("mindia", __version__, meters)
        self._ended = meter.create_counter(
            "mindia.tasks.ended", unit="{attempt}", description="Attempts of tasks that have ended, by outcome"
        )
        self._duration = meter.create_histogram(
            "mindia.tasks.duration", unit="s", description="How long attempts of tasks took"
        )

    @classmethod
    def of_host(cls) -> Telemetry | None:
        """Return it, or None where the API is not installed."""
        return cls() if find_spec("opentelemetry") is not None and find_spec("opentelemetry.metrics") else None

    @property
    def is_traced(self) -> bool:
        """Whether somebody is told of spans: one for nobody takes as long as all else of a short task."""
        return self._has_own_tracers or not isinstance(self._global_tracers(), self._stand_in)

    @contextmanager
    def attempt(self, task: Task, *others: Task) -> Iterator[None]:
        """Run a block as the span of an attempt, or of several together; what it raises makes it a failed one.

        It is linked to the spans in which the tasks were enqueued, and not their child: those may have ended long ago,
        and one task may have many attempts.
        """
        attributes: dict[str, str | int] = {
            "messaging.system": "mindia",
            "messaging.operation.type": "process",
            "messaging.destination.name": task.kind,
            "messaging.message.id": str(task.id),
            "mindia.attempt": task.attempt,
        }
        if others:
            attributes["messaging.batch.message_count"] = 1 + len(others)
        if task.tenant_id is not None:
            attributes["mindia.tenant_id"] = str(task.tenant_id)
        links = [
            self._link(span_context_of(each.trace_context), {"messaging.message.id": str(each.id)})
            for each in (task, *others)
            if each.trace_context is not None
        ]
        with self._tracer.start_as_current_span(
            f"process {task.kind}", kind=self._kind, attributes=attributes, links=links
        ):
            yield

    def ended(self, executions: Sequence[Execution], outcomes: Sequence[Outcome]) -> None:
        """Count attempts that have ended."""
        durations: dict[tuple[str, Outcome], list[float]] = {}
        for execution, outcome in zip(executions, outcomes, strict=True):
            durations.setdefault((execution.task.kind, outcome), []).append(execution.duration_s)
        for (kind, outcome), alike in durations.items():
            attributes = {"messaging.destination.name": kind, "mindia.outcome": outcome.value}
            self._ended.add(len(alike), attributes)
            for duration_s in alike:
                self._duration.record(duration_s, attributes)
