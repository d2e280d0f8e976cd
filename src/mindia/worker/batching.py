"""Tasks that a handler takes together: those of one type and one tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from mindia.domain.tasks import Task
from mindia.repositories.task_claims import NO_LIMITS
from mindia.worker.execution import Batch, Execution, Report, RunCoroutine
from mindia.worker.registry import TaskRegistry

if TYPE_CHECKING:
    from mindia.library import Library
    from mindia.worker.rounds import Rounds
    from mindia.worker.telemetry import Telemetry

_Group = tuple[str, UUID | None]


def topped_up(tasks: Sequence[Task], rounds: Rounds, registry: TaskRegistry) -> list[Task]:
    """Return tasks that were claimed, with as many more as make their batches full; as much as there are."""
    groups: dict[_Group, list[Task]] = {}
    for task in tasks:
        if _size(task, registry) > 1:
            groups.setdefault((task.kind, task.tenant_id), []).append(task)
    wanted: dict[int, list[Task]] = {}
    for group in groups.values():
        more = -len(group) % _size(group[0], registry)
        if more:
            wanted.setdefault(more, []).append(group[0])
    return [*tasks, *(task for more, of in wanted.items() for task in rounds.more(of, each=more))]


def in_batches(tasks: Sequence[Task], registry: TaskRegistry) -> Iterator[list[Task]]:
    """Yield tasks in their order, with each those behind it that its handler takes together with it."""
    yielded: set[int] = set()
    for at, task in enumerate(tasks):
        if task.id.int in yielded:
            continue
        yielded.add(task.id.int)
        batch = [task]
        size = _size(task, registry)
        if size > 1:
            for other in tasks[at + 1 :]:
                if len(batch) == size:
                    break
                if (
                    other.id.int not in yielded
                    and (other.kind, other.tenant_id) == (task.kind, task.tenant_id)
                    and _size(other, registry) > 1
                ):
                    yielded.add(other.id.int)
                    batch.append(other)
        yield batch


def execution_of(
    batch: Sequence[Task],
    registry: TaskRegistry,
    library_of: Callable[[UUID], Library],
    *,
    report: Report,
    run_coroutine: RunCoroutine,
    tracing: Telemetry | None = None,
) -> Execution | Batch:
    """Return an attempt of each task, to be run together where there is more than one."""
    executions = [
        Execution(task, registry, library_of, report=report, run_coroutine=run_coroutine, tracing=tracing)
        for task in batch
    ]
    return executions[0] if len(executions) == 1 else Batch(executions, registry.of_kind(batch[0].kind))


def _size(task: Task, registry: TaskRegistry) -> int:
    """Return how many tasks are run together with one: 1 where it has to be by itself."""
    registered = registry.of_kind(task.kind)
    if registered.batch_size == 1:
        return 1
    is_alone = (
        task.is_suspect
        or task.timeout_s is not None
        or registered.timeout is not None
        or registered.limits != NO_LIMITS
    )
    return 1 if is_alone else registered.batch_size
