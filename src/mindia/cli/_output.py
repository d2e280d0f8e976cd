"""What goes to standard output and standard error: for people, or as lines of JSON."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from mindia.cli._json import line_of

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

T = TypeVar("T")

_TURNING = {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
"""What changes the direction of writing, and so can make a name look like another one."""


class Output:
    """Writes results to standard output, and all else to standard error.

    What comes from elsewhere cannot act on the terminal: see `safe`.

    Args:
        as_json: Whether results are lines of JSON.
        is_quiet: Whether nothing but results and errors is written.
    """

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False) -> None:
        self.as_json = as_json
        self.is_quiet = is_quiet
        for stream in (sys.stdout, sys.stderr):
            # A name that the encoding of the terminal does not have is no reason to fail.
            if callable(reconfigure := getattr(stream, "reconfigure", None)):
                reconfigure(errors="backslashreplace")

    def item(self, value: object, *, kind: str | None = None, shown: Sequence[tuple[str, object]]) -> None:
        """Write one object.

        Args:
            value: For programs: an attrs object or a mapping.
            kind: Its type, where that is not the name of its class.
            shown: For people: names and values. Those that are None or empty are left out.
        """
        if self.as_json:
            self._line(line_of(value, kind=kind))
            return
        facts = [(name, text_of(each)) for name, each in shown if each is not None and each != ""]
        width = max((len(name) for name, _ in facts), default=0)
        for name, text in facts:
            self._line(f"{name:{width}}  {text}")

    def items(
        self,
        values: Iterable[T],
        *,
        kind: str | None = None,
        columns: Sequence[str],
        row: Callable[[T], Sequence[object]],
    ) -> int:
        """Write many objects as they come, and return how many those were.

        On a terminal they are a table; else lines with tabs between the columns, the first one with their names.

        Args:
            values: For programs: attrs objects or mappings.
            kind: Their type, where that is not the name of their class.
            columns: For people: names of columns.
            row: For people: what stands in these.
        """
        count = 0
        if self.as_json:
            for count, value in enumerate(values, start=1):  # noqa: B007 - what it is in the end
                self._line(line_of(value, kind=kind))
        elif sys.stdout.isatty():
            rows = [[text_of(cell) for cell in row(value)] for value in values]
            count = len(rows)
            if rows:
                self._table(columns, rows)
        else:
            for count, value in enumerate(values, start=1):
                if count == 1:
                    self._line("\t".join(columns))
                self._line("\t".join(text_of(cell) for cell in row(value)))
        return count

    def say(self, text: str) -> None:
        """Write a remark for people, unless that is not wanted."""
        if not self.is_quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Write what people must know."""
        sys.stderr.write("\n".join(safe(line) for line in text.split("\n")) + "\n")
        sys.stderr.flush()

    def text(self, text: str) -> None:
        """Write a text as it is, as the statements of a migration."""
        self._line(text.rstrip("\n"))

    @contextmanager
    def progress(self, what: str, *, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
        """Show how far it is while the block runs, on standard error, where that is a terminal.

        Yields:
            A function that is told how many are done, and what else there is to say.
        """
        if self.is_quiet or not sys.stderr.isatty():
            yield lambda _done, _note: None
            return
        with _bar() as bar:
            task = bar.add_task(what, total=total, note="")
            yield lambda done, note: bar.update(task, completed=done, note=safe(note))

    def _line(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        if self.as_json:
            sys.stdout.flush()  # who reads lines wants them as they come

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(columns):
            # Ids are there to be copied: the first column is never cut.
            table.add_column(Text(name), no_wrap=number == 0, overflow="fold")
        for cells in rows:
            table.add_row(*(Text(cell) for cell in cells))  # no markup, whatever stands in it
        Console(file=sys.stdout, highlight=False, emoji=False).print(table)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=sys.stderr),
        transient=True,
    )


def safe(text: str) -> str:
    """Return a text in which nothing acts on a terminal: control characters and the like are written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(each) if _acts(each) else each for each in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def text_of(value: object) -> str:
    """Return a value for people, safe for a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return safe(" ".join(f"{key}={each}" for key, each in value.items()))
    if isinstance(value, tuple | list):
        return safe(", ".join(map(str, value)))
    return safe(str(value))


def size_of(count: int) -> str:
    """Return a number of bytes for people."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.4g} TB"


def close_output() -> None:
    """Write nothing any more to standard output, whose reader has gone: not at the end of the process either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
