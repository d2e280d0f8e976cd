"""What is told of attempts: log lines with fields, and the telemetry of the host."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mindia.domain.tasks import Task

if TYPE_CHECKING:
    from mindia.worker.execution import Execution, Outcome
    from mindia.worker.telemetry import Telemetry

_log = logging.getLogger("mindia.worker")


def fields(task: Task) -> dict[str, object]:
    """Return what a log line about a task carries beside its text, for handlers that write JSON and the like."""
    return {
        "task_id": str(task.id),
        "task_kind": task.kind,
        "task_attempt": task.attempt,
        "tenant_id": None if task.tenant_id is None else str(task.tenant_id),
    }


def tell_of(telemetry: Telemetry | None, ended: Sequence[Execution], outcomes: Sequence[Outcome]) -> None:
    """Tell of attempts that have ended, once that is on record."""
    if telemetry is not None:
        telemetry.ended(ended, outcomes)
    if not _log.isEnabledFor(logging.INFO):
        return
    for execution, outcome in zip(ended, outcomes, strict=True):
        task = execution.task
        _log.info(
            "task %s (%s) attempt %d: %s after %.3f s",
            task.id,
            task.kind,
            task.attempt,
            outcome.value,
            execution.duration_s,
            extra={**fields(task), "outcome": outcome.value, "duration_s": execution.duration_s},
        )
