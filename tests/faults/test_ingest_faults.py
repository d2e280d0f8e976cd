"""Rows never point at bytes that are not there, and bytes without a row do not stay: whatever dies, and whenever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.ingest_workload import OPERATIONS, ingest, sweep
from tests.faults.invariants import check_bytes_and_rows_agree, check_nothing_is_torn, number, of_a_child

import mindia
from mindia import LocalStorage, Settings
from mindia.errors import StagedObjectExpiredError
from mindia.testing import samples

_KILLS = 100
_AT_ONCE = 3
_THREADS = 3


class _Place:
    """A database, an object store and a tenant of the test's own."""

    def __init__(self, harness: Harness, server: Server, folder: Path) -> None:
        self.harness = harness
        self.server = server
        self.url = server.new_database()
        self.storage = LocalStorage(folder / "objects")
        self.samples = folder / "samples"
        self._write_samples()
        self.app = mindia.connect(self.url, storage=self.storage, settings=Settings(pool_timeout_s=5.0))
        self.app.migrate()
        self.tenant = self.app.tenants.create("Acme")

    def _write_samples(self) -> None:
        self.samples.mkdir()
        for number_, color in enumerate(("teal", "red", "gold", "navy")):
            (self.samples / f"{color}.jpg").write_bytes(samples.image(width=640 + number_, height=480, color=color))
        (self.samples / "short.wav").write_bytes(samples.wav(seconds=0.1))
        (self.samples / "long.wav").write_bytes(samples.wav(seconds=4.0, channels=8))
        (self.samples / "invoice.pdf").write_bytes(samples.pdf(["Invoice 4711"]))

    def start_ingest(self, *, sweep_s: float) -> Child:
        return self.harness.start(
            ingest,
            of_a_child(self.url),
            str(self.storage.root),
            str(self.tenant.id),
            str(self.samples),
            self.harness.random.randrange(2**32),
            _THREADS,
            sweep_s,
        )


@pytest.fixture
def place(harness: Harness, server: Server, tmp_path: Path) -> Iterator[_Place]:
    place = _Place(harness, server, tmp_path)
    with place.app:
        yield place


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_killed_at_100_random_moments_leave_no_row_without_bytes_and_no_bytes_without_a_row(
    place: _Place,
) -> None:
    children = [place.start_ingest(sweep_s=15) for _ in range(_AT_ONCE)]  # a new one starts while the next is killed
    done: list[str] = []
    for _ in range(_KILLS):
        victim = children.pop(0)
        place.harness.kill_at_random(victim, max_lines=20)
        done += victim.lines
        children.append(place.start_ingest(sweep_s=15))
    for child in children:
        child.kill()
        done += child.lines

    # Transactions of several calls may collide.
    ended = {line for line in done if not line.endswith("transaction_conflict True")}
    assert ended == {f"done: {operation}" for operation in OPERATIONS}
    left = number(place.url, "select count(*) from mindia.staged_objects")
    assert left > 0, "the killed have left nothing behind: they were not killed in the middle of anything"

    items = check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url)

    assert {type(item) for item in items} == {mindia.Image, mindia.Audio, mindia.Document}
    assert len({item.s3_key for item in items}) < len(items), "no two of them share their bytes"


def test_a_transaction_held_open_longer_than_the_grace_period_keeps_its_bytes(place: _Place) -> None:
    with mindia.connect(
        place.url, storage=place.storage, settings=Settings(staging_grace=timedelta(seconds=1))
    ) as host:
        library = host.library(place.tenant)
        first, second = (library.media.stage(path) for path in sorted(place.samples.glob("*.jpg"))[:2])
        with library.transaction() as tx:
            item = tx.media.add(first)
            younger = library.media.stage(place.samples / "gold.jpg")  # and not added: it shows that the grace is over
            sweeper = place.harness.start(sweep, of_a_child(place.url), str(place.storage.root), 1.0)
            keys = {f"originals/{staged.id}" for staged in (second, younger)}
            wait_until(
                lambda: not keys & {found.key for found in place.storage.list(place.tenant.s3_bucket)},
                what="the sweep removes what was staged at the same time and later",
            )
            sweeper.wait_for_more(2)
        sweeper.wait_for_more(2)
        sweeper.kill()

        assert check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url) == [item]
        with pytest.raises(StagedObjectExpiredError):
            library.media.add(second)


def test_bytes_of_a_transaction_that_was_rolled_back_after_the_grace_period_are_swept(place: _Place) -> None:
    library = place.app.library(place.tenant)
    with suppress(ZeroDivisionError), library.transaction() as tx:
        tx.media.add(place.samples / "red.jpg")
        place.app.maintenance.sweep_staged(older_than=timedelta())
        assert len(list(place.storage.list(place.tenant.s3_bucket))) == 1
        raise ZeroDivisionError

    assert check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url) == []


@pytest.mark.parametrize("fault", [Server.crash, Server.restart, Server.cut_connections])
def test_ingest_goes_on_by_itself_after_postgresql_was_restarted(
    place: _Place, fault: Callable[[Server], None]
) -> None:
    ours = place.app.library(place.app.tenants.create("Umbrella"))  # the child deletes what it finds in its own
    ours.media.add(place.samples / "teal.jpg")
    child = place.start_ingest(sweep_s=3600)
    child.wait_until_ready()
    for _ in range(2):
        child.wait_for_more(20)
        place.harness.pause(0.05)
        fault(place.server)
        child.wait_for_more(5, like="done: add")  # the same process adds again
        assert ours.media.read(ours.media.add(place.samples / "red.jpg"))  # and so does this one
    child.send("end")

    assert child.wait() == 0, child.output()
    assert not [line for line in child.lines if line.startswith("defect")]
    errors = {line for line in child.lines if line.startswith("error")}
    assert all(line.endswith(" True") for line in errors), f"errors that say that trying again is of no use: {errors}"
    ours.media.delete_many(list(ours.media.iterate()))
    check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url)


def test_a_disk_that_becomes_full_is_an_error_for_each_that_has_no_room_and_leaves_items_alone(
    place: _Place, tmp_path: Path
) -> None:
    script = """
import sys
from datetime import timedelta
from pathlib import Path

import mindia
from mindia import LocalStorage, Settings
from mindia.errors import StorageUnavailableError
from mindia.testing import samples

url, disk = sys.argv[1:]
storage = LocalStorage(disk)
sounds = [samples.wav(seconds=3.0, sample_rate=16_000 + number) for number in range(24)]  # of 96 KB each


def objects(tenant):
    files = {file.name for file in Path(disk).rglob("*") if file.is_file()}
    keys = {found.key for found in storage.list(tenant.s3_bucket)}
    assert files == {key.rpartition("/")[2] for key in keys}, files
    return keys


with mindia.connect(url, storage=storage, settings=Settings(isolate_parsers=False)) as app:
    tenant = app.tenants.create("Acme")
    library = app.library(tenant)
    report = library.media.add_many(sounds, concurrency=3)
    assert {type(result.error) for result in report.failed} == {StorageUnavailableError}, report.failed
    assert 5 < len(report.added) < 12, len(report.added)
    assert objects(tenant) == {item.s3_key for item in report.added}

    with library.transaction() as tx:
        assert not tx.media.add_many(sounds[-3:]).added
        assert len(tx.media.find().items) == len(report.added)
    library.media.delete_many(report.added[:5])
    app.maintenance.remove_deleted()
    assert not library.media.add_many(sounds[-4:]).failed
    app.maintenance.sweep_staged(older_than=timedelta())
    assert objects(tenant) == {item.s3_key for item in library.media.iterate()}
    assert all(len(library.media.read(item)) == item.file_size for item in library.media.iterate())
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("a small disk is mounted by unshare(1), which is not here")
    # In a mount namespace of its own, so that it is gone with the process.
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = [unshare, *as_root, "--mount", "sh", "-c"]
    mount = f'mount -t tmpfs -o size=1m tmpfs "{disk}"'
    if subprocess.run([*mounted, mount], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("this system does not let its users mount a small disk")

    command = [*mounted, f'{mount} && exec "$0" -c "$1" "$2" "{disk}"', sys.executable, script, place.url]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    assert number(place.url, "select count(*) from mindia.audios") > 0
    check_nothing_is_torn(place.url)
