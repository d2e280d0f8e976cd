"""Pixeltable, in a process and a virtual environment of its own: a table with an image column, and inserts into it.

Run as a program, by the interpreter of that environment, it serves one parent: a line of JSON each for request and
answer. So its start and its imports are in no figure, and it can be measured in turns with others.

Its tables are in a database of the same server as those of Mindia. A server of its own it would, as root, start under
an account that it adds to the system, after it has opened the folders above to everybody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parents[1] / ".venv-bench" / "ingest" / "bin" / "python"
"""The interpreter of the environment that `make bench NAME=ingest` sets up."""


class Pixeltable:
    """The parent's side.

    Attributes:
        version: Of the package.
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
    def running(cls, home: Path, database_url: str, *, copies: Path | None = None) -> Iterator[Pixeltable]:
        """Start it with an empty table.

        Args:
            home: A folder of its own, which is made.
            database_url: An empty database.
            copies: Where it is to keep copies of the files; by default it keeps none of what is on this machine.
        """
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELTABLE_")}
        environment |= {
            "PIXELTABLE_HOME": str(home),
            "PIXELTABLE_DB_CONNECT_STR": database_url,
            "PIXELTABLE_VERBOSITY": "0",
        }
        if copies is not None:
            copies.mkdir()
            environment["PIXELTABLE_INPUT_MEDIA_DEST"] = copies.as_uri()
        log = home / "output.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [PYTHON, "-I", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                text=True,
            )
        with process:  # ends it by closing its input
            yield cls(process, log)

    def insert(self, paths: Sequence[Path], *, at_once: bool) -> float:
        """Insert files, all by one call or each by a call of its own, and return the seconds that the calls took."""
        print(json.dumps({"paths": [str(path) for path in paths], "at_once": at_once}), file=self._requests, flush=True)
        answer = self._answer()
        if answer["inserted"] != len(paths):
            raise SystemExit(f"Pixeltable inserted {answer['inserted']} rows of {len(paths)}")
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._process.wait()  # until it has written why
            raise SystemExit(f"Pixeltable failed:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve() -> None:
    """Answer the parent until it closes its end."""
    # What Pixeltable prints goes where its errors go.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        pixeltable = import_module("pixeltable")
        table = pixeltable.create_table("files", {"image": pixeltable.Image})
        print(json.dumps({"version": pixeltable.__version__}), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            rows = [{"image": path} for path in request["paths"]]
            calls = [rows] if request["at_once"] else [[row] for row in rows]
            before = table.count()
            began = time.perf_counter()
            for call in calls:
                table.insert(call)
            seconds = time.perf_counter() - began
            print(json.dumps({"seconds": seconds, "inserted": table.count() - before}), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
