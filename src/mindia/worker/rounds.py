"""Rounds of a worker to the queue: what has ended goes there, what is due comes back, in one transaction."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.config import Settings
from mindia.db.database import Database
from mindia.domain.tasks import Task, WorkReport
from mindia.domain.webhooks import AttemptOutcome
from mindia.repositories import task_claims, workers
from mindia.worker.claiming import Claiming, Room
from mindia.worker.ends import Ends, Plan
from mindia.worker.execution import Execution, Outcome
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.delivery.dispatcher import Dispatcher
    from mindia.library import Library
    from mindia.services.maintenance import Maintenance
    from mindia.worker.schedules import Schedule
    from mindia.worker.telemetry import Telemetry


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
        telemetry: Where it tells of attempts, or None.
    """

    database: Database
    registry: TaskRegistry
    settings: Settings
    maintenance: Maintenance
    library_of: Callable[[UUID], Library]
    schedules: Sequence[Schedule]
    telemetry: Telemetry | None = None

    @property
    def tracing(self) -> Telemetry | None:
        """The telemetry, where somebody has set up tracing by now."""
        return self.telemetry if self.telemetry is not None and self.telemetry.is_traced else None


@attrs.frozen(kw_only=True)
class Round:
    """What came of a round.

    Attributes:
        tasks: Those that were taken, the most urgent first.
        outcomes: How the attempts ended, in their order.
    """

    tasks: list[Task]
    outcomes: list[Outcome]


class Rounds:
    """What one worker says to the queue. Not thread-safe."""

    def __init__(self, runtime: Runtime, worker_id: UUID, kinds: Sequence[str]) -> None:
        self._database = runtime.database
        self._worker_id = worker_id
        self._claiming = Claiming(worker_id, runtime.registry, kinds)
        self._ends = Ends(runtime.settings, worker_id)
        self._is_idle = False

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
        plan = Plan()
        outcomes = self._ends.plan(plan, ended)
        if give_back:
            plan.add(workers.give_back(worker_id=self._worker_id, tasks=give_back))
        if is_idle is not None and is_idle is not self._is_idle:
            plan.add(workers.idle(self._worker_id, is_idle=is_idle))
        tasks: list[Task] = []
        if room is not None:
            self._plan_claims(plan, room, tasks, time.monotonic())
        plan.is_flushed = bool(ended or give_back)
        plan.run(self._database)
        if is_idle is not None:
            self._is_idle = is_idle
        tasks = _in_order(tasks)
        if room is not None:
            self._claiming.claimed(tasks)
        return Round(tasks=tasks, outcomes=outcomes())

    def more(self, tasks: Sequence[Task], *, each: int) -> list[Task]:
        """Take more tasks of the type and tenant of each of these, so that a handler can take them together.

        Args:
            tasks: One for each type and tenant.
            each: How many more are wanted, at most.

        Raises:
            DatabaseError: As for `go`.
        """
        plan = Plan()
        taken: list[Task] = []
        for task in tasks:
            if task.tenant_id is not None:
                claim = task_claims.claim_tenants(
                    worker_id=self._worker_id,
                    kinds=[task.kind],
                    tenants=[task.tenant_id],
                    each=each,
                    limit=each,
                    limits=task_claims.NO_LIMITS,
                    with_suspects=False,
                )
                plan.add(claim, taken.extend)
        plan.run(self._database)
        return _in_order(taken)

    def _plan_claims(self, plan: Plan, room: Room, tasks: list[Task], begun_at: float) -> None:
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


def work_report(outcomes: Counter[Outcome], webhooks: Dispatcher, removed: int) -> WorkReport:
    """Return what a worker has done."""
    delivered = webhooks.outcomes[AttemptOutcome.DELIVERED]
    return WorkReport(
        completed=outcomes[Outcome.COMPLETED],
        failed=outcomes[Outcome.FAILED],
        retried=outcomes[Outcome.RETRIED],
        objects_removed=removed,
        events_delivered=delivered,
        deliveries_failed=webhooks.outcomes.total() - delivered,
    )


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (-task.priority, task.scheduled_for, task.id.int))
