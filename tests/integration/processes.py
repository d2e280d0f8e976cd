"""Other processes in tests: forked, waited for with a limit, and never left behind."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def forked(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run `work` in a forked child, and yield a function that waits for what it returns."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            outcome: tuple[bool, object] = True, work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the parent
            outcome = False, repr(error)
        os.write(write, pickle.dumps(outcome))
        os._exit(0)
    os.close(write)

    def result() -> T:
        done, value = pickle.loads(read_all(read))
        assert done, f"the child raised {value}"
        returned: T = value
        return returned

    try:
        yield result
    finally:
        os.close(read)
        reap(pid)


def read_all(descriptor: int, *, limit_s: float = 30.0) -> bytes:
    """Return what comes through a pipe until all who could write to it have ended."""
    chunks: list[bytes] = []
    deadline = time.monotonic() + limit_s
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "the child did not end"
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def reap(pid: int, *, limit_s: float = 10.0) -> None:
    """Wait for a child that is about to end; kill one that is not."""
    deadline = time.monotonic() + limit_s
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def wait_until(condition: Callable[[], bool], *, limit_s: float = 20.0) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
