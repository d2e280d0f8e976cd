"""Tasks that a handler takes together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
import pytest
from tests.integration.queue_jobs import Owner

import mindia
from mindia import FunctionEmbedder, Library, MemoryStorage, Mindia, Settings, TaskContext, TaskStatus
from mindia.errors import DiscardTask, SnoozeTask
from mindia.testing import samples


@attrs.frozen(kw_only=True)
class Part:
    """A payload."""

    number: int


class Recorder:
    """A handler of batches, which keeps what it was given and does what the test says."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tenants: list[set[object]] = []
        self.act: Callable[[Sequence[TaskContext], Sequence[Part]], Sequence[object]] = self.nothing
        self._lock = threading.Lock()

    def __call__(self, contexts: Sequence[TaskContext], payloads: Sequence[Part]) -> Sequence[object]:
        with self._lock:
            self.batches.append([payload.number for payload in payloads])
            self.tenants.append({context.task.tenant_id for context in contexts})
        return self.act(contexts, payloads)

    @staticmethod
    def nothing(contexts: Sequence[TaskContext], payloads: Sequence[Part]) -> Sequence[object]:
        assert len(contexts) == len(payloads)
        return [None] * len(payloads)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def app(queue_url: str, queue_settings: Settings, recorder: Recorder) -> Iterator[Mindia]:
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=queue_settings) as app:
        app._registry.register("part", Part, recorder, batch_size=8)
        yield app


@pytest.fixture
def library(app: Mindia) -> Library:
    return app.library(app.tenants.create("Acme"))


@contextmanager
def working(app: Mindia, **how: Any) -> Iterator[None]:
    worker = app.worker(**how)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def statuses(library: Library) -> dict[TaskStatus, int]:
    return {each.status: each.count for each in library.tasks.counts()}


def test_when_idle_batches_are_filled_up(app: Mindia, library: Library, recorder: Recorder) -> None:
    library.tasks.enqueue_many([Part(number=number) for number in range(37)])
    assert app.run_until_idle().completed == 37
    assert sorted(number for batch in recorder.batches for number in batch) == list(range(37))
    assert max(recorder.sizes) == 8
    assert len(recorder.batches) <= 6


def test_a_worker_fills_its_batches_with_what_waits(app: Mindia, library: Library, recorder: Recorder) -> None:
    tasks = [library.tasks.enqueue(Part(number=number)) for number in range(64)]
    with working(app, concurrency=2):
        for task in tasks:
            assert library.tasks.wait(task).status is TaskStatus.COMPLETED
    assert sorted(number for batch in recorder.batches for number in batch) == list(range(64))
    assert max(recorder.sizes) == 8
    assert len(recorder.batches) <= 16


def test_a_batch_is_of_one_tenant(app: Mindia, recorder: Recorder) -> None:
    libraries = [app.library(app.tenants.create(name)) for name in ("Acme", "Globex", "Initech")]
    for number in range(20):
        for library in libraries:
            library.tasks.enqueue(Part(number=number))
    app.run_until_idle()
    assert all(len(tenants) == 1 for tenants in recorder.tenants)
    assert {status for library in libraries for status in statuses(library)} == {TaskStatus.COMPLETED}


def test_each_task_of_a_batch_ends_in_its_own_way(app: Mindia, library: Library, recorder: Recorder) -> None:
    def act(_: Sequence[TaskContext], payloads: Sequence[Part]) -> Sequence[object]:
        outcomes: list[object] = [
            None, {"made": 1}, DiscardTask("never"), SnoozeTask(timedelta(hours=1)), object(), ValueError("again"),
        ]  # fmt: skip
        return [outcomes[payload.number] for payload in payloads]

    recorder.act = act
    tasks = [library.tasks.enqueue(Part(number=number)) for number in range(6)]
    app.run_until_idle()
    assert recorder.sizes[0] == 6
    found = [library.tasks.get(task.id) for task in tasks]
    assert [(each.status, each.result) for each in found] == [
        (TaskStatus.COMPLETED, None), (TaskStatus.COMPLETED, {"made": 1}), (TaskStatus.FAILED, None),
        (TaskStatus.PENDING, None), (TaskStatus.FAILED, None), (TaskStatus.PENDING, None),
    ]  # fmt: skip
    assert [len(library.tasks.errors(task)) for task in tasks] == [0, 0, 1, 0, 1, 1]
    assert found[3].retry_count == 0
    assert found[5].retry_count == 1


@pytest.mark.parametrize("returned", [[], [None] * 9, 3, None], ids=["too few", "too many", "a number", "nothing"])
def test_a_handler_that_answers_for_others_fails_them_all(
    app: Mindia, library: Library, recorder: Recorder, returned: Any
) -> None:
    recorder.act = lambda *_: returned
    tasks = [library.tasks.enqueue(Part(number=number), max_retries=0) for number in range(3)]
    assert app.run_until_idle().failed == 3
    assert {library.tasks.get(task.id).status for task in tasks} == {TaskStatus.FAILED}


def test_what_a_handler_raises_is_of_the_whole_batch(app: Mindia, library: Library, recorder: Recorder) -> None:
    def act(*_: object) -> Sequence[object]:
        raise SystemExit(3)

    recorder.act = act
    tasks = [library.tasks.enqueue(Part(number=number), max_retries=0) for number in range(3)]
    with working(app, concurrency=1):
        assert {library.tasks.wait(task).status for task in tasks} == {TaskStatus.FAILED}
    assert {library.tasks.errors(task)[0].error_type for task in tasks} == {"SystemExit"}


def test_a_payload_that_does_not_fit_spoils_no_other(
    app: Mindia, library: Library, recorder: Recorder, owner: Owner
) -> None:
    tasks = [library.tasks.enqueue(Part(number=number)) for number in range(3)]
    owner.execute("""update mindia.tasks set payload = '{"number": "x"}' where id = %s""", (tasks[1].id,))
    app.run_until_idle()
    assert [library.tasks.get(task.id).status for task in tasks] == [
        TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.COMPLETED,
    ]  # fmt: skip
    assert recorder.batches == [[0, 2]]


def test_a_task_with_a_time_out_is_run_by_itself(app: Mindia, library: Library, recorder: Recorder) -> None:
    for number in range(4):
        library.tasks.enqueue(Part(number=number), timeout=timedelta(minutes=1) if number == 2 else None)
    app.run_until_idle()
    assert sorted(recorder.batches) == [[0, 1, 3], [2]]


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(
    app: Mindia, library: Library, recorder: Recorder
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def act(_: Sequence[TaskContext], payloads: Sequence[Part]) -> Sequence[object]:
        entered.set()
        leave.wait(20)
        return [None] * len(payloads)

    recorder.act = act
    library.tasks.enqueue_many([Part(number=number) for number in range(60)])
    with working(app, concurrency=1):
        assert entered.wait(20)
        threading.Timer(0.1, leave.set).start()
    done = sum(recorder.sizes)
    assert statuses(library) == {TaskStatus.COMPLETED: done} | ({TaskStatus.PENDING: 60 - done} if done < 60 else {})


def test_a_batch_takes_one_thread_and_leaves_the_others_free(app: Mindia, library: Library, recorder: Recorder) -> None:
    barrier = threading.Barrier(3)

    def act(_: Sequence[TaskContext], payloads: Sequence[Part]) -> Sequence[object]:
        barrier.wait(20)  # three at once
        return [None] * len(payloads)

    recorder.act = act
    library.tasks.enqueue_many([Part(number=number) for number in range(24)])
    with working(app, concurrency=3):
        for task in list(library.tasks.list()):
            assert library.tasks.wait(task).status is TaskStatus.COMPLETED
    assert recorder.sizes == [8, 8, 8]


def test_a_model_sees_many_texts_at_a_time(queue_url: str, queue_settings: Settings) -> None:
    sizes: list[int] = []

    def embed(texts: list[str]) -> list[list[float]]:
        sizes.append(len(texts))
        return [[1.0, 2.0]] * len(texts)

    embedder = FunctionEmbedder(embed, model_name="sizes", dimensions=2)
    with mindia.connect(queue_url, storage=MemoryStorage(), settings=queue_settings, embedder=embedder) as app:
        library = app.library(app.tenants.create("Acme"))
        for number in range(100):
            library.media.add(samples.image(), filename=f"picture_{number}.jpg")
        assert app.run_until_idle().completed == 100
    assert sum(sizes) == 100
    assert max(sizes) == 32
    assert len(sizes) <= 7
