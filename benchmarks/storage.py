"""Bytes to S3 and back, beside boto3 by itself: the same server, the same run, in turns.

The server is Ceph's gateway before a store in memory, on this machine: it shares the cores with what is measured, so
that the processor time of each side stands beside the figures. `MINDIA_TEST_S3_ENDPOINT` names another one.

Small: JPEGs of about 10 kB, all different. `add_many` stores them, finds out what they are, and commits their rows;
boto3 puts the same files by as many threads and does nothing else. Rounds of 96 take turns, in an order that changes.

Large: a sound of 64 MB. `library.media.add` takes it in (copies it aside, hashes, parses, stores, commits);
`S3Storage.put` only stores it; the peer is boto3's `upload_fileobj` with its own settings. Reading is
`library.media.open` in pieces of 1 MiB, beside `get_object` read likewise. Each repeat is a process of its own; memory
is what its peak has gained meanwhile.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import attrs
import numpy as np
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import server
from benchmarks._storage_case import Case
from PIL import Image
from tests.s3.radosgw import S3Server
from tests.s3.radosgw import server as s3_server

import mindia
from mindia import Library, Settings
from mindia.testing import samples

_SEED = 20_261_125
_THREADS = 16
_ROUND = 96
_LARGE_S = 250.0
"""Of sound in eight channels: 64 MB."""

_MB = 1_000_000


@attrs.frozen
class Cpu:
    """Processor time in seconds."""

    ours: float
    of_server: float

    @classmethod
    def now(cls) -> Cpu:
        """Return what was used so far: by this process and its children, and by the S3 server."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(sum(each.ru_utime + each.ru_stime for each in used), _of_server())

    def since(self, before: Cpu) -> Cpu:
        return Cpu(self.ours - before.ours, self.of_server - before.of_server)


@attrs.frozen
class Round:
    """What one round of a way took."""

    seconds: float
    cpu: Cpu


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    repeats = 2 if chosen.quick else 10
    figures: list[Figure] = []
    with server() as running, ExitStack() as stack:
        s3 = stack.enter_context(_s3(running.folder / f"s3-{os.getpid()}"))
        case = Case(
            way="",
            url=running.url,
            endpoint=s3.endpoint,
            access_key=s3.access_key,
            secret_key=s3.secret_key,
            tenant_id="",
            bucket=f"bench-{uuid.uuid4().hex[:12]}",
        )
        app = stack.enter_context(mindia.connect(running.url, storage=case.storage(), settings=Settings()))
        tenant = app.tenants.create("Bench", s3_bucket=case.bucket)
        case = attrs.evolve(case, tenant_id=str(tenant.id))
        library = app.library(tenant)
        figures += _small(case, library, running.folder, repeats)
        figures += _large(case, library, running.folder, 2 if chosen.quick else 5)
        report(figures, chosen, packages=("boto3", "botocore", "urllib3"), others={"S3 server": s3.what})


@contextmanager
def _s3(folder: Path) -> Iterator[S3Server]:
    if endpoint := os.environ.get("MINDIA_TEST_S3_ENDPOINT"):
        access, secret = (os.environ.get(f"MINDIA_TEST_S3_{name}", "") for name in ("ACCESS_KEY", "SECRET_KEY"))
        yield S3Server(endpoint, access, secret, "", "", endpoint)
    else:
        with s3_server(folder) as found:
            yield found


def _small(case: Case, library: Library, folder: Path, repeats: int) -> Iterator[Figure]:
    client, storage = case.client(), case.storage()
    client.create_bucket(Bucket=case.bucket)
    numbers = count()

    def raw(paths: Sequence[Path]) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(
                pool.map(
                    lambda path: client.put_object(
                        Bucket=case.bucket, Key=f"raw/{next(numbers)}", Body=path.read_bytes()
                    ),
                    paths,
                )
            )

    def put(paths: Sequence[Path]) -> None:
        def one(path: Path) -> None:
            with path.open("rb") as file:
                storage.put(case.bucket, f"put/{next(numbers)}", file, content_type="image/jpeg")

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(one, paths))

    def add(paths: Sequence[Path]) -> None:
        added = library.media.add_many(paths, concurrency=_THREADS)
        assert not added.failed, added.failed

    ways: dict[str, Callable[[Sequence[Path]], None]] = {"raw": raw, "put": put, "add_many": add}
    rounds: dict[str, list[Round]] = {way: [] for way in ways}
    for number in range(repeats + 1):
        for turn in range(len(ways)):
            way = [*ways][(number + turn) % len(ways)]
            paths = _pictures(folder / f"{way}-{number}", number * 10 + turn)
            before, began = Cpu.now(), time.perf_counter()
            ways[way](paths)
            seconds = time.perf_counter() - began
            if number:  # the first one connects
                rounds[way].append(Round(seconds, Cpu.now().since(before)))
    yield from _beside(rounds, "add_many", Goal(0.7, at_least=True))
    yield from _beside(rounds, "put", None)
    for way, done in rounds.items():
        for side in ("ours", "of_server"):
            used = median(getattr(each.cpu, side) for each in done) / _ROUND * 1000
            who = "client" if side == "ours" else "server"
            yield Figure(name=f"{way} of 10 kB: processor time of the {who} (ms an object)", value=used)


def _beside(rounds: Mapping[str, list[Round]], way: str, goal: Goal | None) -> Iterator[Figure]:
    ratio = median(theirs.seconds / ours.seconds for ours, theirs in zip(rounds[way], rounds["raw"], strict=True))
    yield Figure(
        name=f"{way} of 10 kB, {_THREADS} threads (objects/s)",
        value=_ROUND / median(each.seconds for each in rounds[way]),
        peer=_ROUND / median(each.seconds for each in rounds["raw"]),
        goal=goal,
        ratio=ratio,
    )


def _large(case: Case, library: Library, folder: Path, repeats: int) -> Iterator[Figure]:
    path = folder / "long.wav"
    path.write_bytes(samples.wav(seconds=_LARGE_S, channels=8))
    size = path.stat().st_size
    item, storage = library.media.add(path), case.storage()
    case = attrs.evolve(case, path=str(path), key=item.s3_key, media_id=str(item.id))
    ways = ("upload_fileobj", "put", "add", "get_object", "open")
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(repeats):
        for turn in range(len(ways)):
            way = ways[(number + turn) % len(ways)]
            writes = way in ("upload_fileobj", "put")
            key = f"large/{uuid.uuid4().hex}" if writes else item.s3_key
            taken[way].append(_in_a_process(attrs.evolve(case, way=way, key=key)))
            if writes:
                storage.delete(case.bucket, [key])
    yield from _large_figures(taken, size)


def _large_figures(taken: Mapping[str, list[dict[str, float]]], size: int) -> Iterator[Figure]:
    def rate(way: str) -> float:
        return size / _MB / median(each["seconds"] for each in taken[way])

    def beside(name: str, way: str, peer: str, goal: Goal | None) -> Figure:
        pairs = zip(taken[way], taken[peer], strict=True)
        ratio = median(theirs["seconds"] / ours["seconds"] for ours, theirs in pairs)
        return Figure(name=name, value=rate(way), peer=rate(peer), goal=goal, ratio=ratio)

    yield beside("add of 64 MB, beside upload_fileobj (MB/s)", "add", "upload_fileobj", Goal(0.85, at_least=True))
    yield beside("S3Storage.put of 64 MB, beside upload_fileobj (MB/s)", "put", "upload_fileobj", None)
    yield beside("open of 64 MB, beside get_object (MB/s)", "open", "get_object", Goal(0.9, at_least=True))
    for way, done in taken.items():
        goal = Goal(64) if way == "add" else None
        gained = median(each["memory"] for each in done) / _MB
        yield Figure(name=f"{way} of 64 MB: memory at its peak (MB more)", value=gained, goal=goal)
        yield Figure(
            name=f"{way} of 64 MB: processor time of the client (s)", value=median(each["cpu"] for each in done)
        )


def _in_a_process(case: Case) -> dict[str, float]:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks._storage_case", json.dumps(attrs.asdict(case))],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def _pictures(folder: Path, seed: int) -> list[Path]:
    folder.mkdir()
    noise = np.random.default_rng(_SEED + seed)
    paths = [folder / f"picture_{index:04}.jpg" for index in range(_ROUND)]
    for path in paths:
        Image.fromarray(noise.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(path, "JPEG", quality=85)
    return paths


def _of_server() -> float:
    """Return the processor time of the S3 server that this process has started: of the children of its keeper."""
    ticks: dict[int, tuple[int, int]] = {}
    keepers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        ticks[int(process.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
        if b"tests.s3.radosgw" in command and str(os.getpid()).encode() in command:
            keepers.append(int(process.name))
    return sum(used for parent, used in ticks.values() if parent in keepers) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
