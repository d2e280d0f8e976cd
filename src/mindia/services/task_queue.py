"""Background tasks: `library.tasks`, and `app.tasks` for those without a tenant."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from uuid import UUID

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.db.session import Session, Unit
from mindia.domain.tasks import Priority, Task
from mindia.errors import InvalidError, NotFoundError
from mindia.repositories import tasks as repository
from mindia.repositories._text import storable
from mindia.services.context import TenantContext
from mindia.worker.registry import TaskRegistry

_MAX_RETRIES = 1000
_MAX_DEDUP_KEY = 255


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
    def of_tenant(cls, context: TenantContext) -> Self:
        """Return the tasks of a tenant."""
        return cls(
            reading=context.as_viewer,
            writing=context.as_member,
            tenant_id=context.tenant_id,
            initiator=context.initiator,
            registry=context.registry,
        )

    @classmethod
    def of_system(cls, unit: Unit, registry: TaskRegistry) -> Self:
        """Return the tasks without a tenant."""
        return cls(reading=unit, writing=unit, tenant_id=None, initiator=None, registry=registry)

    def enqueue(
        self,
        payload: object,
        *,
        priority: int = Priority.NORMAL,
        run_at: datetime | None = None,
        max_retries: int = 3,
        dedup_key: str | None = None,
    ) -> Task:
        """Write a task; it runs once what it was written in has committed.

        Handlers run at least once: a worker that dies before it can say that it is done has its task run again.

        Args:
            payload: A value of a class that was registered with `app.register_task`.
            priority: Higher goes first; see `Priority`.
            run_at: Not before this time, with time zone.
            max_retries: How often it is tried again after a failure, 0 to 1000.
            dedup_key: While a task with this key is pending or running, that one is returned and no other is written.

        Raises:
            InvalidError: The payload's class is not registered, or an argument is out of range.
        """
        if run_at is not None and run_at.tzinfo is None:
            raise InvalidError(f"run_at must have a time zone: {run_at!r}")
        if not 0 <= max_retries <= _MAX_RETRIES:
            raise InvalidError(f"max_retries must be 0 to {_MAX_RETRIES}, not {max_retries}")
        if not -(2**31) <= priority < 2**31:
            raise InvalidError(f"priority must fit in 32 bits, not {priority}")
        if dedup_key is not None and (not 1 <= len(dedup_key) <= _MAX_DEDUP_KEY or storable(dedup_key) != dedup_key):
            raise InvalidError(f"dedup_key has 1 to {_MAX_DEDUP_KEY} characters of Unicode, no NUL: {dedup_key[:80]!r}")
        registered = self._registry.of_payload(payload)
        task_id = uuid7()
        encoded = registered.encode(payload)

        def work(session: Session) -> Task:
            if session.repeated and (written := repository.get(session, self._tenant_id, task_id)):
                return written
            return repository.enqueue(
                session,
                task_id=task_id,
                tenant_id=self._tenant_id,
                task_type=registered.task_type,
                kind=registered.kind,
                payload=encoded,
                priority=priority,
                run_at=run_at,
                max_retries=max_retries,
                dedup_key=dedup_key,
                initiated_by=self._initiator,
            )

        return self._writing.run(work)

    def get(self, task_id: UUID) -> Task:
        """Return a task.

        Raises:
            NotFoundError: There is none, or it belongs to another tenant.
        """
        task = self._reading.run(lambda session: repository.get(session, self._tenant_id, task_id), single=True)
        if task is None:
            raise NotFoundError(f"there is no task {task_id}")
        return task
