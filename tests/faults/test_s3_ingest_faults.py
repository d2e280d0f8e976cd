"""Rows and bytes agree on S3 too, whoever is killed, and whatever the server and the way there do meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.harness import Child, Harness, Server, wait_until
from tests.faults.ingest_workload import OPERATIONS, ingest
from tests.faults.invariants import check_bytes_and_rows_agree, number, of_a_child
from tests.s3.fixtures import new_bucket, storage_of
from tests.s3.proxy import Fault, Request, S3Proxy
from tests.s3.radosgw import S3Server

import mindia
from mindia import Settings
from mindia.storage.base import MIN_PART_BYTES
from mindia.testing import samples

_AT_ONCE = 2
_THREADS = 3
_FAULTS = [Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.CUT, Fault.CUT_BODY, Fault.CUT_ANSWER, Fault.CUT_CONTENT]


class _Place:
    """A database, buckets on the server and a tenant of the test's own; children reach the server by a proxy."""

    def __init__(
        self, harness: Harness, server: Server, s3: S3Server, proxy: S3Proxy, folder: Path, shared: dict[str, str]
    ) -> None:
        self.harness = harness
        self.proxy = proxy
        self.url = server.new_database()
        self.storage = storage_of(s3, **shared)
        self._named: dict[str, Any] = {
            "endpoint_url": proxy.endpoint,
            "access_key_id": s3.access_key,
            "secret_access_key": s3.secret_key,
            "region": "us-east-1",
            "part_bytes": MIN_PART_BYTES,
            **shared,
        }
        self.samples = folder / "samples"
        self.samples.mkdir()
        for color in ("teal", "red", "gold", "navy"):
            (self.samples / f"{color}.jpg").write_bytes(samples.image(color=color))
        (self.samples / "invoice.pdf").write_bytes(samples.pdf(["Invoice 4711"]))
        (self.samples / "long.wav").write_bytes(samples.wav(seconds=25.0, channels=8))  # in parts
        self.app = mindia.connect(self.url, storage=self.storage, settings=Settings(pool_timeout_s=5.0))
        self.app.migrate()
        self.tenant = self.app.tenants.create("Acme")

    def start_ingest(self) -> Child:
        seed = self.harness.random.randrange(2**32)
        return self.harness.start(
            ingest, of_a_child(self.url), self._named, str(self.tenant.id), str(self.samples), seed, _THREADS, 180.0
        )


@pytest.fixture(params=["a bucket for each", "one for all"])
def place(
    harness: Harness, server: Server, s3_server: S3Server, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[_Place]:
    shared = {} if request.param == "a bucket for each" else {"bucket": new_bucket(), "prefix": "m/"}
    with S3Proxy(s3_server.endpoint) as proxy:
        place = _Place(harness, server, s3_server, proxy, tmp_path, shared)
        with place.app:
            yield place


def kill_again_and_again(place: _Place, kills: int) -> list[str]:
    """Kill children at random moments; return what all of them have reported."""
    chance = random.Random(kills)

    def fault(_: Request) -> Fault | None:
        luck = chance.random()
        return chance.choice(_FAULTS) if luck < 0.05 else Fault.DELAYED if luck < 0.2 else None

    place.proxy.faults = fault
    children = [place.start_ingest() for _ in range(_AT_ONCE)]
    done: list[str] = []
    for _ in range(kills):
        victim = children.pop(0)
        place.harness.kill_at_random(victim, max_lines=15)
        done += victim.lines
        children.append(place.start_ingest())
    for child in children:
        child.wait_until_ready()
        child.kill()
        done += child.lines
    place.proxy.faults = lambda _: None
    # What the killed have sent is on its way still.
    wait_until(lambda: not place.proxy.under_way, what="the proxy has passed on all that was sent")
    return done


def check(place: _Place, done: list[str]) -> None:
    assert not [line for line in done if line.startswith("defect")]
    errors = {line for line in done if line.startswith("error")}
    assert all(line.endswith(" True") for line in errors), f"errors that say that trying again is of no use: {errors}"
    assert any(line.startswith("done: add") for line in done)
    check_bytes_and_rows_agree(place.app, place.tenant, place.storage, place.url)


@pytest.mark.parametrize("place", ["a bucket for each"], indirect=True)
def test_processes_killed_at_random_moments_leave_rows_and_bytes_that_agree(place: _Place) -> None:
    check(place, kill_again_and_again(place, 3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_processes_killed_at_100_random_moments_leave_rows_and_bytes_that_agree(place: _Place) -> None:
    done = kill_again_and_again(place, 100)
    left = number(place.url, "select count(*) from mindia.staged_objects")

    assert {line for line in done if line.startswith("done")} == {f"done: {operation}" for operation in OPERATIONS}
    assert left > 0, "the killed have left nothing behind: they were not killed in the middle of anything"
    check(place, done)
