"""The removal of a tenant goes on from wherever it was cut short, and takes nothing of another one."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest
from tests.faults.deletion_workload import OBJECTS, ROWS, remove
from tests.faults.harness import Harness, Server, wait_until
from tests.faults.ingest_workload import ingest
from tests.faults.invariants import number
from tests.faults.proxy import Moment, Proxy, Words
from tests.integration.deleted_tenants import AT_ONCE, contents, fill
from tests.integration.deleted_tenants import remove as remove_here
from tests.integration.shared_bytes import multiplied
from tests.integration.tenant_rows import TenantRows

import mindia
from mindia import LocalStorage, Settings, Tenant, TenantDeletionProgress, TenantDeletionReport
from mindia.errors import DatabaseUnavailableError, StorageUnavailableError
from mindia.services import tenant_deletion as service
from mindia.storage.base import StoredObject
from mindia.testing import samples
from mindia.testing.storage import put

_MIN_KILLS = 4


class _Place:
    """A database, an object store, a tenant that is deleted and one that is not."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.url = server.new_database()
        self.storage = LocalStorage(folder / "objects")
        self.app = mindia.connect(self.url, storage=self.storage, settings=Settings(pool_timeout_s=5.0))
        self.app.migrate()
        self.tenant, self.other = (self.app.tenants.create(name) for name in ("Acme", "Globex"))
        with psycopg.connect(self.url, autocommit=True) as host:
            for tenant in (self.tenant, self.other):
                fill(host, self.app.library(tenant), self.storage, tenant)
            multiplied(host, self.app.library(self.tenant).media.add(samples.image()), 300)
        for number_ in range(100):
            put(self.storage, self.tenant.s3_bucket, f"derived/{number_}/thumbnail.webp", b"content")
        self.app.maintenance.remove_deleted()
        self.rows_of_other = self.rows(self.other)
        self.objects_of_other = contents(self.storage, self.other)

    def rows(self, tenant: Tenant) -> list[tuple[str, str]]:
        with psycopg.connect(self.url, autocommit=True) as host:
            return TenantRows(host).of(tenant.id)

    def number_left(self) -> int:
        """Of rows and objects of the tenant that is deleted."""
        return len(self.rows(self.tenant)) + len(contents(self.storage, self.tenant))

    def check_only_the_deleted_one_has_lost_something(self) -> None:
        assert self.rows(self.other) == self.rows_of_other
        assert contents(self.storage, self.other) == self.objects_of_other

    def check_nothing_is_left(self) -> None:
        assert self.rows(self.tenant) == []
        assert [path.name for path in self.storage.root.iterdir()] == [self.other.s3_bucket]
        assert number(self.url, "select count(*) from mindia.tenants") == 1
        self.check_only_the_deleted_one_has_lost_something()


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[_Place]:
    place = _Place(server, tmp_path)
    with place.app:
        yield place


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ROWS", ROWS)
    monkeypatch.setattr(service, "OBJECTS", OBJECTS)


@pytest.mark.slow
def test_a_removal_that_is_killed_again_and_again_comes_to_its_end(place: _Place, harness: Harness) -> None:
    place.app.tenants.delete(place.tenant.id)
    left = [place.number_left()]
    while True:
        child = harness.start(remove, place.url, str(place.storage.root))
        child.wait_for_more(1)
        harness.pause(0.05)
        child.kill()
        if "ended" in child.lines:
            break
        left.append(place.number_left())

    assert left == sorted(left, reverse=True)
    assert len(set(left)) > _MIN_KILLS, "it was not killed in the middle of anything"
    place.check_nothing_is_left()


@pytest.mark.parametrize("call", ["delete", "delete_bucket"])
def test_a_removal_that_is_killed_between_the_store_and_the_database_goes_on(
    place: _Place, harness: Harness, call: str
) -> None:
    place.app.tenants.delete(place.tenant.id)
    child = harness.start(remove, place.url, str(place.storage.root), call)
    assert child.wait() == -signal.SIGKILL
    assert [table for table, _ in place.rows(place.tenant)] == ["tenants"]

    assert remove_here(place.app, place.tenant, staged_older_than=AT_ONCE).is_complete

    place.check_nothing_is_left()


@pytest.mark.parametrize("moment", list(Moment), ids=lambda moment: moment.name)
def test_a_removal_goes_on_by_itself_after_its_connection_was_cut_at_whichever_commit(
    place: _Place, moment: Moment
) -> None:
    cuts = 0
    with Proxy(place.url) as proxy, mindia.connect(proxy.url, storage=place.storage) as app:
        app.check()
        for commit in count():
            tenant = place.app.tenants.create("Initech")
            place.app.library(tenant).media.add(samples.image())
            place.app.tenants.delete(tenant.id)
            proxy.cut_at(Words.COMMIT, moment, skip=commit)

            report = remove_here(app, tenant, staged_older_than=AT_ONCE)

            assert (report.is_complete, report.error) == (True, None)
            if proxy.cuts_left:  # the call has no more commits
                break
            cuts += 1

    assert cuts > 4
    assert number(place.url, "select count(*) from mindia.tenants") == 2
    place.check_only_the_deleted_one_has_lost_something()


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("fault", [Server.crash, Server.restart, Server.cut_connections])
def test_a_removal_goes_on_whenever_the_server_has_gone_away(place: _Place, fault: Callable[[Server], None]) -> None:
    place.app.tenants.delete(place.tenant.id)
    batches = faults = 0

    def strike(_: TenantDeletionProgress) -> None:
        nonlocal batches, faults
        batches += 1
        if batches % 40 == 0:
            faults += 1
            fault(place.server)

    report: TenantDeletionReport | None = None
    while report is None or not report.is_complete:
        with suppress(DatabaseUnavailableError):
            report = remove_here(place.app, place.tenant, staged_older_than=AT_ONCE, progress=strike)

    assert faults > 1
    place.check_nothing_is_left()


class _Flaky(LocalStorage):
    """Fails every now and then, before or after it has done its work."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        super().__init__(root)
        self._chance = chance

    def _fail(self) -> None:
        if self._chance.random() < 0.05:
            raise StorageUnavailableError("for a while")

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        for found in super().list(bucket, prefix=prefix, after=after):
            if self._chance.random() < 0.005:
                raise StorageUnavailableError("for a while")
            yield found

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        self._fail()
        super().delete(bucket, keys)
        self._fail()

    def delete_bucket(self, bucket: str) -> None:
        self._fail()
        super().delete_bucket(bucket)
        self._fail()


@pytest.mark.usefixtures("small_steps")
def test_a_removal_comes_to_its_end_although_the_object_store_fails_every_now_and_then(
    place: _Place, harness: Harness
) -> None:
    storage = _Flaky(place.storage.root, harness.random)
    place.app.tenants.delete(place.tenant.id)
    errors = 0
    with mindia.connect(place.url, storage=storage) as app:
        while not (report := remove_here(app, place.tenant, staged_older_than=AT_ONCE)).is_complete:
            assert isinstance(report.error, StorageUnavailableError)
            assert report.tables_left == ()
            errors += 1

    assert errors > 3
    place.check_nothing_is_left()


def test_nothing_stays_of_a_tenant_that_is_deleted_while_others_work_on_it_and_are_killed(
    place: _Place, harness: Harness, tmp_path: Path
) -> None:
    files = tmp_path / "samples"
    files.mkdir()
    for number_, color in enumerate(("teal", "red", "gold")):
        (files / f"{color}.jpg").write_bytes(samples.image(width=640 + number_, height=480, color=color))
    (files / "long.wav").write_bytes(samples.wav(seconds=4.0, channels=8))
    children = [
        harness.start(ingest, place.url, str(place.storage.root), str(place.tenant.id), str(files), seed, 3, 3600.0)
        for seed in range(2)
    ]
    for child in children:
        child.wait_until_ready()
        child.wait_for_more(10, like="done")

    place.app.tenants.delete(place.tenant.id)
    before = [len(child.lines) for child in children]
    first = remove_here(place.app, place.tenant)
    for child in children:
        child.wait_for_more(20, like="error")
        child.kill()
    # The server takes a moment to notice that they are gone, and to roll back what they have begun.
    second = wait_until(lambda: _waiting_for_uploads(place), what="nothing but uploads is left")

    for child, start in zip(children, before, strict=True):
        errors = {line.rpartition(": ")[2] for line in child.lines[start:] if line.startswith("error")}
        # A call that had begun before may find that what it refers to is gone.
        assert errors <= {"tenant_inactive False", "transaction_conflict True", "conflict False"}, child.lines[start:]
        assert not [line for line in child.lines if line.startswith("defect")], child.lines
    assert not first.is_complete
    assert second is not None
    assert (second.is_complete, second.error) == (False, None)
    assert second.uploads_left > 0
    assert remove_here(place.app, place.tenant, staged_older_than=AT_ONCE).is_complete
    place.check_nothing_is_left()


def _waiting_for_uploads(place: _Place) -> TenantDeletionReport | None:
    report = remove_here(place.app, place.tenant)
    return report if report.tables_left == ("staged_objects",) else None
