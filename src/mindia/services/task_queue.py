"""Background tasks: `library.tasks`, and `app.tasks` for those without a tenant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from mindia import _trace_context
from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session
from mindia.db.units import OpenTransaction, Unit
from mindia.domain.tasks import OnFailure, Priority, Task, TaskCount, TaskError, TaskInput, TaskStatus
from mindia.errors import ConflictError, InvalidError, NotFoundError, TransactionError
from mindia.repositories import task_claims, task_control
from mindia.repositories import tasks as repository
from mindia.repositories.tasks import NewTasks
from mindia.services._named import named
from mindia.services.context import TenantContext
from mindia.services.task_batches import EncodedTasks, checked_key, encoded
from mindia.worker.registry import RegisteredTask, TaskRegistry

_MAX_RETRIES = 1000
_MAX_DEPENDENCIES = 1000
_MAX_TIMEOUT = timedelta(days=30)
_MAX_DELAY = timedelta(days=3660)
_EARLIEST, _LATEST = (datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 2200))
_PAGE = 100
_WAIT_POLLS_S = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class TaskQueue(Handle):
    """The tasks of one tenant, or those without a tenant. Thread-safe, unless it is that of a transaction."""

    def __init__(
        self,
        *,
        reading: Unit,
        writing: Unit,
        tenant_id: UUID | None,
        initiator: UUID | None,
        registry: TaskRegistry,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._tenant_id = tenant_id
        self._initiator = initiator
        self._registry = registry

    @classmethod
    def of_tenant(cls, context: TenantContext) -> TaskQueue:
        """Return the tasks of a tenant."""
        return cls(
            reading=context.as_viewer,
            writing=context.as_member,
            tenant_id=context.tenant_id,
            initiator=context.initiator,
            registry=context.registry,
        )

    @classmethod
    def of_system(cls, unit: Unit, registry: TaskRegistry) -> TaskQueue:
        """Return the tasks without a tenant."""
        return cls(reading=unit, writing=unit, tenant_id=None, initiator=None, registry=registry)

    def enqueue(
        self,
        payload: object,
        *,
        priority: int = Priority.NORMAL,
        run_at: datetime | None = None,
        delay: timedelta = timedelta(),
        max_retries: int = 3,
        timeout: timedelta | None = None,
        dedup_key: str | None = None,
        depends_on: Iterable[Task | UUID] = (),
        on_failure: OnFailure | str = OnFailure.CANCEL,
    ) -> Task:
        """Write a task; it runs once what it was written in has committed.

        Handlers run at least once: a worker that dies before it can say that it is done has its task run again.

        Args:
            payload: A value of a class that was registered with `app.register_task`; at most 1 MiB of JSON.
            priority: Higher goes first; see `Priority`.
            run_at: Not before this time, with time zone.
            delay: Not before so long from now.
            max_retries: How often it is tried again after a failure, 0 to 1000.
            timeout: How long an attempt may take, at most 30 days; as the type says by default.
            dedup_key: While a task with this key is pending or running, that one is returned and no other is written.
            depends_on: Tasks of the same tenant, or their ids, that have to end before this one begins. As they are
                there before this one, no circle can come of it.
            on_failure: What becomes of it where one of those fails or is cancelled: it is cancelled, or proceeds.

        Raises:
            InvalidError: The payload's class is not registered, or an argument is out of range.
            NotFoundError: There is no such task to depend on.
        """
        registered = self._registry.of_payload(payload)
        new = self._new(
            registered, priority=priority, run_at=run_at, delay=delay, max_retries=max_retries, timeout=timeout
        )
        key = checked_key(dedup_key)
        waits_for = _ids(depends_on)
        policy = named(on_failure, OnFailure, argument="on_failure")
        task_id = uuid7()
        as_json = registered.encode(payload)

        def work(session: Session) -> Task:
            if session.repeated and (written := repository.get(session, self._tenant_id, task_id)):
                return written
            waiting_on = self._waiting_on(session, waits_for, policy)
            task = repository.enqueue(
                session, new, task_id=task_id, payload=as_json, dedup_key=key, waiting_on=waiting_on
            )
            if waits_for and task.id == task_id:
                repository.depend(session, self._tenant_id, task_id, waits_for, on_failure=policy)
            return task

        return self._writing.run(work, single=not waits_for)

    def enqueue_many(
        self,
        payloads: Iterable[object | TaskInput],
        *,
        priority: int = Priority.NORMAL,
        run_at: datetime | None = None,
        delay: timedelta = timedelta(),
        max_retries: int = 3,
        timeout: timedelta | None = None,
    ) -> int:
        """Write many tasks, a thousand to a transaction; outside a transaction, those of before stay if it is cut off.

        Args:
            payloads: As for `enqueue`, all of one class; `TaskInput` for those with a key.
            priority: As for `enqueue`.
            run_at: As for `enqueue`.
            delay: As for `enqueue`.
            max_retries: As for `enqueue`.
            timeout: As for `enqueue`.

        Returns:
            How many were written: not those whose key is taken.

        Raises:
            InvalidError: A payload's class is not registered or not that of the others, or an argument is out of range.
        """

        def new_of(registered: RegisteredTask) -> NewTasks:
            return self._new(
                registered, priority=priority, run_at=run_at, delay=delay, max_retries=max_retries, timeout=timeout
            )

        batches = encoded(payloads, self._registry, new_of)
        return sum(self._write_many(batch, meanwhile) for batch, meanwhile in batches)

    def _write_many(self, batch: EncodedTasks, meanwhile: Callable[[], None] | None) -> int:
        def work(session: Session) -> int:
            if session.repeated and (there := len(repository.statuses(session, self._tenant_id, batch.ids))):
                return there
            return repository.enqueue_many(
                session,
                batch.new,
                task_ids=batch.ids,
                payloads=batch.payloads,
                dedup_keys=batch.keys,
                meanwhile=meanwhile,
            )

        return self._writing.run(work, single=True)

    def get(self, task_id: UUID) -> Task:
        """Return a task.

        Raises:
            NotFoundError: There is none, or it belongs to another tenant.
        """
        return self._found(
            self._reading.run(lambda session: repository.get(session, self._tenant_id, task_id), single=True), task_id
        )

    def list(self, *, status: TaskStatus | str | None = None, kind: str | None = None) -> Iterator[Task]:
        """Yield tasks, the newest first, page by page.

        Args:
            status: Only those that stand there.
            kind: Only those of this type.
        """
        wanted = None if status is None else named(status, TaskStatus, argument="status")
        before: Task | None = None
        while True:
            page = self._reading.run(
                lambda session, before=before: repository.page(  # type: ignore[misc]  # mypy cannot type the default
                    session, self._tenant_id, status=wanted, kind=kind, before=before, limit=_PAGE
                ),
                single=True,
            )
            yield from page
            if len(page) < _PAGE:
                return
            before = page[-1]

    def counts(self) -> Sequence[TaskCount]:
        """Return how many tasks of each type stand where."""
        return tuple(self._reading.run(lambda session: repository.counts(session, self._tenant_id), single=True))

    def errors(self, task: Task | UUID) -> Sequence[TaskError]:
        """Return the attempts of a task that failed, the first one first.

        Raises:
            NotFoundError: There is no such task.
        """
        task_id = _id(task)
        found = self._reading.run(lambda session: repository.errors(session, self._tenant_id, task_id), single=True)
        if not found:
            self.get(task_id)
        return tuple(found)

    def cancel(self, task: Task | UUID) -> Task:
        """Call a task off: at once while it waits; while it runs, its handler is told, and may end earlier for it.

        Raises:
            NotFoundError: There is no such task.
            ConflictError: It has ended.
        """
        task_id = _id(task)

        def work(session: Session) -> Task | None:
            cancelled = task_control.cancel(session, self._tenant_id, task_id)
            if cancelled is None and session.repeated:
                found = repository.get(session, self._tenant_id, task_id)
                return found if found is not None and found.cancel_requested else None
            if cancelled is not None and cancelled.status is TaskStatus.CANCELLED:
                session.batch([task_claims.release_dependents([task_id])])
            return cancelled

        return self._changed(work, task_id, "has ended")

    def retry(self, task: Task | UUID) -> Task:
        """Have a task run again that failed or was cancelled, with all its retries.

        Raises:
            NotFoundError: There is no such task.
            ConflictError: It has neither failed nor been cancelled.
        """
        task_id = _id(task)

        def work(session: Session) -> Task | None:
            again = task_control.retry(session, self._tenant_id, task_id)
            if again is None and session.repeated:
                found = repository.get(session, self._tenant_id, task_id)
                return found if found is not None and not found.is_finished else None
            return again

        return self._changed(work, task_id, "has neither failed nor been cancelled")

    def reschedule(self, task: Task | UUID, run_at: datetime) -> Task:
        """Change when a task that waits is to run.

        Raises:
            NotFoundError: There is no such task.
            ConflictError: It does not wait.
            InvalidError: `run_at` has no time zone.
        """
        task_id = _id(task)
        _check_time(run_at)
        return self._changed(
            lambda session: task_control.reschedule(session, self._tenant_id, task_id, run_at), task_id, "does not wait"
        )

    def wait(self, task: Task | UUID, *, timeout: timedelta = timedelta(seconds=60)) -> Task:
        """Wait until a task has ended, well or not, and return it; a worker has to run for that.

        Args:
            task: The task or its id.
            timeout: How long it is waited for.

        Raises:
            NotFoundError: There is no such task.
            TimeoutError: It has not ended by then.
            TransactionError: This is the queue of a transaction, which would not see the end.
        """
        if isinstance(self._reading, OpenTransaction):
            raise TransactionError("a transaction does not see what workers do: wait after it, with library.tasks.wait")
        deadline = time.monotonic() + timeout.total_seconds()
        polls = iter(_WAIT_POLLS_S)
        pause_s = 0.0
        while True:
            found = self.get(_id(task))
            left_s = deadline - time.monotonic()
            if found.is_finished:
                return found
            if left_s <= 0:
                raise TimeoutError(f"task {found.id} is {found.status} after {timeout}")
            pause_s = next(polls, pause_s)
            time.sleep(min(pause_s, left_s))

    def _common(self, registered: RegisteredTask, *, priority: int, max_retries: int) -> NewTasks:
        """Return what tasks of a type have in common that are written later: for periodic ones."""
        return self._new(
            registered, priority=priority, run_at=None, delay=timedelta(), max_retries=max_retries, timeout=None
        )

    def _changed(self, work: Callable[[Session], Task | None], task_id: UUID, otherwise: str) -> Task:
        changed = self._writing.run(work)
        if changed is None:
            found = self.get(task_id)
            raise ConflictError(f"task {task_id} {otherwise}: it is {found.status}")
        return changed

    def _found(self, task: Task | None, task_id: UUID) -> Task:
        if task is None:
            raise NotFoundError(f"there is no task {task_id}")
        return task

    def _waiting_on(self, session: Session, depends_on: Sequence[UUID], policy: OnFailure) -> int:
        """Return how many of the tasks have not ended.

        Raises:
            NotFoundError: One is not there.
            ConflictError: One has failed or was cancelled, and this one would be cancelled with it.
        """
        if not depends_on:
            return 0
        statuses = repository.statuses(session, self._tenant_id, depends_on)
        for task_id in depends_on:
            if task_id not in statuses:
                raise NotFoundError(f"there is no task {task_id} to depend on")
            if policy is OnFailure.CANCEL and statuses[task_id] in (TaskStatus.FAILED, TaskStatus.CANCELLED):
                raise ConflictError(
                    f"task {task_id}, which this one depends on, is {statuses[task_id]}; on_failure='proceed' "
                    "would have it run all the same"
                )
        return sum(status in (TaskStatus.PENDING, TaskStatus.RUNNING) for status in statuses.values())

    def _new(
        self,
        registered: RegisteredTask,
        *,
        priority: int,
        run_at: datetime | None,
        delay: timedelta,
        max_retries: int,
        timeout: timedelta | None,
    ) -> NewTasks:
        if run_at is not None:
            _check_time(run_at)
            if delay:
                raise InvalidError("run_at and delay say the same thing twice: leave one of them out")
        if not isinstance(delay, timedelta) or not timedelta() <= delay <= _MAX_DELAY:
            raise InvalidError(f"delay must be nothing to {_MAX_DELAY.days} days, not {delay!r}")
        if not isinstance(max_retries, int) or not 0 <= max_retries <= _MAX_RETRIES:
            raise InvalidError(f"max_retries must be 0 to {_MAX_RETRIES}, not {max_retries!r}")
        if not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
            raise InvalidError(f"priority must fit in 32 bits, not {priority!r}")
        if timeout is not None and not (isinstance(timeout, timedelta) and timedelta() < timeout <= _MAX_TIMEOUT):
            raise InvalidError(f"timeout must be longer than nothing, at most {_MAX_TIMEOUT.days} days: {timeout!r}")
        return NewTasks(
            tenant_id=self._tenant_id,
            task_type=registered.task_type,
            kind=registered.kind,
            priority=priority,
            run_at=run_at,
            delay=delay,
            max_retries=max_retries,
            timeout_s=None if timeout is None else timeout.total_seconds(),
            initiated_by=self._initiator,
            may_notify=self._registry.waker.may(),
            trace_context=_trace_context.current(),
        )


def _check_time(run_at: datetime) -> None:
    if not isinstance(run_at, datetime) or run_at.utcoffset() is None:
        raise InvalidError(f"run_at must have a time zone: {run_at!r}")
    if not _EARLIEST <= run_at < _LATEST:
        raise InvalidError(f"run_at must be of the years {_EARLIEST.year} to {_LATEST.year - 1}, not {run_at!r}")


def _id(task: Task | UUID) -> UUID:
    found = task.id if isinstance(task, Task) else task
    if not isinstance(found, UUID):
        raise InvalidError(f"a task is named by itself or by its id, not by {type(task).__name__}")
    return found


def _ids(tasks: Iterable[Task | UUID]) -> list[UUID]:
    found = list(dict.fromkeys(_id(task) for task in tasks))
    if len(found) > _MAX_DEPENDENCIES:
        raise InvalidError(f"a task depends on at most {_MAX_DEPENDENCIES} others, not {len(found)}")
    return found
