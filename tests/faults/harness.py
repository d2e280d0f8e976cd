"""Faults, injected: processes that are killed at random moments, a server that is restarted under them.

    def test_…(harness: Harness, server: Server) -> None:
        url = server.new_database()
        child = harness.start(workload, url)
        harness.kill_at_random(child, max_lines=20)
        server.restart()
        …the invariants…

Random moments come from one seed. No child outlives its test, however that ends.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from tests.faults import child as child_side

from mindia.db.embedded import EmbeddedServer

TIMEOUT_S = 60.0
"""How long a condition is waited for. A wait that ends by this has failed."""

_ROOT = Path(__file__).parents[2]
_POLL_S = 0.01

T = TypeVar("T")

Workload = Callable[..., None] | Path
"""A module-level function, or a script."""


def wait_until(condition: Callable[[], T], *, what: str, timeout_s: float = TIMEOUT_S) -> T:
    """Return what `condition` returns as soon as that is true.

    Raises:
        AssertionError: It has not become true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(_POLL_S)
    return value


class Child:
    """A workload in a process of its own, in a session of its own.

    Attributes:
        pid: Its process.
        lines: What it has reported so far, without "ready".
    """

    def __init__(self, workload: Workload, arguments: tuple[object, ...], log: Path) -> None:
        target = str(workload) if isinstance(workload, Path) else f"{workload.__module__}:{workload.__qualname__}"
        self._log = log
        self._news = threading.Condition()
        self._is_ready = False
        self._has_closed = False
        self.lines: list[str] = []
        reads, writes = os.pipe()
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", child_side.__name__, target, json.dumps(arguments)],
                    cwd=_ROOT,
                    env=child_side.environment(writes),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writes,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(reads)
            raise
        finally:
            os.close(writes)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, args=(reads,), name=f"reports-of-{self.pid}", daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Child {self.pid}, {len(self.lines)} lines, exit {self._process.returncode}>"

    def _read(self, reads: int) -> None:
        with os.fdopen(reads, encoding="utf-8") as reports:
            for line in reports:
                with self._news:
                    if line == child_side.READY + "\n":
                        self._is_ready = True
                    elif line.endswith("\n"):  # the last one may be cut off
                        self.lines.append(line[:-1])
                    self._news.notify_all()
        with self._news:
            self._has_closed = True
            self._news.notify_all()

    def wait_until_ready(self) -> None:
        """Wait for its "ready"."""
        self._wait_for(lambda: self._is_ready, "ready")

    def wait_for_more(self, count: int, *, like: str = "") -> None:
        """Wait until it has reported `count` further lines that begin with `like`."""
        before = len(self.lines)
        self._wait_for(
            lambda: sum(line.startswith(like) for line in self.lines[before:]) >= count, f"{count} more lines {like!r}"
        )

    def wait_for_line(self, line: str) -> None:
        """Wait until it has reported this line."""
        self._wait_for(lambda: line in self.lines, repr(line))

    def send(self, line: str) -> None:
        """Send it a line, which it reads with `hear`."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """SIGSTOP: it stands still until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: it is asked to end."""
        self._process.terminate()

    def interrupt(self) -> None:
        """SIGINT: as Ctrl-C at its terminal."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._process.kill()
        self.wait()

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end and return the exit code; that of a signal is negative."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} did not end in {timeout_s:.0f} s; its output:\n{self.output()}") from None
        self._reader.join(TIMEOUT_S)
        return code

    def output(self) -> str:
        """Return the end of what it has printed."""
        return self._log.read_text(errors="replace")[-10_000:]

    def close(self) -> None:
        """Kill it with all that it has started. Calling it again does nothing."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        with self._news:
            self._news.wait_for(lambda: condition() or self._has_closed, TIMEOUT_S)
            if condition():
                return
        state = f"ended with {self.wait()}" if self._has_closed else f"did not do so in {TIMEOUT_S:.0f} s"
        raise AssertionError(f"waiting for {what}: {self!r} {state}; its output:\n{self.output()}")


class Server:
    """A PostgreSQL server that a test may kill and restart. Its address stays the same."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server = EmbeddedServer(home)
        self._url = self._server.start()
        # Killed processes lose nothing that they have written: the disk need not be waited for.
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")

    def new_database(self) -> str:
        """Make a database and return its connection string."""
        name = f"faults_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return make_conninfo(self._url, dbname=name)

    def kill(self) -> None:
        """SIGKILL the process that all others of the server hang on; they end by themselves, soon after."""
        os.kill(int((self._home / "postgresql" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop it as an administrator does: connections are cut, transactions rolled back."""
        self._server.close()

    def start(self) -> None:
        """Start it where it does not run."""
        before, self._server = self._server, EmbeddedServer(self._home)
        assert self._server.start() == self._url
        before.close()

    def crash(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def cut_connections(self) -> None:
        """Cut all connections; new ones are welcome."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where pid <> pg_backend_pid() and backend_type = 'client backend'"
            )

    def close(self) -> None:
        """Stop it for good."""
        self._server.close()


class Harness:
    """Starts children, and ends them with the test. A context manager.

    Args:
        folder: For the output of children.
        seed: Of the random moments.

    Attributes:
        random: The source of all that is random.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.random = random.Random(seed)
        self._folder = folder
        self._count = 0
        self._to_close = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._to_close.close()

    def start(self, workload: Workload, *arguments: object) -> Child:
        """Run a workload in a child process.

        Args:
            workload: A module-level function, or a script.
            arguments: What it is called with; whatever JSON can say.
        """
        child = Child(workload, arguments, self._next("child").with_suffix(".log"))
        self._to_close.callback(child.close)
        return child

    def kill_at_random(self, child: Child, *, max_lines: int, max_delay_s: float = 0.05) -> None:
        """SIGKILL a child after a random number of further lines and a random delay."""
        child.wait_until_ready()
        child.wait_for_more(self.random.randint(0, max_lines))
        self.pause(max_delay_s)
        child.kill()

    def pause(self, max_delay_s: float) -> None:
        """Let a random time pass: the moment of the fault, nothing that a test relies on."""
        time.sleep(self.random.uniform(0, max_delay_s))

    def _next(self, what: str) -> Path:
        self._count += 1
        return self._folder / f"{what}-{self._count}"
