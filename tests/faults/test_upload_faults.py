"""Direct uploads leave no row without bytes and no bytes without a row: whatever dies, and whenever."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from tests.faults.harness import Child, Harness, Server
from tests.faults.invariants import check_bytes_and_rows_agree, number, of_a_child, wait_for_the_killed
from tests.faults.upload_workload import OPERATIONS, SETTINGS, send_whole, upload

import mindia
from mindia import LocalStorage, Upload
from mindia.testing import samples

_THREADS = 3
_SWEEP_S = 15.0
"""Longer than anybody who lives takes for an upload, which lasts two seconds."""


class _Place:
    """A database, an object store and a tenant of the test's own."""

    def __init__(self, harness: Harness, server: Server, folder: Path) -> None:
        self.harness = harness
        self.url = server.new_database()
        self.storage = LocalStorage(folder / "objects")
        self.samples = folder / "samples"
        self.samples.mkdir()
        for number_, color in enumerate(("teal", "red", "gold")):
            (self.samples / f"{color}.jpg").write_bytes(samples.image(width=640 + number_, height=480, color=color))
        (self.samples / "long.wav").write_bytes(samples.wav(seconds=2.0, channels=8))
        self.app = mindia.connect(self.url, storage=self.storage, settings=SETTINGS)
        self.app.migrate()
        self.tenant = self.app.tenants.create("Acme")

    def start(self) -> Child:
        return self.harness.start(
            upload,
            of_a_child(self.url),
            str(self.storage.root),
            str(self.tenant.id),
            str(self.samples),
            self.harness.random.randrange(2**32),
            _THREADS,
            _SWEEP_S,
        )

    def check(self) -> int:
        """Assert what must hold once all time is over; return how many items there are."""
        wait_for_the_killed(self.url)
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "update mindia.uploads set expires_at = now() - interval '1 day', sweep_at = now() - interval '1 day'"
            )
        self.app.maintenance.remove_uploads()
        items = check_bytes_and_rows_agree(self.app, self.tenant, self.storage, self.url)
        assert number(self.url, "select count(*) from mindia.uploads") == 0
        report = self.app.maintenance.verify(tenant=self.tenant)
        assert (report.is_clean, report.items_checked) == (True, len(items))
        return len(items)


@pytest.fixture
def place(harness: Harness, server: Server, tmp_path: Path) -> Iterator[_Place]:
    place = _Place(harness, server, tmp_path)
    with place.app:
        yield place


@pytest.mark.parametrize(
    ("kills", "at_once"),
    [
        pytest.param(4, 2, id="4 moments"),
        pytest.param(100, 3, id="100 moments", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_processes_killed_at_random_moments_of_uploads_leave_nothing_half(
    place: _Place, kills: int, at_once: int
) -> None:
    children = [place.start() for _ in range(at_once)]
    done: list[str] = []
    for _ in range(kills):
        victim = children.pop(0)
        place.harness.kill_at_random(victim, max_lines=20)
        done += victim.lines
        children.append(place.start())
    for child in children:
        child.kill()
        done += child.lines

    assert not [line for line in done if line.startswith("defect")]
    assert "done: upload" in done
    if kills >= 100:
        assert {line for line in done if line.startswith("done")} == {f"done: {operation}" for operation in OPERATIONS}
    assert number(place.url, "select count(*) from mindia.uploads where closed_at is null") > 0, "all were completed"
    assert place.check() > 0


def test_an_upload_survives_the_process_that_began_it(place: _Place) -> None:
    library = place.app.library(place.tenant)
    begun = library.media.begin_upload("a.jpg")
    assert send_whole(place.app, begun, samples.image()) == 204

    with mindia.connect(place.url, storage=place.storage, settings=SETTINGS) as other:
        theirs = other.library(place.tenant)
        assert theirs.media.get_upload(begun.id).received_bytes == len(samples.image())
        item = theirs.media.add(theirs.media.complete_upload(begun.id))

    assert library.media.read(item) == samples.image()
    assert place.check() == 1


def test_bytes_that_a_killed_process_was_receiving_are_swept(place: _Place) -> None:
    library = place.app.library(place.tenant)
    begun: Upload = library.media.begin_upload("a.jpg", expires_in=timedelta(seconds=2))
    folder = place.storage.root / place.tenant.s3_bucket / "uploads" / str(begun.id)
    folder.mkdir(parents=True)
    (folder / ".whole.part").write_bytes(b"half of it")

    assert place.check() == 0
    assert [path for path in place.storage.root.rglob("*") if path.is_file()] == []
