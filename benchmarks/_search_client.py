"""A client of the search benchmark: searches for some seconds, and prints how often."""

from __future__ import annotations

import sys
import time
from uuid import UUID

import numpy as np
from benchmarks.search import GivenEmbedder

import mindia


def main() -> None:
    """Get ready, say so, wait for a line, search."""
    conninfo, tenant_id, path, seconds = sys.argv[1:]
    queries = np.load(path)
    with mindia.connect(conninfo, storage=mindia.MemoryStorage(), embedder=GivenEmbedder()) as app:
        index = app.library(UUID(tenant_id)).index
        for query in queries[:20]:
            index.similar_to_vector(query, limit=10)
        print("ready", flush=True)
        sys.stdin.readline()
        end, done = time.monotonic() + float(seconds), 0
        while time.monotonic() < end:
            index.similar_to_vector(queries[done % len(queries)], limit=10)
            done += 1
    print(done)


if __name__ == "__main__":
    main()
