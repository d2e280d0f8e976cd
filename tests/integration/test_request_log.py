"""Requests are logged off the path of whoever serves them, and summed up for a tenant and for all."""

from __future__ import annotations

import csv
import io
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import attrs
import psycopg
import pytest
from tests.faults.proxy import Moment, Proxy
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, MemoryStorage, Mindia, RequestGroup, Settings
from mindia.errors import (
    ClosedError,
    ConnectionLostError,
    DatabaseUnavailableError,
    InvalidError,
    MissingExtraError,
    PermissionDeniedError,
)
from mindia.services import request_log_writer

NOON = datetime(2024, 5, 3, 12, tzinfo=UTC)
THAT_DAY: dict[str, Any] = {"since": NOON - timedelta(hours=12), "until": NOON + timedelta(hours=12)}


@pytest.fixture
def own(fresh_database_url: str) -> Iterator[Mindia]:
    """An application whose database nobody else logs to."""
    with mindia.connect(fresh_database_url, storage=MemoryStorage(), settings=SETTINGS) as own:
        yield own


def log(library: Library | Mindia, path: str, status: int = 200, ms: float = 10, **more: Any) -> None:
    library.request_log.record(more.pop("method", "GET"), path, status, response_time_ms=ms, began_at=NOON, **more)


def test_what_is_recorded_is_in_the_log_of_its_tenant(app: Mindia, library: Library) -> None:
    began = datetime.now(UTC)
    library.request_log.record(
        "POST", "/media/17?q=cat", 201, response_time_ms=12.4, bytes_sent=5, bytes_received=2**40,
        ip_address="2001:DB8:0::1", user_agent="curl/8", is_aborted=True,
    )  # fmt: skip
    library.request_log.record("GET", "/", 200, response_time_ms=0)
    app.request_log.flush()

    second, first = library.request_log.list()
    assert (first.method, first.path, first.route, first.status_code) == ("POST", "/media/17?q=cat", "/media/{id}", 201)
    assert (first.response_time_ms, first.bytes_sent, first.bytes_received) == (12, 5, 2**40)
    assert (first.ip_address, first.user_agent, first.is_aborted) == ("2001:db8::1", "curl/8", True)
    assert (first.tenant_id, second.bytes_sent, second.ip_address) == (library.tenant_id, None, None)
    assert abs(second.created_at - began) < timedelta(minutes=1)
    assert library.request_log.list(limit=1) == [second]
    assert library.request_log.list(limit=1, before=second) == [first]
    assert library.request_log.list(path="/media/{id}") == library.request_log.list(status_code=201) == [first]
    assert app.library(app.tenants.create("Globex")).request_log.list() == []


@pytest.mark.parametrize(
    "text", ["/a\nb", "/nul\0", "/\ud800", "/" + "x" * 5000, "/ü€🦆", "/\\N", "/'\"", "/%s", "\n\n"]
)
def test_whatever_stands_in_a_request_does_no_harm_to_it_or_its_neighbours(
    app: Mindia, library: Library, text: str
) -> None:
    log(library, "/before")
    log(library, text, user_agent=text, method=text)
    log(library, "/after")
    app.request_log.flush()

    rows = library.request_log.list(**THAT_DAY)
    assert {row.path for row in rows} > {"/before", "/after"}
    assert len(rows) == 3


def test_requests_are_written_by_themselves(app: Mindia, library: Library, host: psycopg.Connection[Any]) -> None:
    log(library, "/")
    closing = threading.Thread(target=app.close)  # which writes what is left
    closing.start()
    closing.join()

    row = host.execute("select count(*) from mindia.request_logs where tenant_id = %s", (library.tenant_id,)).fetchone()
    assert row == (1,)
    assert app._request_log_writer.state() == mindia.RequestLogBuffer(waiting=0, written=1, dropped=0)
    with pytest.raises(ClosedError):
        log(library, "/")


def test_those_of_unknown_and_deleted_tenants_are_dropped_and_counted(app: Mindia, library: Library) -> None:
    gone = app.library(app.tenants.create("Initech"))
    app.tenants.delete(gone.tenant_id)
    for each in (library, gone, app.library(uuid4()), library):
        log(each, "/")
    app.request_log.flush()

    assert attrs.astuple(app.request_log.buffer) == (0, 2, 2)
    assert library.request_log.total(**THAT_DAY).requests == 2


def test_memory_is_bounded_while_the_database_is_away_and_what_has_no_room_is_counted() -> None:
    settings = Settings(request_log_capacity=100, pool_timeout_s=0.2)
    url = "postgresql://nobody@127.0.0.1:1/none"
    with mindia.connect(url, storage=MemoryStorage(), settings=settings) as app:
        for _ in range(1000):
            app.request_log.record("GET", "/", 200, response_time_ms=1)
        with pytest.raises(DatabaseUnavailableError):
            app.request_log.flush()
        state = app.request_log.buffer
        assert (state.waiting, state.written, state.dropped) == (100, 0, 900)
    assert app._request_log_writer.state().dropped == 1000, "also what was waiting at the end"


def test_requests_without_a_tenant_are_for_admins_of_the_host_alone(own: Mindia) -> None:
    library = own.library(own.tenants.create("Acme"))
    log(own, "/login", 401)
    log(library, "/media", 200)
    own.request_log.flush()

    assert [each.path for each in library.request_log.list(**THAT_DAY)] == ["/media"]
    assert {each.path for each in own.request_log.list(**THAT_DAY)} == {"/media", "/login"}
    by_tenant = own.request_log.summary("tenant", order="key", **THAT_DAY)
    assert [(each.key, each.requests, each.refused) for each in by_tenant] == [(library.tenant_id, 1, 0), (None, 1, 1)]
    with pytest.raises(InvalidError, match=r"app\.request_log"):
        library.request_log.summary("tenant")


def test_a_single_request_without_a_tenant_is_written(own: Mindia) -> None:
    log(own, "/health")
    own.request_log.flush()

    assert [each.path for each in own.request_log.list(**THAT_DAY)] == ["/health"]
    assert own.request_log.buffer.dropped == 0


def test_a_role_that_is_held_to_tenants_logs_for_each(application_url: str, app: Mindia, library: Library) -> None:
    other = app.library(app.tenants.create("Globex"))
    with mindia.connect(application_url, storage=MemoryStorage(), settings=SETTINGS) as held:  # without a worker role
        for tenant in (library.tenant_id, other.tenant_id, library.tenant_id):
            log(held.library(tenant), "/")
        log(held, "/")
        held.request_log.flush()
        assert attrs.astuple(held.request_log.buffer) == (0, 3, 1)
    assert [each.request_log.total(**THAT_DAY).requests for each in (library, other)] == [2, 1]


@pytest.fixture
def busy(app: Mindia, library: Library) -> Library:
    """100 requests for items, of 1 to 100 ms, and a few others."""
    for ms in range(1, 101):
        log(library, f"/media/{ms}", ms=ms, bytes_sent=10, bytes_received=1)
    log(library, "/slow", 500, ms=900, method="POST", is_aborted=True)
    log(library, "/slow", 404, ms=800)
    library.request_log.record(
        "GET", "/", 200, response_time_ms=5, began_at=NOON + timedelta(hours=3), bytes_sent=10**6
    )
    app.request_log.flush()
    return library


def test_sums_are_right(busy: Library) -> None:
    media, slow, root = busy.request_log.summary("path", **THAT_DAY)
    assert (media.key, slow.key, root.key) == ("/media/{id}", "/slow", "/")
    assert (media.requests, media.errors, media.bytes_sent, media.bytes_received) == (100, 0, 1000, 100)
    assert (media.p50_ms, media.p90_ms, media.p95_ms, media.p99_ms, media.max_ms) == (50, 90, 95, 99, 100)
    assert media.mean_ms == pytest.approx(50.5)
    assert (slow.requests, slow.errors, slow.refused, slow.aborted, slow.error_rate) == (2, 1, 1, 1, 0.5)
    total = busy.request_log.total(**THAT_DAY)
    assert (total.key, total.requests, total.errors, total.max_ms) == (None, 103, 1, 900)


@pytest.mark.parametrize(
    ("order", "first"),
    [("requests", "/media/{id}"), ("time", "/slow"), ("bytes", "/"), ("errors", "/slow"), ("key", "/")],
)
def test_the_first_groups_are_those_that_are_asked_for(busy: Library, order: str, first: str) -> None:
    assert [each.key for each in busy.request_log.summary("path", order=order, limit=1, **THAT_DAY)] == [first]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("method", {"GET": 102, "POST": 1}),
        ("status", {200: 101, 404: 1, 500: 1}),
        ("hour", {NOON: 102, NOON + timedelta(hours=3): 1}),
        ("day", {NOON.replace(hour=0): 103}),
    ],
)
def test_requests_are_summed_up_by_whatever_is_asked_for(busy: Library, by: str, expected: dict[Any, int]) -> None:
    assert {each.key: each.requests for each in busy.request_log.summary(by, **THAT_DAY)} == expected
    if by in ("hour", "day"):
        counts = busy.request_log.counts(by, **THAT_DAY)
        assert {each.begins_at: each.requests for each in counts} == expected


def test_a_span_begins_with_its_first_moment_and_ends_before_its_last(busy: Library) -> None:
    later = NOON + timedelta(hours=3)
    assert busy.request_log.total(since=NOON, until=later).requests == 102
    assert busy.request_log.total(since=later).requests == 1
    assert busy.request_log.total(until=NOON).requests == 0
    assert busy.request_log.total().requests == 0
    assert not busy.request_log.summary()


def test_a_summary_is_a_table(busy: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = busy.request_log.summary(RequestGroup.HOUR, order="key", **THAT_DAY)
    rows = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert [row["hour"] for row in rows] == [NOON.isoformat(), (NOON + timedelta(hours=3)).isoformat()]
    assert rows[0]["requests"] == "102"

    assert list(summary.to_pandas()["requests"]) == [102, 1]
    assert summary.to_arrow().column("hour").to_pylist() == [NOON, NOON + timedelta(hours=3)]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"mindia\[notebook\]"):
        summary.to_pandas()


@pytest.mark.parametrize(
    "wrong",
    [
        {"status_code": 42}, {"status_code": True}, {"response_time_ms": -1}, {"bytes_sent": -1},
        {"bytes_received": 2**63}, {"ip_address": "example.org"}, {"began_at": datetime(2024, 1, 1)},  # noqa: DTZ001 - refused for that
        {"response_time_ms": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once(library: Library, wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"status_code": 200, "response_time_ms": 1}
    with pytest.raises(InvalidError, match=next(iter(wrong))):
        library.request_log.record("GET", "/", **(right | wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"by": "moon"}, {"order": "moon"}, {"limit": 0}, {"limit": 10_001}, {"since": NOON, "until": NOON}],
    ids=str,
)
def test_a_summary_that_cannot_be_is_refused(library: Library, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        library.request_log.summary(**wrong)


def test_who_may_look_is_an_admin_and_anybodys_requests_are_logged(app: Mindia, library: Library) -> None:
    user = library.users.create("ada@example.org", role="member")
    theirs = app.library(library.tenant_id, user=user)
    log(theirs, "/")
    app.request_log.flush()

    with pytest.raises(PermissionDeniedError):
        theirs.request_log.total()
    assert library.request_log.total(**THAT_DAY).requests == 1


def test_old_requests_are_removed_by_maintenance(own: Mindia) -> None:
    library = own.library(own.tenants.create("Acme"))
    log(library, "/old")
    log(own, "/old")
    library.request_log.record("GET", "/new", 200, response_time_ms=1)
    own.request_log.flush()

    assert own.maintenance.remove_old_requests() == 2
    assert [each.path for each in own.request_log.list(since=NOON)] == ["/new"]


@pytest.mark.parametrize(
    ("moment", "state", "there"),
    [(Moment.BEFORE, (0, 2, 0), 2), (Moment.ANSWERED, (0, 1, 1), 2)],
    ids=["not committed", "committed, for all we know"],
)
def test_nothing_is_written_twice(
    database_url: str, library: Library, monkeypatch: pytest.MonkeyPatch, moment: Moment,
    state: tuple[int, int, int], there: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(request_log_writer, "_INTERVAL_S", 60.0)  # so that nobody else writes meanwhile
    with Proxy(database_url) as proxy, mindia.connect(proxy.url, storage=MemoryStorage(), settings=SETTINGS) as behind:
        behind.check()
        log(behind.library(library.tenant_id), "/first")
        proxy.cut_at(b"insert into mindia.request_logs" if moment is Moment.BEFORE else b"COMMIT", moment)
        with pytest.raises(ConnectionLostError):
            behind.request_log.flush()
        log(behind.library(library.tenant_id), "/second")
        behind.request_log.flush()
        assert attrs.astuple(behind.request_log.buffer) == state
    assert library.request_log.total(**THAT_DAY).requests == there


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_its_own_requests_and_leaves_those_of_its_parent(app: Mindia, library: Library) -> None:
    with app._request_log_writer._here.writing:  # so that it waits in the parent
        log(library, "/parent")
        child = os.fork()
        if not child:
            try:
                log(library, "/child")
                app.request_log.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert [each.path for each in library.request_log.list(**THAT_DAY)] == ["/child"]
    app.request_log.flush()
    assert {each.path for each in library.request_log.list(**THAT_DAY)} == {"/child", "/parent"}


def test_many_threads_lose_nothing(app: Mindia, library: Library) -> None:
    def log_many() -> None:
        for _ in range(300):
            log(library, "/")

    threads = [threading.Thread(target=log_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    app.request_log.flush()
    assert library.request_log.total(**THAT_DAY).requests == 1200
