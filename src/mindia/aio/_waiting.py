"""Waiting for a task without a thread."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID

from mindia.aio._threads import Lane
from mindia.domain.tasks import Task
from mindia.services.task_queue import TaskQueue

_LONGEST_S = 1.0


async def wait_for(queue: TaskQueue, lane: Lane, task: Task | UUID, *, timeout: timedelta) -> Task:
    """Look now and then whether a task has ended; see `TaskQueue.wait`."""
    deadline = time.monotonic() + timeout.total_seconds()
    pause_s = 0.01
    while True:
        try:
            return await lane.run(lambda: queue.wait(task, timeout=timedelta()))
        except TimeoutError as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"the task has not ended after {timeout}") from error
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_S)
