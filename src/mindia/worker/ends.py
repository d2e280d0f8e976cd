"""How attempts have ended, told to the queue: together with the claims of a round, or by a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from queue import SimpleQueue
from typing import Any
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Statement
from mindia.domain.tasks import TaskStatus
from mindia.errors import SnoozeTask
from mindia.repositories import task_claims
from mindia.worker.execution import Execution, Key, Outcome, delay_of, is_final, message_of, traceback_of, type_of
from mindia.worker.reporting import fields

_OUTCOMES = {
    TaskStatus.PENDING: Outcome.RETRIED,
    TaskStatus.FAILED: Outcome.FAILED,
    TaskStatus.CANCELLED: Outcome.FAILED,
}

_log = logging.getLogger("mindia.worker")


class Plan:
    """Statements, and who is told what they return.

    Attributes:
        is_flushed: Whether what they do survives a crash of the server for certain.
    """

    def __init__(self) -> None:
        self.statements: list[Statement[Any]] = []
        self.is_flushed = True
        self._told: list[Callable[[list[Any]], object] | None] = []

    def add(self, statement: Statement[Any], told: Callable[[list[Any]], object] | None = None) -> None:
        """Add a statement; `told` is called with its rows."""
        self.statements.append(statement)
        self._told.append(told)

    def run(self, database: Database) -> None:
        """Do all of it, in one transaction, or nothing.

        Raises:
            DatabaseError: It failed; whether it was done nobody knows where the connection was lost.
        """
        if not self.statements:
            return
        with database.transaction(ACROSS_TENANTS, single=True) as session:
            task_claims.set_up_round(session, is_flushed=self.is_flushed)
            answers = session.batch(self.statements)
        for told, rows in zip(self._told, answers, strict=True):
            if told is not None:
                told(rows)


class Ends:
    """Makes the statements that record ends, and remembers what is to be done once more. Not thread-safe."""

    def __init__(self, settings: Settings, worker_id: UUID) -> None:
        self._settings = settings
        self._worker_id = worker_id
        self._waited_for: Collection[UUID] = ()

    def plan(self, plan: Plan, ended: Sequence[Execution]) -> Callable[[], list[Outcome]]:
        """Add what records ends; return what tells how they came out, in their order, once the plan has run."""
        outcomes: dict[Key, Outcome] = {}
        done = [execution for execution in ended if execution.error is None]
        if done:
            plan.add(
                task_claims.complete(
                    worker_id=self._worker_id, ends=[(execution.task, execution.result) for execution in done]
                ),
                lambda ids: _completed(done, ids, outcomes),
            )
        for execution in ended:
            if execution.error is not None:
                self._plan_failure(plan, execution, execution.error, outcomes)
        if ended or self._waited_for:
            ids = [execution.task.id for execution in ended]
            plan.add(
                task_claims.release_dependents([*ids, *self._waited_for]),
                lambda waited_for: self._release_again(set(waited_for).intersection(ids)),
            )
        return lambda: [outcomes.get(execution.key, Outcome.LOST) for execution in ended]

    def _release_again(self, waited_for: Collection[UUID]) -> None:
        self._waited_for = waited_for

    def _plan_failure(
        self, plan: Plan, execution: Execution, error: BaseException, outcomes: dict[Key, Outcome]
    ) -> None:
        task = execution.task
        if isinstance(error, SnoozeTask):
            plan.add(
                task_claims.snooze(worker_id=self._worker_id, ended=task, delay=error.delay),
                lambda ids: outcomes.update(dict.fromkeys([execution.key] * len(ids), Outcome.SNOOZED)),
            )
            return
        message = message_of(error)
        _log.warning(
            "task %s (%s) attempt %d failed: %s: %s",
            task.id,
            task.kind,
            task.attempt,
            type(error).__name__,
            message,
            extra={**fields(task), "error_type": type_of(error)},
        )
        plan.add(
            task_claims.fail(
                worker_id=self._worker_id,
                ended=task,
                error_type=type_of(error),
                error_message=message,
                traceback=traceback_of(error),
                final=is_final(error),
                retry_after=delay_of(error),
                base=self._settings.retry_base,
                cap=self._settings.retry_cap,
            ),
            lambda rows: outcomes.update([(execution.key, _OUTCOMES[status]) for _, status in rows]),
        )


def _completed(done: Sequence[Execution], ids: Sequence[UUID], outcomes: dict[Key, Outcome]) -> None:
    if len(ids) < len(done):  # some were taken away meanwhile
        recorded = set(ids)
        done = [execution for execution in done if execution.task.id in recorded]
    outcomes.update((execution.key, Outcome.COMPLETED) for execution in done)


@attrs.frozen(kw_only=True)
class Recorded:
    """What came of recording ends.

    Attributes:
        ended: The attempts.
        outcomes: How they came out, in their order; None where that is not recorded yet.
        error: Why not.
    """

    ended: list[Execution]
    outcomes: list[Outcome] | None = None
    error: Exception | None = None


class Recorder:
    """Records many ends at a time beside the rounds, while there is so much to do that these are busy with claims.

    Args:
        database: Where the queue is.
        ends: Makes the statements; nobody else uses it.
        told: Is given what came of it.
    """

    def __init__(self, database: Database, ends: Ends, told: SimpleQueue[Any]) -> None:
        self._database = database
        self._ends = ends
        self._told = told
        self._given: SimpleQueue[list[Execution] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def record(self, ended: list[Execution]) -> None:
        """Record ends; one lot after the other."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mindia-recorder", daemon=True)
            self._thread.start()
        self._given.put(ended)

    def close(self) -> None:
        """Let the thread go, once it has done what it was given."""
        self._given.put(None)

    def _work(self) -> None:
        while (ended := self._given.get()) is not None:
            plan = Plan()
            try:
                outcomes = self._ends.plan(plan, ended)
                plan.run(self._database)
            except Exception as error:  # noqa: BLE001 - handed on: what is not recorded must not be forgotten
                self._told.put(Recorded(ended=ended, error=error))
            else:
                self._told.put(Recorded(ended=ended, outcomes=outcomes()))
