"""Uploads to S3 leave no row without bytes and no bytes without a row, whoever is killed and whatever breaks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.invariants import check_bytes_and_rows_agree, number, of_a_child, wait_for_the_killed
from tests.faults.upload_workload import SETTINGS, upload
from tests.s3.fixtures import storage_of
from tests.s3.proxy import Fault, Request, S3Proxy
from tests.s3.radosgw import S3Server

import mindia
from mindia.storage.base import MIN_PART_BYTES
from mindia.testing import samples

_AT_ONCE = 2
_THREADS = 3
_FAULTS = [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.CUT, Fault.CUT_BODY, Fault.CUT_ANSWER, Fault.CUT_CONTENT]


class _Place:
    """A database, a bucket on the server and a tenant of the test's own; children reach the server by a proxy."""

    def __init__(self, harness: Harness, server: Server, s3: S3Server, proxy: S3Proxy, folder: Path) -> None:
        self.harness = harness
        self.proxy = proxy
        self.url = server.new_database()
        self.storage = storage_of(s3)
        self._named = {
            "endpoint_url": proxy.endpoint,
            "access_key_id": s3.access_key,
            "secret_access_key": s3.secret_key,
            "region": "us-east-1",
            "part_bytes": MIN_PART_BYTES,
        }
        self.samples = folder / "samples"
        self.samples.mkdir()
        for color in ("teal", "red", "gold"):
            (self.samples / f"{color}.jpg").write_bytes(samples.image(color=color))
        (self.samples / "long.wav").write_bytes(samples.wav(seconds=2.0, channels=8))
        self.app = mindia.connect(self.url, storage=self.storage, settings=SETTINGS)
        self.app.migrate()
        self.tenant = self.app.tenants.create("Acme")

    def start(self) -> Child:
        seed = self.harness.random.randrange(2**32)
        return self.harness.start(
            upload, of_a_child(self.url), self._named, str(self.tenant.id), str(self.samples), seed, _THREADS, 180.0
        )


@pytest.fixture
def place(harness: Harness, server: Server, s3_server: S3Server, tmp_path: Path) -> Iterator[_Place]:
    with S3Proxy(s3_server.endpoint) as proxy:
        place = _Place(harness, server, s3_server, proxy, tmp_path)
        with place.app:
            yield place


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, id="3 moments"),
        pytest.param(100, id="100 moments", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_processes_killed_at_random_moments_of_uploads_to_s3_leave_nothing_half(place: _Place, kills: int) -> None:
    chance = random.Random(kills)

    def fault(_: Request) -> Fault | None:
        luck = chance.random()
        return chance.choice(_FAULTS) if luck < 0.05 else Fault.DELAYED if luck < 0.2 else None

    place.proxy.faults = fault
    children = [place.start() for _ in range(_AT_ONCE)]
    done: list[str] = []
    for _ in range(kills):
        victim = children.pop(0)
        place.harness.kill_at_random(victim, max_lines=15)
        done += victim.lines
        children.append(place.start())
    for child in children:
        child.wait_until_ready()
        child.kill()
        done += child.lines
    place.proxy.faults = lambda _: None
    # What the killed have sent is on its way still.
    wait_until(lambda: not place.proxy.under_way, what="the proxy has passed on all that was sent")

    assert not [line for line in done if line.startswith("defect")]
    wait_for_the_killed(place.url)
    with psycopg.connect(place.url) as connection:
        connection.execute("update mindia.uploads set sweep_at = now() - interval '1 day'")
    place.app.maintenance.remove_uploads()
    assert number(place.url, "select count(*) from mindia.uploads") == 0
    check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url)
