"""The log of requests: what the middleware costs, how fast rows are written, summaries of 10 million rows, an outage.

The middleware is called in process around an application that answers `ok`, in turns with that application alone, while
what it logs is being written. Rows are written from one process, with all indexes, beside COPY of the same rows into
the same table as its owner, whom row-level security does not hold. Summaries are of 30 days of 1,000 tenants, each
beside the same statement with the server's indexes turned off. At last the server is stopped for 30 s under load.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import attrs
import psycopg
from benchmarks._report import Figure, Goal, Options, options, report
from benchmarks._server import Server, server
from psycopg.conninfo import make_conninfo

import mindia
from mindia import MemoryStorage, Mindia, Settings
from mindia.db.embedded import EmbeddedServer
from mindia.repositories.request_log import Entry
from mindia.request_logging import AsyncRequestLogMiddleware, RequestLogMiddleware

_REPEATS = 5
_DAY = timedelta(days=1)
_END = datetime(2024, 6, 1, tzinfo=UTC)
_FILL = """
insert into mindia.request_logs
    (tenant_id, method, path, route, status_code, response_time_ms, bytes_sent, bytes_received, ip_address, user_agent,
     created_at)
select (%s::uuid[])[1 + floor(power(random(), 2) * %s)::int], (array['GET', 'GET', 'GET', 'POST'])[1 + n %% 4],
       '/part' || n %% 200 || '/' || n, '/part' || n %% 200 || '/{id}',
       (array[200, 200, 200, 200, 201, 304, 404, 500])[1 + (random() * 7)::int], floor(exp(random() * 7))::int,
       n %% 100000, 100, '10.0.0.' || n %% 256, 'Mozilla/5.0 (X11; Linux x86_64)',
       %s::timestamptz - interval '30 days' + n * (interval '30 days' / %s)
from generate_series(0, %s - 1) n
"""
_WITHOUT_INDEXES = "-c enable_indexscan=off -c enable_bitmapscan=off -c enable_indexonlyscan=off"


def main() -> None:
    """Measure and report."""
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # has much to say about a server that is away
    chosen = options(__doc__)
    figures: list[Figure] = []
    with server() as running:
        figures += _middleware(running, chosen)
        figures += _writing(running, chosen)
        figures += _summaries(running, chosen)
    figures += _outage(chosen)
    report(figures, chosen, packages=("psycopg",))


@contextmanager
def _app(url: str, **settings: Any) -> Iterator[Mindia]:
    with mindia.connect(url, storage=MemoryStorage(), settings=Settings(**settings)) as app:
        yield app


# What the middleware costs


async def _asgi(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def _wsgi(_: Any, start: Any) -> list[bytes]:
    start("200 OK", [])
    return [b"ok"]


_HEADERS = {"host": "example.org", "user-agent": "Mozilla/5.0 (X11; Linux x86_64)", "x-forwarded-for": "198.51.100.7"}


def _call_asgi(asgi: Any, count: int) -> float:
    headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None: ...

    async def call() -> float:
        began = time.perf_counter()
        for number in range(count):
            scope = {
                "type": "http", "method": "GET", "path": f"/media/{number}", "query_string": b"q=cat&token=abc&page=2",
                "headers": headers, "client": ("10.0.0.1", 4711),
            }  # fmt: skip
            await asgi(scope, receive, send)
        return time.perf_counter() - began

    return asyncio.run(call()) / count * 1e6


def _call_wsgi(wsgi: Any, count: int) -> float:
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in _HEADERS.items()}
    began = time.perf_counter()
    for number in range(count):
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": f"/media/{number}", "QUERY_STRING": "q=cat&token=abc&page=2",
            "REMOTE_ADDR": "10.0.0.1", **headers,
        }  # fmt: skip
        wsgi(environ, lambda *_: None)
    return (time.perf_counter() - began) / count * 1e6


def _middleware(running: Server, chosen: Options) -> list[Figure]:
    count = 500 if chosen.quick else 5_000
    figures = []
    with _app(running.url, request_log_capacity=1_000_000) as app:
        tenant = app.tenants.create("Bench").id
        how: dict[str, Any] = {"mindia": app, "tenant": lambda _: tenant, "trusted_proxies": ["10.0.0.0/8"]}
        kinds: dict[str, tuple[Callable[[Any, int], float], Any, Any]] = {
            "ASGI": (_call_asgi, _asgi, AsyncRequestLogMiddleware(_asgi, **how)),
            "WSGI": (_call_wsgi, _wsgi, RequestLogMiddleware(_wsgi, **how)),
        }
        for name, (call, bare, wrapped) in kinds.items():
            call(wrapped, count)
            bare_us, wrapped_us = [], []
            for _ in range(3 if chosen.quick else 15):
                bare_us.append(call(bare, count))
                wrapped_us.append(call(wrapped, count))
            added = median(after - before for before, after in zip(bare_us, wrapped_us, strict=True))
            figures += [
                Figure(name=f"{name}, bare application (us a request)", value=median(bare_us)),
                Figure(name=f"{name}, added by the middleware (us a request)", value=added, goal=Goal(45)),
            ]
    return figures


# How fast rows are written


def _entries(tenants: list[UUID], count: int) -> list[Entry]:
    now = time.time()
    return [
        Entry(
            tenants[number % len(tenants)].hex, "GET", f"/media/{number}?page=2", "/media/{id}", 200, number % 700,
            number, "", f"10.0.{number % 256}.7", _HEADERS["user-agent"], 0, now + number / 1000,
        )
        for number in range(count)
    ]  # fmt: skip


def _copy(url: str, entries: list[Entry], *, batch: int = 2_000) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        for start in range(0, len(entries), batch):
            with (
                connection.cursor() as cursor,
                cursor.copy(
                    "copy mindia.request_logs (tenant_id, method, path, route, status_code, response_time_ms, "
                    "bytes_sent, ip_address, user_agent, is_aborted, created_at) from stdin"
                ) as copy,
            ):
                for each in entries[start : start + batch]:
                    copy.write_row((
                        each.tenant_id, each.method, each.path, each.route, each.status_code, each.response_time_ms,
                        each.bytes_sent, each.ip_address, each.user_agent, bool(each.is_aborted),
                        datetime.fromtimestamp(each.began, UTC),
                    ))  # fmt: skip
        return len(entries) / (time.perf_counter() - began)


def _write(app: Mindia, entries: list[Entry]) -> float:
    began = time.perf_counter()
    for each in entries:
        app._request_log_writer.put(each)
    app.request_log.flush()
    return len(entries) / (time.perf_counter() - began)


def _writing(running: Server, chosen: Options) -> list[Figure]:
    count = 10_000 if chosen.quick else 200_000
    written, copied = [], []
    with _app(running.url, request_log_capacity=2 * count) as app:
        tenants = [app.tenants.create(f"Writing {number}").id for number in range(100)]
        entries = _entries(tenants, count)
        for _ in range(_REPEATS):
            written.append(_write(app, entries))
            copied.append(_copy(running.url, entries))
        assert app.request_log.buffer.dropped == 0
    rate, peer = median(written), median(copied)
    goal = Goal(25_000, at_least=True)
    return [Figure(name="written, beside COPY (rows/s)", value=rate, peer=peer, ratio=None, goal=goal)]


# Summaries


def _fill(running: Server, tenants: list[UUID], rows: int) -> None:
    """Write 30 days, as they come: the first of 1,000 tenants has 3 % of all."""
    with psycopg.connect(running.url, autocommit=True) as connection:
        connection.execute("truncate mindia.request_logs")
        connection.execute(
            _FILL,
            (tenants, len(tenants), _END, rows, rows),
        )
        connection.execute("vacuum analyze mindia.request_logs")


def _summaries(running: Server, chosen: Options) -> list[Figure]:
    rows, tenant_count = (100_000, 50) if chosen.quick else (10_000_000, 1_000)
    figures = []
    with ExitStack() as stack:
        app = stack.enter_context(_app(running.url))
        scanning = stack.enter_context(_app(make_conninfo(running.url, options=_WITHOUT_INDEXES)))
        tenants = [app.tenants.create(f"Read {number}").id for number in range(tenant_count)]
        _fill(running, tenants, rows)
        size = f"{rows / 1e6:g}M rows"
        for name, limit_ms, call in _questions(tenants[0]):
            ours, scans = [], []
            call(app)
            for _ in range(_REPEATS):
                ours.append(_ms(call, app))
                scans.append(_ms(call, scanning))
            value, peer = median(ours), median(scans)
            figures.append(Figure(name=f"{name}, {size} (ms)", value=value, peer=peer, ratio=None, goal=Goal(limit_ms)))
    return figures


Question = tuple[str, float, Callable[[Mindia], object]]


def _questions(tenant: UUID) -> list[Question]:
    day: dict[str, Any] = {"since": _END - _DAY, "until": _END}
    month: dict[str, Any] = {"since": _END - 30 * _DAY, "until": _END}

    def sums(by: str, span: dict[str, Any]) -> Callable[[Mindia], object]:
        return lambda app: app.library(tenant).request_log.summary(by, **span)

    return [
        *((f"a tenant's day by {by}", 200.0, sums(by, day)) for by in ("path", "method", "status", "hour")),
        ("a tenant's day, total", 200.0, lambda app: app.library(tenant).request_log.total(**day)),
        ("a tenant's 30 days by hour, counts", 1000.0, lambda app: app.library(tenant).request_log.counts(**month)),
        ("a tenant's 30 days by day", 1000.0, sums("day", month)),
        ("all tenants' day, total", 200.0, lambda app: app.request_log.total(**day)),
        ("all tenants' day by tenant", 1000.0, lambda app: app.request_log.summary("tenant", **day)),
        ("all tenants' day by path, percentiles", 1000.0, lambda app: app.request_log.summary("path", **day)),
        ("all tenants' 30 days by hour, counts", 1000.0, lambda app: app.request_log.counts(**month)),
    ]


def _ms(call: Callable[[Mindia], object], app: Mindia) -> float:
    began = time.perf_counter()
    call(app)
    return (time.perf_counter() - began) * 1000


# An outage


@attrs.define
class _Load:
    """Requests at a steady rate, and how long they took."""

    wsgi: Any
    stopped: threading.Event = attrs.field(factory=threading.Event)
    took: list[tuple[float, float]] = attrs.field(factory=list)

    def run(self) -> None:
        while not self.stopped.is_set():
            began = time.perf_counter()
            self.wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/media/17", "QUERY_STRING": ""}, lambda *_: None)
            self.took.append((began, (time.perf_counter() - began) * 1000))
            time.sleep(0.002)

    def slowest(self, since: float, until: float) -> float:
        return max(ms for began, ms in self.took if since <= began < until)


def _outage(chosen: Options) -> list[Figure]:
    away_s = 2.0 if chosen.quick else 30.0
    with tempfile.TemporaryDirectory(prefix="mindia-bench-") as folder:
        embedded = EmbeddedServer(Path(folder))
        try:
            url = make_conninfo(embedded.start())
            with _app(url, request_log_capacity=5_000) as app:
                app.migrate()
                tenant = app.tenants.create("Outage").id
                load = _Load(RequestLogMiddleware(_wsgi, mindia=app, tenant=lambda _: tenant))
                thread = threading.Thread(target=load.run)
                thread.start()
                try:
                    began = time.perf_counter()
                    time.sleep(away_s)
                    stops = time.perf_counter()
                    embedded.close()
                    time.sleep(away_s)
                    most = app.request_log.buffer.waiting
                    written = app.request_log.buffer.written
                    starts = time.perf_counter()
                    embedded = EmbeddedServer(Path(folder))
                    embedded.start()
                    back = time.perf_counter()
                    while app.request_log.buffer.written == written:
                        time.sleep(0.01)
                    goes_on = time.perf_counter()
                finally:
                    load.stopped.set()
                    thread.join()
                app.request_log.flush()
                state = app.request_log.buffer
                assert len(load.took) == state.written + state.dropped, "what was dropped is counted"
                return [
                    Figure(
                        name="slowest request while the database is away, beside before (ms)",
                        value=load.slowest(stops, starts),
                        peer=load.slowest(began, stops),
                        ratio=None,
                        goal=Goal(5),
                    ),
                    Figure(name="requests that wait in memory by then", value=most, goal=Goal(5_000)),
                    Figure(name="dropped, and counted", value=state.dropped),
                    Figure(name="logging goes on after it is back (s)", value=goes_on - back, goal=Goal(10)),
                ]
        finally:
            embedded.close()


if __name__ == "__main__":
    main()
