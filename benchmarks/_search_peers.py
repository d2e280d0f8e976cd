"""The peers of the search benchmark, in a process and an environment of their own: a command a line, an answer a line.

All vectors are in one collection, with the tenant beside each, as a service of many tenants has them. Each peer answers
with the ids of the ten nearest and the row that belongs to each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Ask = Callable[[int, Any, int], list[int]]


def main() -> None:
    """Load the vectors, then answer until there are no more commands."""
    data = np.load(sys.argv[1])
    vectors, tenants, queries = data["vectors"], data["tenants"], data["queries"]
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as folder:
        peers: dict[str, Ask] = {}
        made: dict[str, Callable[[], Ask]] = {
            "sqlite-vec": lambda: _sqlite_vec(Path(folder), vectors, tenants),
            "LanceDB": lambda: _lancedb(Path(folder), vectors, tenants),
            "Chroma": lambda: _chroma(Path(folder), vectors, tenants),
            "hnswlib": lambda: _hnswlib(vectors, tenants),
        }
        for line in sys.stdin:
            command = json.loads(line)
            if "make" in command:
                began = time.perf_counter()
                peers[command["make"]] = made[command["make"]]()
                answer: object = {"seconds": time.perf_counter() - began}
            else:
                answer = _timed(peers[command["peer"]], command, queries)
            print(json.dumps(answer), flush=True)


def _timed(ask: Ask, command: dict[str, Any], queries: Any) -> dict[str, Any]:
    found, times = [], []
    for number in command["queries"]:
        began = time.perf_counter()
        ids = ask(command["tenant"], queries[number], command.get("ef", 0))
        times.append(time.perf_counter() - began)
        found.append(ids)
    return {"times": times, "found": found}


def _sqlite_vec(folder: Path, vectors: Any, tenants: Any) -> Ask:
    import apsw
    import sqlite_vec

    connection = apsw.Connection(str(folder / "vectors.db"))
    connection.enable_load_extension(True)  # noqa: FBT003 - of apsw
    connection.load_extension(sqlite_vec.loadable_path())
    connection.execute("pragma journal_mode = wal; pragma cache_size = -500000; pragma mmap_size = 2000000000")
    connection.execute("create table items (id integer primary key, tenant integer, filename text, size integer)")
    connection.execute(
        "create virtual table places using vec0(tenant integer partition key, "
        "embedding float[768] distance_metric=cosine)"
    )
    with connection:
        connection.executemany(
            "insert into items values (?, ?, ?, ?)",
            ((number, int(tenant), f"item_{number}.jpg", 1000) for number, tenant in enumerate(tenants)),
        )
        connection.executemany(
            "insert into places (rowid, tenant, embedding) values (?, ?, ?)",
            (
                (int(number), int(tenants[number]), vectors[number].tobytes())
                for number in np.argsort(tenants, kind="stable")
            ),
        )

    def ask(tenant: int, query: Any, _: int) -> list[int]:
        rows = connection.execute(
            "select i.id, i.filename, i.size, n.distance from (select rowid, distance from places "
            "where embedding match ? and k = 10 and tenant = ?) n join items i on i.id = n.rowid order by n.distance",
            (query.tobytes(), tenant),
        ).fetchall()
        return [row[0] for row in rows]

    return ask


def _lancedb(folder: Path, vectors: Any, tenants: Any) -> Ask:
    import lancedb
    import pyarrow as pa

    count, width = vectors.shape
    table = pa.table(
        {
            "id": pa.array(range(count)),
            "tenant": pa.array(tenants.tolist()),
            "filename": pa.array([f"item_{number}.jpg" for number in range(count)]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width),
        }
    )
    stored = lancedb.connect(str(folder / "lance")).create_table("items", table)
    stored.create_scalar_index("tenant", index_type="BTREE")

    def ask(tenant: int, query: Any, _: int) -> list[int]:
        rows = (
            stored.search(query)
            .distance_type("cosine")
            .where(f"tenant = {tenant}", prefilter=True)
            .select(["id", "filename", "_distance"])
            .limit(10)
            .to_list()
        )
        return [row["id"] for row in rows]

    return ask


def _chroma(folder: Path, vectors: Any, tenants: Any) -> Ask:
    import chromadb

    client = chromadb.PersistentClient(str(folder / "chroma"), settings=chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection(
        "items", configuration={"hnsw": {"space": "cosine", "ef_search": 100}}, embedding_function=None
    )
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        collection.add(
            ids=[str(number) for number in part],
            embeddings=vectors[part.start : part.stop],
            metadatas=[{"tenant": int(tenants[number]), "filename": f"item_{number}.jpg"} for number in part],
        )

    def ask(tenant: int, query: Any, _: int) -> list[int]:
        found = collection.query(query_embeddings=[query], n_results=10, where={"tenant": tenant})
        return [int(each) for each in found["ids"][0]]

    return ask


def _hnswlib(vectors: Any, tenants: Any) -> Ask:
    """The vectors of the largest tenant in memory, without rows: a limit rather than a peer."""
    import hnswlib

    ids = np.flatnonzero(tenants == 0)
    index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
    index.init_index(max_elements=len(ids), M=24, ef_construction=128)
    index.add_items(vectors[ids], ids)

    def ask(_: int, query: Any, ef: int) -> list[int]:
        index.set_ef(max(ef, 10))
        found: list[int] = index.knn_query(query, k=10, num_threads=1)[0][0].tolist()
        return found

    return ask


if __name__ == "__main__":
    main()
