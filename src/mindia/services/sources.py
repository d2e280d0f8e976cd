"""Where bytes come from: paths, bytes, files, iterators."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mindia.errors import InvalidError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Iterator[bytes]
"""A path, bytes, a file that is open for reading bytes, or an iterator of bytes."""


@contextmanager
def opened(source: object) -> Iterator[BinaryIO]:
    """Open a source for reading; what was handed in open stays open.

    Raises:
        InvalidError: It is no source, or cannot be opened.
    """
    match source:
        case str() | os.PathLike():
            path = _path_of(source)
            try:
                file = path.open("rb", buffering=0)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise InvalidError(f"{str(path)!r} cannot be read: {reason}") from error
            with file:
                yield file
        case bytes():
            yield io.BytesIO(source)
        case bytearray() | memoryview():
            yield cast("BinaryIO", _Pieces(iter([source])))
        case io.TextIOBase():
            raise InvalidError(f"source must be open for reading bytes (mode 'rb'), not {type(source).__name__}")
        case _ if hasattr(source, "read"):
            yield cast("BinaryIO", source)
        case Iterator():
            yield cast("BinaryIO", _Pieces(source))
        case _:
            raise InvalidError(
                f"source must be a path, bytes, a binary file or an iterator of bytes, not {type(source).__name__}"
            )


def is_small(source: object, *, max_bytes: int) -> bool:
    """Tell whether a source is here already, and as small as that: bytes, or a file on a disk."""
    match source:
        case str() | Path():
            try:
                found = _path_of(source).stat()
            except (OSError, ValueError):
                return False
            return stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes
        case bytes() | bytearray():
            return len(source) <= max_bytes
        case memoryview():
            return source.nbytes <= max_bytes
        case _:
            return False


def name_of(source: object) -> str:
    """Return the name that a source has of itself, or nothing."""
    match source:
        case str() | os.PathLike():
            return _path_of(source).name
        case bytes() | bytearray() | memoryview():
            return ""
        case _:
            name = getattr(source, "name", "")
            return Path(name).name if isinstance(name, str) else ""


def _path_of(source: str | os.PathLike[str]) -> Path:
    return source if isinstance(source, Path) else Path(os.fsdecode(source))


class _Pieces:
    """Reads an iterator of bytes, whatever the length of its pieces."""

    def __init__(self, pieces: Iterator[bytes | bytearray | memoryview]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes | memoryview:
        while not self._rest:
            try:
                piece = next(self._pieces)
            except StopIteration:
                return b""
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise InvalidError(f"an iterator of bytes must yield bytes, not {type(piece).__name__}")
            self._rest = _plain(memoryview(piece))
        given, self._rest = self._rest[:size], self._rest[size:]
        return given


def _plain(view: memoryview) -> memoryview:
    """Return a view of single bytes, whatever the shape and the items of another one."""
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
