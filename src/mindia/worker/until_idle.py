"""The loop around the rounds that ends when nothing is due."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mindia._ids import uuid7
from mindia.delivery.dispatcher import Dispatcher
from mindia.domain.tasks import Task, TaskType, WorkReport
from mindia.errors import TaskCancelledError, TaskTimedOutError
from mindia.worker.batching import execution_of, in_batches, topped_up
from mindia.worker.claiming import Room
from mindia.worker.execution import Execution, Outcome
from mindia.worker.executor import EventLoop
from mindia.worker.housekeeping import Housekeeping
from mindia.worker.presence import Presence
from mindia.worker.reporting import tell_of
from mindia.worker.rounds import Rounds, Runtime, work_report

_CLAIM_WHEN_IDLE = 16


def run_until_idle(runtime: Runtime) -> WorkReport:
    """Run the tasks that are due, one after the other, deliver events, and do the maintenance, until nothing is left.

    Whatever a handler raises, also by `sys.exit`, is a failure of its task; only Ctrl-C passes.

    Raises:
        DatabaseUnavailableError: The database cannot be reached, or was lost on the way.
    """
    kinds = runtime.registry.kinds
    worker_id = uuid7()
    outcomes: Counter[Outcome] = Counter()
    current: list[Execution] = []

    def cancel(task_id: object) -> None:
        for execution in current:
            if execution.task.id == task_id:
                execution.cancel(TaskCancelledError(f"task {task_id} was cancelled"))

    room = Room(limit=_CLAIM_WHEN_IDLE, free=1, threads=1)
    presence = Presence(runtime, worker_id, concurrency=1, kinds=kinds, on_cancel=cancel)
    rounds = Rounds(runtime, worker_id, kinds)
    housekeeping = Housekeeping(runtime)
    presence.beat()
    with ExitStack() as stack:
        stack.enter_context(presence.alive())
        event_loop = EventLoop()
        stack.callback(event_loop.close)
        presence.rescue()
        housekeeping.reconcile()
        housekeeping.fire()
        tasks: list[Task] = []
        ended: list[Execution] = []
        while True:
            if not tasks:
                tasks = rounds.go(room=room).tasks
                if not tasks and rounds.found_all:
                    break
                if len(tasks) >= room.limit:
                    tasks = topped_up(tasks, rounds, runtime.registry)
                continue
            batch = next(in_batches(tasks, runtime.registry))
            tasks = [task for task in tasks if task not in batch]
            task = batch[-1]
            execution = execution_of(
                batch,
                runtime.registry,
                runtime.library_of,
                report=presence.report,
                run_coroutine=event_loop.run,
                tracing=runtime.tracing,
            )
            current[:] = execution.members
            with _timer(execution.members[0]):
                execution.run()
            ended += current
            if task.task_type is TaskType.CUSTOM or not tasks:
                # At once: what the host's next one enqueues, or asks, is to find it ended.
                latest = rounds.go(ended=ended).outcomes
                outcomes.update(latest)
                tell_of(runtime.telemetry, ended, latest)
                ended = []
        housekeeping.settle_videos()
        webhooks = Dispatcher(runtime.database, runtime.settings)
        webhooks.run_until_idle()
        housekeeping.maintain()
        housekeeping.remove_deleted_tenants()
    return work_report(outcomes, webhooks, housekeeping.removed)


@contextmanager
def _timer(execution: Execution) -> Iterator[None]:
    """Tell a handler in this thread when its time is over. It has failed then, but cannot be left behind here."""
    if execution.timeout_s is None:
        yield
        return
    why = TaskTimedOutError(f"the attempt took longer than {execution.timeout_s:g} s")
    timer = threading.Timer(execution.timeout_s, execution.give_up, (why,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
