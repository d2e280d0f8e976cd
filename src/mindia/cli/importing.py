"""`mindia import`: a folder becomes media."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import attrs
import typer

from mindia.cli._command import Cli, command, interruptible
from mindia.cli._exit_codes import ExitCode, exit_code_of
from mindia.cli._output import text_of
from mindia.cli._values import metadata_of
from mindia.errors import InvalidError, UnsupportedTypeError

if TYPE_CHECKING:
    from mindia import Library
    from mindia.domain.media import Metadata

_CHUNK = 256
"""So many files go to one call: results of a long run are written as they come, and are not kept."""


@attrs.frozen(kw_only=True)
class ImportResult:
    """What came of a file.

    Attributes:
        path: The file.
        outcome: `added`, `there` (its bytes were), `skipped` (no media), `failed`, or `new` where it was only looked.
        media_id: The item, or None.
        error: Why there is none, or None.
    """

    path: str
    outcome: str
    media_id: UUID | None = None
    error: Exception | None = None


def add_to(commands: typer.Typer) -> None:
    """Add the command."""

    @command(commands, "import")
    def import_(
        cli: Cli,
        folder: Annotated[str, typer.Argument(metavar="FOLDER", help="With all folders in it; or a single file.")],
        *,
        concurrency: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 4,
        metadata: Annotated[
            list[str] | None, typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Of all items; repeatable.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look which files are new.")] = False,
    ) -> ExitCode:
        """Add the media of a folder. Bytes that are there are left out, so that a run that was cut off goes on.

        Hidden files, symbolic links and what is no media are skipped.
        """
        paths = _files(Path(folder))
        values = metadata_of(metadata)
        run = _Import(cli.library, concurrency=concurrency, metadata=values, dry_run=dry_run)
        counts: Counter[str] = Counter()
        worst = ExitCode.OK
        with (
            interruptible(cli.out, what="the files under way") as stop,
            cli.out.progress("import", total=len(paths)) as tell,
        ):
            for result in run.results(paths, stop):
                counts[result.outcome] += 1
                tell(counts.total(), f"{counts['failed']} failed" if counts["failed"] else "")
                if cli.out.as_json:
                    cli.out.item(result, shown=())
                elif result.outcome == "failed":
                    cli.out.warn(f"{result.path}: {text_of(result.error)}")
                if result.error is not None and result.outcome == "failed" and worst is ExitCode.OK:
                    code = exit_code_of(result.error)
                    worst = code if code is ExitCode.UNAVAILABLE else ExitCode.ERROR
            was_stopped = stop.is_set()
        names = ("new", "there", "skipped", "failed") if dry_run else ("added", "there", "skipped", "failed")
        summary = {name: counts[name] for name in names} | {"total": len(paths), "interrupted": was_stopped}
        cli.out.item(summary, kind="import_summary", shown=tuple((name, summary[name]) for name in names))
        return ExitCode.INTERRUPTED if was_stopped else worst


class _Import:
    def __init__(self, library: Library, *, concurrency: int, metadata: Metadata, dry_run: bool) -> None:
        self._library = library
        self._concurrency = concurrency
        self._metadata = metadata
        self._dry_run = dry_run
        self._seen: set[str] = set()

    def results(self, paths: Sequence[str], stop: Event) -> Iterator[ImportResult]:
        """Yield what came of each file that was begun."""
        threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="mindia-hash")
        try:
            looked = self._looked_at(paths, threads, stop)
            while chunk := list(islice(looked, _CHUNK)):
                yield from (result for result in chunk if result.outcome != "new" or self._dry_run)
                if not self._dry_run:
                    yield from self._added([result.path for result in chunk if result.outcome == "new"], stop)
        finally:
            threads.shutdown(cancel_futures=True)

    def _looked_at(self, paths: Sequence[str], threads: ThreadPoolExecutor, stop: Event) -> Iterator[ImportResult]:
        """Yield whether each file is there already, looking at a few beforehand."""
        waiting: deque[Future[tuple[str, ImportResult]]] = deque()
        left = iter(paths)
        while not stop.is_set():
            for path in islice(left, 4 * self._concurrency - len(waiting)):
                waiting.append(threads.submit(self._look_at, path))
            if not waiting:
                return
            sha256, result = waiting.popleft().result()
            if result.outcome == "new":
                if sha256 in self._seen:
                    result = attrs.evolve(result, outcome="there")
                self._seen.add(sha256)
            yield result

    def _look_at(self, path: str) -> tuple[str, ImportResult]:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - names may be no Unicode
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return "", ImportResult(path=path, outcome="failed", error=error)
        is_there = self._library.media.exists(sha256=sha256)
        return sha256, ImportResult(path=path, outcome="there" if is_there else "new")

    def _added(self, paths: Sequence[str], stop: Event) -> Iterator[ImportResult]:
        from mindia.domain.bulk import MediaInput

        if not paths:
            return
        report = self._library.media.add_many(
            [MediaInput(path, metadata=self._metadata) for path in paths],
            concurrency=self._concurrency,
            on_duplicate="return",
            cancel=stop,
        )
        for each in report:
            path = paths[each.position]
            if each.media is not None:
                yield ImportResult(path=path, outcome="added", media_id=each.media.id)
            else:
                outcome = "skipped" if isinstance(each.error, UnsupportedTypeError) else "failed"
                yield ImportResult(path=path, outcome=outcome, error=each.error)


def _files(folder: Path) -> list[str]:
    if folder.is_file():
        return [str(folder)]
    if not folder.is_dir():
        raise InvalidError(f"there is no folder {str(folder)!r}")
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(parent, name)  # noqa: PTH118 - names may be no Unicode
            if not name.startswith(".") and not os.path.islink(path) and os.path.isfile(path):  # noqa: PTH113, PTH114
                found.append(path)
    return found
