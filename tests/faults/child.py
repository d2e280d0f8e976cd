"""The side of a fault test that runs in a child process: `python -m tests.faults.child workload arguments`.

A workload is a module-level function (`tests.faults.workloads:ingest`) or a script. It says `ready()` when a fault may
come and `report()`s its progress. A child ends with the test that started it, however that ends: its standard input is
a pipe that closes then.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import runpy
import signal
import sys
import threading
from queue import SimpleQueue

READY = "ready"

_REPORTS_TO = "MINDIA_FAULTS_REPORTS_TO"

_heard: SimpleQueue[str] = SimpleQueue()
_reporting = threading.Lock()


def ready() -> None:
    """Say that from now on a fault may come."""
    report(READY)


def report(line: str) -> None:
    """Send a line to the test. Thread-safe."""
    with _reporting:
        os.write(int(os.environ[_REPORTS_TO]), line.encode() + b"\n")


def hear(timeout_s: float = 60.0) -> str:
    """Return the next line that the test sends."""
    return _heard.get(timeout=timeout_s)


def environment(reports_to: int) -> dict[str, str]:
    """Return the environment of a child that reports to a file descriptor."""
    return os.environ | {_REPORTS_TO: str(reports_to)}


def main() -> None:
    """Run the workload that the command line names."""
    workload, arguments = sys.argv[1], json.loads(sys.argv[2])
    logging.basicConfig()
    logging.getLogger("mindia").setLevel(logging.INFO)
    threading.Thread(target=_listen, name="lifeline", daemon=True).start()
    module, colon, function = workload.partition(":")
    if colon:
        getattr(importlib.import_module(module), function)(*arguments)
    else:
        sys.argv = [workload, *map(str, arguments)]
        runpy.run_path(workload, run_name="__main__")


def _listen() -> None:
    buffered = b""
    while received := os.read(sys.stdin.fileno(), 4096):
        *lines, buffered = (buffered + received).split(b"\n")
        for line in lines:
            _heard.put(line.decode())
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Workloads import this module by its name; it must be the same one.
    from tests.faults import child

    child.main()
