"""Rounds of a worker to the queue: what has ended goes there, what is due comes back, in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.database import Database
from mindia.db.session import ACROSS_TENANTS, Statement
from mindia.domain.tasks import Task, TaskStatus
from mindia.errors import SnoozeTask
from mindia.repositories import task_claims, workers
from mindia.worker.claiming import Claiming, Room
from mindia.worker.execution import Execution, Outcome, delay_of, is_final, message_of, traceback_of, type_of
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.library import Library
    from mindia.services.maintenance import Maintenance
    from mindia.worker.schedules import Schedule

_log = logging.getLogger("mindia.worker")


@attrs.frozen(kw_only=True)
class Runtime:
    """What a worker works with.

    Attributes:
        database: Where the queue is.
        registry: Types and handlers.
        settings: Times.
        maintenance: Work besides tasks.
        library_of: Returns the library of a tenant.
        schedules: The periodic tasks.
    """

    database: Database
    registry: TaskRegistry
    settings: Settings
    maintenance: Maintenance
    library_of: Callable[[UUID], Library]
    schedules: Sequence[Schedule]


@attrs.frozen(kw_only=True)
class Round:
    """What came of a round.

    Attributes:
        tasks: Those that were taken.
        outcomes: How the attempts ended, in their order.
    """

    tasks: list[Task]
    outcomes: list[Outcome]


class Rounds:
    """What one worker says to the queue. Not thread-safe."""

    def __init__(self, runtime: Runtime, worker_id: UUID, kinds: Sequence[str]) -> None:
        self._database = runtime.database
        self._settings = runtime.settings
        self._worker_id = worker_id
        self._claiming = Claiming(worker_id, runtime.registry, kinds)
        self._is_idle = False
        self._waited_for: Collection[UUID] = ()

    @property
    def found_all(self) -> bool:
        """Whether the latest round would have brought more tasks, had there been any."""
        return self._claiming.found_all

    @property
    def was_empty(self) -> bool:
        """Whether the latest round for tasks has brought none."""
        return self._claiming.was_empty

    @property
    def is_idle(self) -> bool:
        """Whether it is on record that the worker waits."""
        return self._is_idle

    @property
    def is_shared(self) -> bool:
        """Whether a round may leave threads free although there are tasks for them."""
        return self._claiming.is_shared

    def go(
        self,
        *,
        ended: Sequence[Execution] = (),
        room: Room | None = None,
        give_back: Sequence[Task] = (),
        is_idle: bool | None = None,
    ) -> Round:
        """Record ends, take tasks; all of it or nothing.

        Args:
            ended: Attempts that have ended.
            room: How many tasks are wanted; None for none.
            give_back: Tasks that were taken and not begun, and are for others now.
            is_idle: Whether the worker waits from now on, so that it is to be woken; None for as before.

        Raises:
            DatabaseError: It failed; whether it was done nobody knows where the connection was lost.
        """
        plan = _Plan()
        outcomes = self._plan_ends(plan, ended)
        if give_back:
            plan.add(workers.give_back(worker_id=self._worker_id, tasks=give_back))
        if is_idle is not None and is_idle is not self._is_idle:
            plan.add(workers.idle(self._worker_id, is_idle=is_idle))
        tasks: list[Task] = []
        begun_at = time.monotonic()
        if room is not None:
            self._plan_claims(plan, room, tasks, begun_at)
        if plan.statements:
            with self._database.transaction(ACROSS_TENANTS, single=True) as session:
                answers = session.batch(plan.statements)
            plan.take(answers)
        if is_idle is not None:
            self._is_idle = is_idle
        if room is not None:
            self._claiming.claimed(tasks)
        return Round(tasks=tasks, outcomes=[outcomes.get(execution.key, Outcome.LOST) for execution in ended])

    def _plan_claims(self, plan: _Plan, room: Room, tasks: list[Task], begun_at: float) -> None:
        probe = self._claiming.probe()
        if probe is not None:
            plan.add(
                probe,
                lambda tenants: self._claiming.probed(tenants, took_s=time.monotonic() - begun_at),
            )
        for group in self._claiming.statements(room):
            for statement in group[:-1]:
                plan.add(statement)
            plan.add(group[-1], tasks.extend)

    def _plan_ends(self, plan: _Plan, ended: Sequence[Execution]) -> dict[tuple[UUID, int], Outcome]:
        outcomes: dict[tuple[UUID, int], Outcome] = {}
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
        return outcomes

    def _release_again(self, waited_for: Collection[UUID]) -> None:
        self._waited_for = waited_for

    def _plan_failure(
        self, plan: _Plan, execution: Execution, error: BaseException, outcomes: dict[tuple[UUID, int], Outcome]
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
            "task %s (%s) attempt %d failed: %s: %s", task.id, task.kind, task.attempt, type(error).__name__, message
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


def _completed(done: Sequence[Execution], ids: Sequence[UUID], outcomes: dict[tuple[UUID, int], Outcome]) -> None:
    if len(ids) < len(done):  # some were taken away meanwhile
        recorded = set(ids)
        done = [execution for execution in done if execution.task.id in recorded]
    outcomes.update((execution.key, Outcome.COMPLETED) for execution in done)


_OUTCOMES = {
    TaskStatus.PENDING: Outcome.RETRIED,
    TaskStatus.FAILED: Outcome.FAILED,
    TaskStatus.CANCELLED: Outcome.FAILED,
}


class _Plan:
    """Statements, and who is told what they return."""

    def __init__(self) -> None:
        self.statements: list[Statement[Any]] = []
        self._told: list[Callable[[list[Any]], object] | None] = []

    def add(self, statement: Statement[Any], told: Callable[[list[Any]], object] | None = None) -> None:
        self.statements.append(statement)
        self._told.append(told)

    def take(self, answers: Sequence[list[Any]]) -> None:
        for told, rows in zip(self._told, answers, strict=True):
            if told is not None:
                told(rows)
