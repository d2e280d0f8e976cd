"""Spans, figures and fields of log lines, as a host's tools see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from tests.faults.harness import wait_until
from tests.integration.queue_jobs import Handler, Job, running

from mindia import Library, Mindia, TaskContext
from mindia.worker.telemetry import Telemetry


@attrs.frozen
class Broken:
    """The payload of tasks that fail."""


@attrs.frozen
class Traced:
    """The payload of coroutines that tell which span they are in."""


@attrs.frozen
class Recording:
    """What the host's tools were told."""

    spans: InMemorySpanExporter
    figures: InMemoryMetricReader

    def points(self, name: str) -> list[Any]:
        data = self.figures.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    recording = Recording(InMemorySpanExporter(), InMemoryMetricReader())
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(recording.spans))
    meters = MeterProvider(metric_readers=[recording.figures])
    monkeypatch.setattr(Telemetry, "of_host", lambda: Telemetry(tracers=tracers, meters=meters))
    yield recording
    meters.shutdown()
    tracers.shutdown()


def _fail(_: TaskContext, __: Broken) -> None:
    raise LookupError("nothing there")


@pytest.mark.parametrize("in_worker", [False, True], ids=["idle", "worker"])
def test_each_attempt_is_a_span_and_is_counted(
    queue_app: Mindia, queue: Library, recording: Recording, *, in_worker: bool
) -> None:
    queue_app.register_task("broken", Broken, _fail)
    good, bad = queue.tasks.enqueue(Job()), queue.tasks.enqueue(Broken(), max_retries=0)
    if in_worker:
        with running(queue_app.worker()):
            wait_until(lambda: all(queue.tasks.get(task.id).is_finished for task in (good, bad)), what="they end")
    else:
        queue_app.run_until_idle()

    spans = {span.attributes["messaging.message.id"]: span for span in recording.spans.get_finished_spans()}  # type: ignore[index]  # all have some
    assert set(spans) == {str(good.id), str(bad.id)}
    assert spans[str(good.id)].name == "process job"
    assert spans[str(good.id)].kind is SpanKind.CONSUMER
    assert spans[str(good.id)].attributes["mindia.tenant_id"] == str(queue.tenant_id)  # type: ignore[index]  # as above
    assert spans[str(good.id)].status.status_code is StatusCode.UNSET
    assert spans[str(bad.id)].status.status_code is StatusCode.ERROR
    assert spans[str(bad.id)].events[0].name == "exception"
    counted = {
        (point.attributes["messaging.destination.name"], point.attributes["mindia.outcome"]): point.value
        for point in recording.points("mindia.tasks.ended")
    }
    assert counted == {("job", "completed"): 1, ("broken", "failed"): 1}
    assert {point.count for point in recording.points("mindia.tasks.duration")} == {1}


def test_what_a_coroutine_does_belongs_to_the_span_of_its_task(
    queue_app: Mindia, queue: Library, recording: Recording
) -> None:
    seen: list[str] = []

    async def look(_: TaskContext, __: Traced) -> None:
        seen.append(getattr(get_current_span(), "name", ""))

    queue_app.register_task("traced", Traced, look)
    queue.tasks.enqueue(Traced())
    queue_app.run_until_idle()

    assert seen == ["process traced"]
    assert len(recording.spans.get_finished_spans()) == 1


def test_log_lines_carry_fields(
    queue_app: Mindia, queue: Library, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    queue_app.register_task("broken", Broken, _fail)
    good, bad = queue.tasks.enqueue(Job()), queue.tasks.enqueue(Broken(), max_retries=0)
    with caplog.at_level(logging.INFO, "mindia.worker"):
        queue_app.run_until_idle()

    lines = [vars(record) for record in caplog.records if record.name == "mindia.worker"]
    ends = {line["task_id"]: line for line in lines if "outcome" in line}
    assert handler.names
    assert ends[str(good.id)]["outcome"] == "completed"
    assert ends[str(good.id)]["duration_s"] >= 0
    assert ends[str(bad.id)]["outcome"] == "failed"
    (failure,) = [line for line in lines if "error_type" in line]
    assert (failure["task_id"], failure["task_kind"], failure["error_type"]) == (str(bad.id), "broken", "LookupError")
    assert failure["tenant_id"] == str(queue.tenant_id)


def test_nothing_is_told_where_the_host_has_no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindia.worker.telemetry.find_spec", lambda _: None)

    assert Telemetry.of_host() is None
