"""Spans, figures and fields of log lines, as a host's tools see them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span
from tests.faults.harness import wait_until
from tests.integration.library_calls import FILM, TRANSCRIPT
from tests.integration.queue_jobs import Handler, Job, Owner, running

import mindia
from mindia import Library, Media, MemoryStorage, Mindia, Settings, TaskContext
from mindia.aio import AsyncMindia
from mindia.db.session import ACROSS_TENANTS
from mindia.db.units import OwnTransaction
from mindia.testing import samples
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
    tracer: Tracer

    def span(self) -> AbstractContextManager[Span]:
        """Be in a span of the host's own."""
        return self.tracer.start_as_current_span("request")

    def links(self, name: str) -> list[list[Link]]:
        """Return the links of the spans of this name, in their order."""
        return [list(span.links) for span in self.spans.get_finished_spans() if span.name == name]

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
    tracers = TracerProvider()
    recording = Recording(InMemorySpanExporter(), InMemoryMetricReader(), tracers.get_tracer("host"))
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


def test_an_attempt_is_linked_to_the_span_in_which_its_task_was_enqueued(
    queue_app: Mindia, queue: Library, recording: Recording
) -> None:
    with recording.span() as request:
        task = queue.tasks.enqueue(Job())
    queue.tasks.enqueue(Job())
    queue_app.run_until_idle()

    links, none = recording.links("process job")
    assert none == []
    (link,) = links
    assert (link.context.trace_id, link.context.span_id) == _ids(request)
    assert link.context.is_remote
    assert link.attributes == {"messaging.message.id": str(task.id)}
    attempt = recording.spans.get_finished_spans()[1]
    assert attempt.parent is None
    assert attempt.context.trace_id != link.context.trace_id


def test_a_batch_is_linked_to_the_span_of_each_of_its_tasks(
    queue_app: Mindia, queue: Library, recording: Recording
) -> None:
    requests = []
    for color in ("teal", "red"):
        with recording.span() as request:
            queue.media.add(samples.image(color=color), filename="a.jpg")
            requests.append(_ids(request))
    queue_app.run_until_idle()

    (links,) = recording.links("process generate_embedding")
    assert sorted((link.context.trace_id, link.context.span_id) for link in links) == sorted(requests)


def test_what_a_handler_enqueues_is_linked_to_its_attempt(
    queue_app: Mindia, queue: Library, handler: Handler, recording: Recording
) -> None:
    handler.does = lambda context, job: job.name and context.library.tasks.enqueue(Job()) and None
    queue.tasks.enqueue(Job("causes another one"))
    queue_app.run_until_idle()

    first, second = recording.spans.get_finished_spans()
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


def test_every_way_to_enqueue_keeps_the_span_that_is_current(
    queue_url: str, queue_settings: Settings, owner: Owner, recording: Recording
) -> None:
    settings = attrs.evolve(queue_settings, transcode_on_add=True)
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=settings) as app:
        app.register_task("job", Job, lambda _, __: None)
        library = app.library(app.tenants.create("Acme"))
        items = _items(library)
        owner.execute("delete from mindia.tasks")
        with recording.span() as request:
            _enqueue_in_every_way(app, library, *items)
        written = owner.execute(
            "select kind, trace_context = jsonb_build_object('traceparent', %s::text), count(*) from mindia.tasks "
            "group by 1, 2 order by 1, 2",
            ("00-{:032x}-{:016x}-{:02x}".format(*_ids(request), request.get_span_context().trace_flags),),
        ).fetchall()
        owner.execute("delete from mindia.tasks")
        other = app.library(app.tenants.create("Globex"))
        _enqueue_in_every_way(app, other, *_items(other))
        without = owner.execute("select count(*) from mindia.tasks where trace_context is not null").fetchone()

    assert written == [
        ("generate_embedding", True, 6),
        ("job", True, 6),
        ("mindia.reindex", True, 1),
        ("video_transcode", True, 2),
    ]
    assert without == (0,)


def _items(library: Library) -> tuple[Media, Media]:
    return library.media.add(samples.image(), filename="a.jpg"), library.media.add(FILM, filename="a.mp4")


def _enqueue_in_every_way(app: Mindia, library: Library, image: Media, film: Media) -> None:
    before = library.tasks.enqueue(Job())
    library.tasks.enqueue(Job(), depends_on=[before])
    library.tasks.enqueue_many([Job(), Job()])
    with library.transaction() as tx:
        tx.tasks.enqueue(Job())

    async def enqueue() -> None:
        await AsyncMindia(app, threads=1).library(library.tenant_id).tasks.enqueue(Job())

    asyncio.run(enqueue())
    library.media.update(image, description="another one")
    library.index.set_transcript(film, TRANSCRIPT)
    library.media.add(FILM + b"\0", filename="b.mp4")
    library.media.add_many([samples.image(color="red"), samples.image(color="blue")])
    library.media.copy(image)
    library.index.reindex()
    library.media.transcode(film)


def test_a_periodic_task_is_in_nobodys_trace(queue_app: Mindia, owner: Owner, recording: Recording) -> None:
    with recording.span():
        queue_app.schedule("minutely", "* * * * *", Job())
        (schedule,) = queue_app._schedules
        unit = OwnTransaction(queue_app._runtime().database, ACROSS_TENANTS)
        for year in (2030, 2031):
            schedule.fire(unit, now=datetime(year, 1, 1, tzinfo=UTC))

    assert owner.execute("select kind, trace_context from mindia.tasks").fetchall() == [("job", None)]


def _ids(span: Span) -> tuple[int, int]:
    return span.get_span_context().trace_id, span.get_span_context().span_id


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
