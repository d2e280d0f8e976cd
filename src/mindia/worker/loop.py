"""The loop around the rounds that ends when it is told to."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from queue import Empty, SimpleQueue
from types import FrameType

from mindia._handles import Handle
from mindia._ids import uuid7
from mindia.delivery.dispatcher import Dispatcher
from mindia.domain.tasks import Task, WorkReport
from mindia.errors import ClosedError, DatabaseError, DatabaseUnavailableError, InvalidError, TaskCancelledError
from mindia.worker.batching import execution_of, in_batches, topped_up
from mindia.worker.claiming import Room
from mindia.worker.ends import Ends, Recorded, Recorder
from mindia.worker.execution import Execution, Outcome, key_of
from mindia.worker.executor import EventLoop, Executor
from mindia.worker.heap import settled_heap
from mindia.worker.housekeeping import Housekeeping
from mindia.worker.listener import Listener
from mindia.worker.presence import Presence
from mindia.worker.reporting import tell_of
from mindia.worker.rounds import Rounds, Runtime, work_report

_MAX_RESERVE = 1_000
_RESERVE_S = 0.05
"""Tasks that take no time are taken so many at once that they last for so long."""

_GATHER_S = 0.02
_GATHER_POLL_S = 0.001
"""Ends are gathered for a moment, while there is enough in reserve, and recorded together."""

_RESERVE_WAITS_S = 1.0
"""What no thread has begun by then goes back to the queue: the tasks before it take longer than was thought."""

_FEW = 4
"""Where no more came at once, the queue is as good as empty: the worker goes on to be told of each task."""

_SOON_S, _FOR_S = 0.025, 0.1
"""Who has just woken a worker does not tell of the next task: for a while, the worker looks by itself."""

_RECORD_AGAIN_S = 0.5

_MANY = 50
"""So many ends are recorded beside the next round, which takes as long for its claims; fewer go along with it."""

_MAX_LIBRARIES = 256
"""Making the library of a tenant takes longer than all else about a short task: the latest are kept."""

_log = logging.getLogger("mindia.worker")


class Worker(Handle):
    """Runs tasks until it is told to stop. It runs once.

    A handler may raise anything: the attempt has failed and is recorded, also where it calls `sys.exit`.

    Args:
        runtime: What it works with.
        concurrency: How many tasks it runs at once, each in a thread.
        types: The types that it runs; all by default.
        shutdown_timeout_s: How long it waits for running tasks when it stops; then they are put back for others. Their
            threads end with the process.
        webhooks: Whether it delivers events to webhooks, too.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        concurrency: int = 4,
        types: Sequence[str] | None = None,
        shutdown_timeout_s: float = 30.0,
        webhooks: bool = True,
    ) -> None:
        if concurrency < 1:
            raise InvalidError(f"concurrency must be at least 1, not {concurrency}")
        if not shutdown_timeout_s >= 0:
            raise InvalidError(f"shutdown_timeout_s must not be negative: {shutdown_timeout_s}")
        self._runtime = runtime
        self._kinds = runtime.registry.kinds if types is None else runtime.registry.checked(types)
        self._concurrency = concurrency
        self._shutdown_timeout_s = shutdown_timeout_s
        self._worker_id = uuid7()
        self._delivers = webhooks
        self._webhooks = Dispatcher(
            runtime.database, runtime.settings, worker_id=self._worker_id, shutdown_timeout_s=shutdown_timeout_s
        )
        self._has_run = threading.Lock()
        self._stopping = self._stopping_now = False
        # Ends of attempts, and what came of recording them; None only wakes. A signal handler may put into it whatever
        # was interrupted: an event or a condition could be locked by the very thread that the handler runs in.
        self._ends: SimpleQueue[Execution | Recorded | None] = SimpleQueue()
        self._executor = Executor(concurrency, self._ends.put)
        self._event_loop = EventLoop()
        self._library_of = lru_cache(_MAX_LIBRARIES)(runtime.library_of)
        self._unrecorded: list[Execution] = []
        self._recording: list[Execution] = []
        self._may_hold_more = False
        self._woken_at = self._beside_from = 0.0
        self._duration_s: float | None = None
        self._suspects = 0
        self._outcomes: Counter[Outcome] = Counter()

    def run(self) -> WorkReport:
        """Work until `stop` is called, or SIGTERM or SIGINT arrives where this is the main thread.

        A second signal stops at once. Outages of the database are waited for, also at the start.

        Raises:
            ClosedError: It has run before, or the application was closed.
            SchemaError: The tables do not fit this version of Mindia.
            DatabaseTooOldError: PostgreSQL or pgvector is too old.
            RoleError: The role on the server sees one tenant at a time.
        """
        if not self._has_run.acquire(blocking=False):
            raise ClosedError("this worker has run: make another one with app.worker()")
        worker_id = self._worker_id
        who = {"worker_id": str(worker_id)}
        presence = Presence(
            self._runtime,
            worker_id,
            concurrency=self._concurrency,
            kinds=self._kinds,
            on_cancel=self._executor.cancel,
        )
        rounds = Rounds(self._runtime, worker_id, self._kinds)
        recorder = Recorder(self._runtime.database, Ends(self._runtime.settings, worker_id), self._ends)
        housekeeping = Housekeeping(self._runtime)
        with self._signals(), settled_heap():
            if self._first_beat(presence):
                with presence.alive():
                    _log.info("worker %s started, concurrency %d", worker_id, self._concurrency, extra=who)
                    listener = Listener(self._runtime, on_task=self._wake, on_event=self._webhooks.wake)
                    delivering = self._webhooks.running() if self._delivers else nullcontext()
                    with housekeeping.running(), delivering, listener.listening():
                        try:
                            self._work(rounds, recorder, presence)
                        finally:
                            self._webhooks.stop()
                            self._drain(rounds, worker_id)
                            recorder.close()
        _log.info("worker %s stopped", worker_id, extra=who)
        return work_report(self._outcomes, self._webhooks, housekeeping.removed)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what runs has ended, or after the shutdown time-out."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        self._ends.put(None)

    def _first_beat(self, presence: Presence) -> bool:
        """Wait until the database can be reached; False where the worker is told to stop before."""
        while not self._stopping:
            try:
                presence.beat()
            except DatabaseUnavailableError as error:
                _log.warning("the worker waits for the database: %s", error)
                self._gather(self._runtime.settings.heartbeat.total_seconds())
            else:
                return True
        return False

    def _work(self, rounds: Rounds, recorder: Recorder, presence: Presence) -> None:
        taken = 0
        while not self._stopping:
            room = self._room()
            try:
                if self._may_hold_more:
                    ended = [each.task for each in (*self._recording, *self._unrecorded)]
                    presence.put_back(keep=[*self._held(), *ended])
                    self._may_hold_more = False
                has_few = rounds.was_empty or (rounds.is_idle and taken <= _FEW)
                is_idle = has_few and room is not None and room.free > 0
                stays_idle = is_idle and rounds.is_idle
                self._may_hold_more = True
                if room is not None and self._may_record_beside():
                    self._recording, self._unrecorded = self._unrecorded, []
                    recorder.record(self._recording)
                taken = self._go(rounds, presence, room, is_idle=is_idle)
                self._may_hold_more = False
            except DatabaseError as error:
                _log.warning("the queue cannot be reached: %s", error)
                self._gather(_RECORD_AGAIN_S)
                continue
            if not self._may_have_more(rounds, taken=taken, stays_idle=stays_idle):
                self._gather(self._pause_s(rounds, room))

    def _may_record_beside(self) -> bool:
        return len(self._unrecorded) >= _MANY and not self._recording and time.monotonic() > self._beside_from

    def _may_have_more(self, rounds: Rounds, *, taken: int, stays_idle: bool) -> bool:
        """Tell whether the next round may come at once."""
        room = self._room()
        if room is None or not room.free:
            return False
        if taken:
            return rounds.is_shared or not self._executor.hand
        # Idle is said together with a claim: what was written before that was seen is found only by the next one.
        return rounds.was_empty and not (rounds.found_all and stays_idle)

    def _go(self, rounds: Rounds, presence: Presence, room: Room | None, *, is_idle: bool) -> int:
        # What goes on being recorded beside is waited for: the rest goes there as well, if it is much.
        ended = [] if self._recording and len(self._unrecorded) >= _MANY else self._unrecorded
        done = rounds.go(ended=ended, room=room, give_back=self._overstayed(), is_idle=is_idle)
        if ended:
            self._unrecorded = []
            self._count(ended, done.outcomes)
        tasks = self._with_one_suspect(rounds, done.tasks)
        if room is not None and len(done.tasks) >= room.limit:
            tasks = topped_up(tasks, rounds, self._runtime.registry)
        # A claim that a crash of the server took back, and that was made again: its attempt goes on here all the while.
        tasks = [task for task in tasks if key_of(task) not in self._executor.hand]
        tracing = self._runtime.tracing
        for batch in in_batches(tasks, self._runtime.registry):
            if self._stopping:
                break  # what is not begun is put back at the end
            self._suspects += sum(task.is_suspect for task in batch)
            self._executor.submit(
                execution_of(
                    batch,
                    self._runtime.registry,
                    self._library_of,
                    report=presence.report,
                    run_coroutine=self._event_loop.run,
                    tracing=tracing,
                )
            )
        return len(tasks)

    def _with_one_suspect(self, rounds: Rounds, tasks: list[Task]) -> list[Task]:
        """Give back what may have killed a worker, but for one: whichever it is takes none of the others with it."""
        suspects = [task for task in tasks if task.is_suspect][max(0, 1 - self._suspects) :]
        if suspects:
            rounds.go(give_back=suspects)
            tasks = [task for task in tasks if task not in suspects]
        return tasks

    def _count(self, ended: Sequence[Execution], outcomes: Sequence[Outcome]) -> None:
        self._outcomes.update(outcomes)
        tell_of(self._runtime.telemetry, ended, outcomes)
        self._suspects -= sum(execution.task.is_suspect for execution in ended)

    def _room(self) -> Room | None:
        """Return how many tasks there is room for, unless there are enough for now."""
        held = self._executor.held
        reserve = 0
        if self._duration_s is not None and not self._suspects:
            reserve = min(_MAX_RESERVE, int(self._concurrency * _RESERVE_S / max(self._duration_s, 1e-5)))
        limit = self._concurrency + reserve - held
        if limit <= 0 or (reserve and limit < reserve // 2):
            return None
        return Room(
            limit=limit, free=max(0, self._concurrency - held), threads=self._concurrency, suspects=not self._suspects
        )

    def _held(self) -> list[Task]:
        return [execution.task for execution in list(self._executor.hand.values())]

    def _overstayed(self) -> list[Task]:
        """Return the tasks that wait for a thread although they were thought to be short."""
        if not self._executor.waiting or time.monotonic() - self._executor.fed_at < _RESERVE_WAITS_S:
            return []
        self._duration_s = None
        return [execution.task for execution in self._executor.take_back()]

    def _pause_s(self, rounds: Rounds, room: Room | None) -> float:
        """Return how long to wait for the next end, or wake-up."""
        if room is None or (self._executor.hand and not rounds.found_all):
            poll = _RESERVE_WAITS_S
        else:
            poll = self._runtime.settings.poll.total_seconds()
            if time.monotonic() < self._woken_at + _FOR_S:
                poll = min(poll, _SOON_S)
        overdue = self._executor.end_overdue()
        return poll if overdue is None else min(poll, overdue + _GATHER_POLL_S)

    def _gather(self, timeout_s: float) -> None:
        """Wait for an end or a wake-up, at most so long, and take account of all ends that there are."""
        try:
            self._take(self._ends.get(timeout=max(0.0, timeout_s)))
        except Empty:
            self._executor.end_overdue()
            return
        until = time.monotonic() + _GATHER_S
        while self._executor.waiting > self._concurrency and self._enough() and time.monotonic() < until:
            time.sleep(_GATHER_POLL_S)
        while True:
            try:
                self._take(self._ends.get_nowait())
            except Empty:
                return

    def _enough(self) -> bool:
        return not self._stopping and self._executor.waiting > len(self._executor.hand) // 2

    def _take(self, execution: Execution | Recorded | None) -> None:
        if execution is None:
            self._woken_at = time.monotonic()
            return
        if isinstance(execution, Recorded):
            self._recorded(execution)
            return
        self._executor.forget(execution)
        self._unrecorded.append(execution)
        took_s = execution.duration_s
        self._duration_s = took_s if self._duration_s is None else 0.9 * self._duration_s + 0.1 * took_s

    def _recorded(self, recorded: Recorded) -> None:
        self._recording = []
        if recorded.outcomes is not None:
            self._count(recorded.ended, recorded.outcomes)
            return
        _log.warning("the ends of %d tasks cannot be recorded yet: %s", len(recorded.ended), recorded.error)
        self._unrecorded = [*recorded.ended, *self._unrecorded]
        self._beside_from = time.monotonic() + _RECORD_AGAIN_S

    def _drain(self, rounds: Rounds, worker_id: object) -> None:
        """Wait for what runs, record it, and let the rest be put back."""
        self._executor.take_back()
        deadline = time.monotonic() + self._shutdown_timeout_s
        _log.info("worker %s stops, %d tasks still run", worker_id, len(self._executor.hand))
        while True:
            if self._unrecorded:
                try:
                    ended = self._unrecorded
                    self._count(ended, rounds.go(ended=ended).outcomes)
                    self._unrecorded = []
                except DatabaseError as error:
                    _log.warning("the ends of %d tasks cannot be recorded yet: %s", len(self._unrecorded), error)
            left_s = deadline - time.monotonic()
            if self._stopping_now or left_s <= 0 or not (self._executor.hand or self._recording or self._unrecorded):
                break
            self._gather(min(left_s, _RECORD_AGAIN_S if self._unrecorded else left_s))
        if self._executor.hand:
            _log.warning("%d tasks still run; they are put back for other workers", len(self._executor.hand))
            self._executor.end_all(TaskCancelledError("the worker stops"))
        self._executor.close()
        self._event_loop.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: FrameType | None) -> None:  # noqa: ARG001 - of the signal's interface
            self._stopping_now = self._stopping
            self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # set by somebody else than Python: cannot be put back
                    signal.signal(number, handler)
