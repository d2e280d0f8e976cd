"""What users of `library.tasks` and `app.tasks` may rely on."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import attrs
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import mindia
from mindia import Library, Mindia, Priority, Task, TaskContext, TaskStatus, Tenant, WorkReport
from mindia._ids import uuid7
from mindia.domain.media import Media
from mindia.domain.tasks import GenerateEmbedding, TaskType
from mindia.embedding.lexical import LexicalEmbedder
from mindia.errors import InvalidError, NotFoundError, TenantInactiveError
from mindia.testing import samples

T = TypeVar("T")

Host = psycopg.Connection[tuple[object, ...]]


@attrs.frozen
class Unregistered:
    """A payload that no handler is registered for."""


@attrs.frozen
class Note:
    """A payload that says what it is."""

    text: str = ""


class Fit(StrEnum):
    COVER = "cover"
    CONTAIN = "contain"


@attrs.frozen(kw_only=True)
class Size:
    width: int
    height: int
    fit: Fit = Fit.COVER


@attrs.frozen(kw_only=True)
class Resize:
    """A payload with all that payloads are made of."""

    image: UUID
    at: datetime
    sizes: tuple[Size, ...]
    by_name: dict[str, list[float]]
    note: str | None = None
    raw: bytes = b""


@attrs.frozen
class NoteOfTheNextVersion:
    """What another version of the host understands by a note."""

    author: str
    size: Size


class Recorder:
    """A handler that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[TaskContext, Any]] = []

    def __call__(self, context: TaskContext, payload: Any) -> None:
        self.calls.append((context, payload))

    @property
    def payloads(self) -> list[Any]:
        return [payload for _, payload in self.calls]


@pytest.fixture(scope="module")
def _module_url(server_url: str) -> Iterator[str]:
    name = f"mindia_test_{uuid7().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = make_conninfo(server_url, dbname=name)
        with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
            app.migrate()
        yield url
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def url(_module_url: str) -> str:
    """A database with nothing to do."""
    with psycopg.connect(_module_url, autocommit=True) as connection:
        for table in ("tasks", "workers", "staged_objects", "deleted_objects"):
            connection.execute(sql.SQL("delete from mindia.{}").format(sql.Identifier(table)))
    return _module_url


@pytest.fixture
def app(url: str) -> Iterator[Mindia]:
    with mindia.connect(url, storage=mindia.MemoryStorage()) as app:
        yield app


@pytest.fixture
def notes(app: Mindia) -> Recorder:
    """Notes may be enqueued; this keeps those that ran."""
    recorder = Recorder()
    app.register_task("note", Note, recorder)
    return recorder


@pytest.fixture
def host(url: str) -> Iterator[Host]:
    """A connection of the host's own."""
    with psycopg.connect(url) as connection:
        yield connection


@contextmanager
def rolled_back(transaction: AbstractContextManager[T]) -> Iterator[T]:
    """Run a block whose transaction is then undone, since the host's own code breaks."""
    with suppress(ZeroDivisionError), transaction as tx:
        yield tx
        raise ZeroDivisionError


class TestEnqueue:
    def test_a_task_is_written_as_asked(self, library: Library, tenant: Tenant, notes: Recorder) -> None:
        before = datetime.now(UTC) - timedelta(minutes=1)

        task = library.tasks.enqueue(Note("hello"), priority=Priority.HIGH, max_retries=7)

        assert notes.payloads == []
        assert (task.tenant_id, task.task_type, task.kind) == (tenant.id, TaskType.CUSTOM, "note")
        assert task.payload == {"text": "hello"}
        assert (task.status, task.priority, task.max_retries) == (TaskStatus.PENDING, 10, 7)
        assert (task.retry_count, task.attempt) == (0, 0)
        assert task.created_at > before
        assert task.created_at.utcoffset() == timedelta()
        assert (task.started_at, task.completed_at, task.error_message) == (None, None, None)
        assert library.tasks.get(task.id) == task

    def test_a_task_is_returned_as_it_is_read(self, library: Library, app: Mindia) -> None:
        app.register_task("resize", Resize, Recorder())
        payload = Resize(
            image=uuid7(), at=datetime(2025, 1, 31, tzinfo=UTC), sizes=(), by_name={"é😀": [-1e300, 5e-324, -0.0, 1e16]}
        )
        first = library.tasks.enqueue(payload)

        task = library.tasks.enqueue(
            payload,
            priority=-3,
            delay=timedelta(hours=1),
            max_retries=0,
            timeout=timedelta(seconds=1.5),
            depends_on=[first],
        )

        assert library.tasks.get(task.id) == task
        assert task.scheduled_for - task.created_at == timedelta(hours=1)
        assert (task.timeout_s, task.waiting_on) == (1.5, 1)
        assert library.tasks.get(first.id) == first

    def test_a_task_is_a_plain_value(self, library: Library, notes: Recorder) -> None:  # noqa: ARG002 - registers
        task = library.tasks.enqueue(Note("hello"))

        assert pickle.loads(pickle.dumps(task)) == task
        assert len({task, library.tasks.get(task.id)}) == 1

    def test_a_payload_reaches_its_handler_as_it_was(self, app: Mindia, library: Library) -> None:
        resized = Recorder()
        app.register_task("resize", Resize, resized)
        payload = Resize(
            image=uuid7(),
            at=datetime(2025, 1, 31, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=-3))),
            sizes=(Size(width=1, height=2), Size(width=3, height=4, fit=Fit.CONTAIN)),
            by_name={"é😀": [0.5, -1e300]},
            raw=b"\x00\xff",
        )

        task = library.tasks.enqueue(payload)
        app.run_until_idle()

        ((context, received),) = resized.calls
        assert received == payload
        assert received.at.utcoffset() == timedelta(hours=-3)
        assert context.task.id == task.id
        assert context.task.attempt == 1

    def test_a_handler_works_in_the_library_of_its_tenant(self, app: Mindia, notes: Recorder) -> None:
        libraries = [app.library(app.tenants.create(name)) for name in ("Acme", "Globex")]
        for library in libraries:
            library.tasks.enqueue(Note())

        app.run_until_idle()

        assert [context.library.tenant_id for context, _ in notes.calls] == [each.tenant_id for each in libraries]

    def test_a_task_without_a_tenant_has_no_library(self, app: Mindia, notes: Recorder) -> None:
        task = app.tasks.enqueue(Note("of the system"))
        app.run_until_idle()

        ((context, payload),) = notes.calls
        assert payload == Note("of the system")
        assert context.tenant_library is None
        with pytest.raises(InvalidError, match=str(task.id)):
            _ = context.library
        assert app.tasks.get(task.id).status is TaskStatus.COMPLETED

    def test_a_class_that_is_not_registered_is_refused(self, library: Library) -> None:
        with pytest.raises(InvalidError, match=r"Note is not registered.*register_task"):
            library.tasks.enqueue(Note())
        with pytest.raises(InvalidError, match="Unregistered is not registered"):
            library.tasks.enqueue(Unregistered())

    def test_a_type_that_is_built_in_may_be_enqueued_by_hand(self, app: Mindia, library: Library) -> None:
        item = library.media.add(samples.image(), filename="cat.jpg")
        app.run_until_idle()

        task = library.tasks.enqueue(GenerateEmbedding(entity_id=item.id, entity_type=item.kind))
        app.run_until_idle()

        assert library.tasks.get(task.id).status is TaskStatus.COMPLETED

    @pytest.mark.parametrize(
        "value",
        [object(), {"of": 1j}, float("nan"), "NUL \0", "\ud800"],
        ids=["object", "complex", "nan", "nul", "half"],
    )
    def test_a_payload_that_json_cannot_say_is_refused(self, app: Mindia, library: Library, value: object) -> None:
        @attrs.frozen
        class Anything:
            value: Any

        app.register_task("anything", Anything, Recorder())

        with pytest.raises(InvalidError):
            library.tasks.enqueue(Anything(value))

        assert library.tasks.enqueue(Anything("fine")).payload == {"value": "fine"}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"max_retries": -1}, "max_retries must be 0 to 1000, not -1"),
            ({"max_retries": 1001}, "max_retries must be 0 to 1000, not 1001"),
            ({"priority": 2**31}, "priority must fit in 32 bits"),
            ({"priority": -(2**31) - 1}, "priority must fit in 32 bits"),
            ({"run_at": datetime(2030, 1, 1)}, "run_at must have a time zone"),  # noqa: DTZ001 - that is the point
            ({"dedup_key": ""}, "dedup_key has 1 to 255 characters"),
            ({"dedup_key": "k" * 256}, "dedup_key has 1 to 255 characters"),
            ({"dedup_key": "a\0b"}, "no NUL"),
            ({"dedup_key": "\ud800"}, "characters of Unicode"),
        ],
    )
    def test_arguments_out_of_range_are_refused(
        self, library: Library, notes: Recorder, arguments: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(InvalidError, match=said):
            library.tasks.enqueue(Note(), **arguments)
        assert notes.payloads == []

    def test_arguments_at_the_edge_are_taken(self, app: Mindia, library: Library, notes: Recorder) -> None:
        library.tasks.enqueue(Note("low"), priority=-(2**31), max_retries=0, dedup_key="k")
        library.tasks.enqueue(Note("high"), priority=2**31 - 1, max_retries=1000, dedup_key="é" * 255)

        assert app.run_until_idle().completed == 2
        assert notes.payloads == [Note("high"), Note("low")]


class TestTransactions:
    def test_a_task_is_not_seen_before_its_transaction_commits(
        self, app: Mindia, library: Library, notes: Recorder
    ) -> None:
        with library.transaction() as tx:
            task = tx.tasks.enqueue(Note("hello"))
            assert tx.tasks.get(task.id) == task
            assert app.run_until_idle().completed == 0
            with pytest.raises(NotFoundError, match=str(task.id)):
                library.tasks.get(task.id)

        assert app.run_until_idle().completed == 1
        assert notes.payloads == [Note("hello")]

    def test_a_task_goes_with_its_transaction(self, app: Mindia, library: Library, notes: Recorder) -> None:
        with rolled_back(library.transaction()) as tx:
            task = tx.tasks.enqueue(Note())

        assert app.run_until_idle() == WorkReport()
        assert notes.payloads == []
        with pytest.raises(NotFoundError):
            library.tasks.get(task.id)

    def test_a_task_belongs_to_the_hosts_own_transaction(self, app: Mindia, library: Library, host: Host) -> None:
        notes = Recorder()
        app.register_task("note", Note, notes)
        with library.transaction(connection=host) as tx:
            undone = tx.tasks.enqueue(Note("undone"))
        host.rollback()
        with library.transaction(connection=host) as tx:
            tx.tasks.enqueue(Note("done"))
        host.commit()

        app.run_until_idle()

        assert notes.payloads == [Note("done")]
        with pytest.raises(NotFoundError):
            library.tasks.get(undone.id)

    def test_an_item_and_the_task_that_embeds_it_come_and_go_together(self, app: Mindia, library: Library) -> None:
        with rolled_back(library.transaction()) as tx:
            tx.media.add(samples.image(), filename="cat.jpg")
        assert app.run_until_idle().completed == 0

        library.media.add(samples.image(), filename="cat.jpg")
        assert app.run_until_idle().completed == 1

    def test_tasks_without_a_tenant_take_part_in_a_transaction(self, app: Mindia, notes: Recorder) -> None:
        with rolled_back(app.transaction()) as tx:
            tx.tasks.enqueue(Note("undone"))
        with app.transaction() as tx:
            tx.tasks.enqueue(Note("done"))

        app.run_until_idle()

        assert notes.payloads == [Note("done")]


class TestOrder:
    def test_higher_priority_goes_first_and_then_what_was_due_first(
        self, app: Mindia, library: Library, notes: Recorder
    ) -> None:
        now = datetime.now(UTC)
        with library.transaction() as tx:
            tx.tasks.enqueue(Note("5"), priority=Priority.LOW, run_at=now - timedelta(days=9))
            tx.tasks.enqueue(Note("4"), run_at=now - timedelta(hours=1))
            tx.tasks.enqueue(Note("3"), run_at=now - timedelta(hours=2))
            tx.tasks.enqueue(Note("2"), priority=Priority.HIGH)
            tx.tasks.enqueue(Note("1"), priority=Priority.CRITICAL)

        app.run_until_idle()

        assert [note.text for note in notes.payloads] == ["1", "2", "3", "4", "5"]

    def test_the_order_holds_in_a_long_queue_too(self, app: Mindia, library: Library, notes: Recorder) -> None:
        now = datetime.now(UTC)
        with library.transaction() as tx:
            for number in range(40):
                tx.tasks.enqueue(Note(f"{number:02}"), run_at=now - timedelta(minutes=number))
            tx.tasks.enqueue(Note("critical"), priority=Priority.CRITICAL)

        app.run_until_idle()

        assert [note.text for note in notes.payloads] == ["critical", *(f"{n:02}" for n in reversed(range(40)))]

    def test_a_task_waits_for_its_time(self, app: Mindia, library: Library, notes: Recorder, host: Host) -> None:
        later = datetime.now(UTC) + timedelta(days=1)
        task = library.tasks.enqueue(Note("later"), run_at=later)
        assert task.scheduled_for == later
        assert app.run_until_idle() == WorkReport()

        _make_due(host, task)

        assert app.run_until_idle() == WorkReport(completed=1)
        assert notes.payloads == [Note("later")]

    def test_a_kind_that_a_worker_does_not_know_waits_for_one_that_does(
        self, app: Mindia, library: Library, notes: Recorder, url: str
    ) -> None:
        task = library.tasks.enqueue(Note("hello"))

        with mindia.connect(url, storage=mindia.MemoryStorage()) as ignorant:
            assert ignorant.run_until_idle() == WorkReport()
        assert library.tasks.get(task.id) == task

        assert app.run_until_idle().completed == 1
        assert notes.payloads == [Note("hello")]


class TestDedupKey:
    def test_while_a_task_waits_the_same_key_returns_it(self, app: Mindia, library: Library, notes: Recorder) -> None:
        first = library.tasks.enqueue(Note("first"), dedup_key="k")
        second = library.tasks.enqueue(Note("second"), dedup_key="k", priority=Priority.HIGH)
        other = library.tasks.enqueue(Note("other"), dedup_key="l")

        assert second == first
        assert other.id != first.id
        app.run_until_idle()
        assert notes.payloads == [Note("first"), Note("other")]

    def test_while_a_task_runs_the_same_key_returns_it(self, app: Mindia, library: Library) -> None:
        seen: list[Task] = []
        app.register_task(
            "note", Note, lambda context, _: seen.append(context.library.tasks.enqueue(Note(), dedup_key="k"))
        )
        task = library.tasks.enqueue(Note(), dedup_key="k")

        assert app.run_until_idle().completed == 1
        assert [(each.id, each.status) for each in seen] == [(task.id, TaskStatus.RUNNING)]

    def test_a_key_is_free_again_when_its_task_has_ended_well_or_not(self, app: Mindia, library: Library) -> None:
        def handler(_: TaskContext, note: Note) -> None:
            if note.text == "bad":
                raise RuntimeError

        app.register_task("note", Note, handler)
        ids = []
        for text in ("good", "bad", "good"):
            ids.append(library.tasks.enqueue(Note(text), dedup_key="k", max_retries=0).id)
            app.run_until_idle()

        assert len(set(ids)) == 3

    def test_keys_of_tenants_do_not_collide(self, app: Mindia, notes: Recorder) -> None:
        queues = [app.library(app.tenants.create(name)).tasks for name in ("Acme", "Globex")] + [app.tasks]

        ids = [[queue.enqueue(Note(), dedup_key="k").id for _ in range(2)] for queue in queues]

        assert [len(set(of_one)) for of_one in ids] == [1, 1, 1]
        assert len({id_ for of_one in ids for id_ in of_one}) == 3
        app.run_until_idle()
        assert len(notes.calls) == 3

    def test_callers_at_the_same_time_get_one_task(self, app: Mindia, library: Library, notes: Recorder) -> None:
        together = threading.Barrier(8)

        def enqueue(_: int) -> UUID:
            together.wait(30)
            return library.tasks.enqueue(Note(), dedup_key="k").id

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(enqueue, range(8)))) == 1
        app.run_until_idle()
        assert len(notes.calls) == 1

    def test_a_key_goes_with_its_transaction(self, library: Library, notes: Recorder) -> None:  # noqa: ARG002 - registers
        with rolled_back(library.transaction()) as tx:
            undone = tx.tasks.enqueue(Note(), dedup_key="k")

        assert library.tasks.enqueue(Note(), dedup_key="k").id != undone.id


class TestGet:
    def test_a_task_of_another_tenant_is_not_found(self, app: Mindia, library: Library, notes: Recorder) -> None:  # noqa: ARG002 - registers
        other = app.library(app.tenants.create("Globex"))
        theirs, systems = other.tasks.enqueue(Note()), app.tasks.enqueue(Note())

        for queue, task in (
            (library.tasks, theirs),
            (library.tasks, systems),
            (app.tasks, theirs),
            (other.tasks, systems),
        ):
            with pytest.raises(NotFoundError, match=str(task.id)):
                queue.get(task.id)

        assert other.tasks.get(theirs.id) == theirs
        assert app.tasks.get(systems.id) == systems

    def test_a_task_that_is_not_there_is_not_found(self, app: Mindia) -> None:
        missing = uuid7()
        with pytest.raises(NotFoundError, match=f"there is no task {missing}"):
            app.tasks.get(missing)


class TestSuspendedTenant:
    def test_its_tasks_wait_until_it_is_reactivated(
        self, app: Mindia, library: Library, tenant: Tenant, notes: Recorder
    ) -> None:
        task = library.tasks.enqueue(Note("hers"))
        app.tenants.suspend(tenant.id)
        others = app.library(app.tenants.create("Globex"))
        others.tasks.enqueue(Note("theirs"))

        assert app.run_until_idle() == WorkReport(completed=1)
        assert notes.payloads == [Note("theirs")]
        with pytest.raises(TenantInactiveError):
            library.tasks.get(task.id)

        app.tenants.reactivate(tenant.id)
        assert library.tasks.get(task.id) == task
        assert app.run_until_idle() == WorkReport(completed=1)
        assert notes.payloads == [Note("theirs"), Note("hers")]

    def test_it_cannot_enqueue(self, app: Mindia, library: Library, tenant: Tenant, notes: Recorder) -> None:
        app.tenants.suspend(tenant.id)

        with pytest.raises(TenantInactiveError):
            library.tasks.enqueue(Note())

        app.tenants.reactivate(tenant.id)
        assert app.run_until_idle() == WorkReport()
        assert notes.payloads == []


class TestRegisterTask:
    @pytest.mark.parametrize("kind", ["", "Upper", "1st", "with space", "a" * 101, "ünicode", "a-b"])
    def test_a_kind_that_is_not_a_name_is_refused(self, app: Mindia, kind: str) -> None:
        with pytest.raises(InvalidError, match="a kind has up to 100"):
            app.register_task(kind, Note, Recorder())

    @pytest.mark.parametrize("kind", ["generate_embedding", "video_transcode", "custom", "taken"])
    def test_a_kind_that_is_taken_is_refused(self, app: Mindia, kind: str) -> None:
        app.register_task("taken", Size, Recorder())
        with pytest.raises(InvalidError, match=f"'{kind}' is registered already"):
            app.register_task(kind, Note, Recorder())

    def test_a_class_that_stands_for_another_kind_is_refused(self, app: Mindia) -> None:
        app.register_task("note", Note, Recorder())
        with pytest.raises(InvalidError, match="Note is the payload of 'note' already"):
            app.register_task("other", Note, Recorder())

    @pytest.mark.parametrize("payload", [dict, str, Note("an instance"), None])
    def test_a_payload_that_is_not_an_attrs_class_is_refused(self, app: Mindia, payload: Any) -> None:
        with pytest.raises(InvalidError, match="must be an attrs class"):
            app.register_task("note", payload, Recorder())

    def test_a_handler_that_cannot_be_called_is_refused(self, app: Mindia) -> None:
        with pytest.raises(InvalidError, match="must be a function"):
            app.register_task("note", Note, "handler")  # type: ignore[arg-type]  # what a host may try

    def test_a_class_whose_fields_nobody_can_read_is_refused(self, app: Mindia) -> None:
        @attrs.frozen
        class Local:
            pass

        @attrs.frozen
        class OfAHiddenType:
            field: Local

        class Unknown:
            def __init__(self, value: int) -> None:
                self.value = value

        with pytest.raises(InvalidError, match=r"OfAHiddenType.*'Local' is not defined"):
            app.register_task("hidden", OfAHiddenType, Recorder())
        with pytest.raises(InvalidError, match=r"of_unknown.*Unknown"):
            app.register_task(
                "of_unknown", attrs.make_class("of_unknown", {"field": attrs.field(type=Unknown)}), Recorder()
            )

    def test_what_was_refused_is_not_half_registered(self, app: Mindia, library: Library) -> None:
        with pytest.raises(InvalidError):
            app.register_task("generate_embedding", Note, Recorder())
        with pytest.raises(InvalidError):
            library.tasks.enqueue(Note())

        app.register_task("note", Note, Recorder())
        assert library.tasks.enqueue(Note()).kind == "note"


class TestPayloadThatNoLongerFits:
    def test_its_task_fails_at_once_and_says_why(
        self, app: Mindia, library: Library, notes: Recorder, url: str
    ) -> None:
        task = library.tasks.enqueue(Note("hello"))
        with mindia.connect(url, storage=mindia.MemoryStorage()) as next_version:
            next_version.register_task("note", NoteOfTheNextVersion, notes)
            assert next_version.run_until_idle() == WorkReport(failed=1)

        failed = library.tasks.get(task.id)
        assert (failed.status, failed.attempt, failed.retry_count) == (TaskStatus.FAILED, 1, 0)
        assert failed.error_message is not None
        assert "does not fit NoteOfTheNextVersion" in failed.error_message
        assert "required field missing @ payload.author" in failed.error_message
        assert "required field missing @ payload.size" in failed.error_message
        assert notes.payloads == []
        assert app.run_until_idle() == WorkReport()


class TestEmbeddingOfADeletedItem:
    def test_its_waiting_task_is_deleted_with_it(self, app: Mindia, library: Library, host: Host) -> None:
        item = library.media.add(samples.image(), filename="cat.jpg")
        kept = library.media.add(samples.image(), filename="dog.jpg")

        library.media.delete(item)

        rows = host.execute("select payload ->> 'entity_id' from mindia.tasks").fetchall()
        assert rows == [(str(kept.id),)]
        assert app.run_until_idle() == WorkReport(completed=1, objects_removed=1)

    def test_its_running_task_completes_without_a_vector(self, url: str, host: Host) -> None:
        with mindia.connect(url, storage=mindia.MemoryStorage(), describer=_MeanwhileDeleted(lambda: library)) as app:
            library = app.library(app.tenants.create("Acme"))
            library.media.add(samples.image(), filename="cat.jpg")

            report = app.run_until_idle()

        assert (report.completed, report.failed, report.retried) == (1, 0, 0)
        assert host.execute("select count(*) from mindia.task_errors").fetchone() == (0,)
        for table in ("embeddings", "search_documents"):
            query = sql.SQL("select count(*) from mindia.{} where tenant_id = %s").format(sql.Identifier(table))
            assert host.execute(query, (library.tenant_id,)).fetchone() == (0,)

    def test_a_vector_is_written_for_an_item_that_stays(self, app: Mindia, library: Library, host: Host) -> None:
        library.media.add(samples.image(), filename="cat.jpg")
        app.run_until_idle()

        vectors = host.execute(
            "select model_name from mindia.embeddings where tenant_id = %s", (library.tenant_id,)
        ).fetchall()
        assert vectors == [(LexicalEmbedder().model_name,)]


class _MeanwhileDeleted:
    """A describer so slow that the item is deleted meanwhile."""

    def __init__(self, library: Callable[[], Library]) -> None:
        self._library = library

    def describe(self, media: Media, *, text: str, open_media: Callable[[], object]) -> str:  # noqa: ARG002 - of the port
        self._library().media.delete(media)
        return "a cat"


def _make_due(host: Host, task: Task) -> None:
    host.execute("update mindia.tasks set scheduled_for = now() where id = %s", (task.id,))
    host.commit()
