"""A queue in a process of its own, as all of them are measured: it is asked by lines of JSON, and answers so.

It runs in the virtual environment of its library, so nothing of ours is imported here. Moments are those of the clock
that all processes of the machine share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOLD = -1
"""A task of this number or a lower one tells when it starts."""

HELD = -1000
"""One of this number or a lower one does not end, either."""

_ROOT = Path(__file__).parents[1]
PEERS_PYTHON = _ROOT / ".venv-bench" / "tasks" / "bin" / "python"
"""The interpreter of the environment that `make bench NAME=tasks` sets up."""


class Side(ABC):
    """What runs in the process."""

    version: str

    @abstractmethod
    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        """Enqueue tasks by a call each, and return when each call began and ended."""

    @abstractmethod
    def enqueue_many(self, count: int) -> None:
        """Enqueue so many tasks, 1000 at a time."""

    @abstractmethod
    def work(self, concurrency: int) -> None:
        """Run tasks until SIGTERM comes. Each calls `started`, and is held where that says so."""


def started(number: int) -> bool:
    """Take note of a task that starts; return whether it is to be held."""
    if number <= TOLD:
        _answer({"started": time.monotonic(), "number": number})
    return number <= HELD


def serve(side: Side) -> None:
    """Answer the parent until it closes its end."""
    _answer({"version": side.version})
    for line in sys.stdin:
        request = json.loads(line)
        if "work" in request:
            side.work(request["work"])
            return
        began = time.perf_counter()
        if "many" in request:
            side.enqueue_many(request["many"])
            _answer({"seconds": time.perf_counter() - began})
        else:
            _answer({"calls": side.enqueue(request["numbers"])})


def _answer(content: dict[str, Any]) -> None:
    os.write(1, json.dumps(content).encode() + b"\n")


class Process:
    """The parent's side.

    Attributes:
        version: Of the library.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout
        self._log = log
        self.version = str(self._answer()["version"])

    @classmethod
    @contextmanager
    def running(cls, python: str | Path, module: str, arguments: Sequence[str]) -> Iterator[Process]:
        """Start it; it has imported all and is connected when the block begins, and is ended with it."""
        with tempfile.TemporaryDirectory(prefix="mindia-bench-") as folder:
            log = Path(folder) / "output.log"
            with (
                log.open("w") as output,
                subprocess.Popen(
                    [python, "-m", module, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    cwd=_ROOT,
                    text=True,
                ) as process,
            ):
                try:
                    yield cls(process, log)
                finally:
                    process.terminate()
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()

    def enqueue(self, numbers: Sequence[int]) -> list[tuple[float, float]]:
        """Enqueue tasks by a call each, and return when each call began and ended."""
        self.ask_to_enqueue(numbers)
        return self.calls()

    def ask_to_enqueue(self, numbers: Sequence[int]) -> None:
        """Have it enqueue tasks by a call each, and do not wait for it."""
        self._ask({"numbers": list(numbers)})

    def calls(self) -> list[tuple[float, float]]:
        """Wait for what was asked; return when each call began and ended."""
        return [(began, ended) for began, ended in self._answer()["calls"]]

    def enqueue_many(self, count: int) -> float:
        """Enqueue so many tasks, and return how many seconds it took."""
        self._ask({"many": count})
        return float(self._answer()["seconds"])

    def work(self, concurrency: int) -> None:
        """Have it run tasks, until the end."""
        self._ask({"work": concurrency})

    def next_start(self) -> tuple[int, float]:
        """Wait for the start of a task that tells it; return its number and the moment."""
        answer = self._answer()
        return int(answer["number"]), float(answer["started"])

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> None:
        print(json.dumps(request), file=self._requests, flush=True)

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._process.wait()  # until it has written why
            raise SystemExit(f"{self._process.args!r} failed:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
