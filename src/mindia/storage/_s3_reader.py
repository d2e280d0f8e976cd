"""Reading an object of an S3 server as a file."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any, BinaryIO, cast

from mindia.errors import StorageError, StorageUnavailableError
from mindia.storage._s3_errors import Place, code_of, typed

_BUFFER = 1 << 18
_SKIP = 1 << 18
"""What lies between is read and thrown away up to here; beyond, the server is asked anew."""

_PIECE = 1 << 23
"""What is read at once of all that is left: so much at most is read twice where the server breaks off."""

_REPLACED = ("PreconditionFailed", "412")
"""Codes of a server that has another version by now."""

_RESUMES = 3
"""How often a read goes on after the server broke off, without a byte in between."""


def opened(client: Any, place: Place) -> BinaryIO:
    """Open an object for reading: seekable, buffered, streamed.

    Raises:
        ObjectNotFoundError: There is none.
    """
    return cast("BinaryIO", _BufferedReader(_ObjectReader(client, place), _BUFFER))


class _BufferedReader(io.BufferedReader):
    """Hands out what is larger than its buffer as it comes, without a copy."""

    raw: _ObjectReader

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < _BUFFER or self.closed or self.raw.tell() != self.tell():
            return super().read(size)
        pieces = []
        while size and (piece := self.raw.next(size)):
            pieces.append(piece)
            size -= len(piece)
        self.seek(self.raw.tell())  # what it remembers is not where it is any more
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _ObjectReader(io.RawIOBase):
    """Streams from where it is; a jump begins another stream, of the same version of the object."""

    def __init__(self, client: Any, place: Place) -> None:
        self._client = client
        self._place = place
        self._position = 0
        self._streamed_to = 0
        with typed(place, "open"):
            answer = client.get_object(Bucket=place.bucket, Key=place.key)
        self._body = answer["Body"]
        self._size = int(answer["ContentLength"])
        self._etag = str(answer.get("ETag", ""))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer).cast("B")
        content = self.next(len(into))
        into[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        pieces = []
        while piece := self.next(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def next(self, count: int) -> bytes:
        """Return at most so many bytes from the position on, and at least one where there is one."""
        count = min(count, self._size - self._position)
        if count <= 0:
            return b""
        for left in reversed(range(_RESUMES + 1)):
            try:
                self._reach_position()
                content = self._streamed(count)
            except StorageUnavailableError:
                self._drop()
                if not left:
                    raise
            except BaseException:
                self._drop()
                raise
            else:
                self._position += len(content)
                self._streamed_to = self._position
                return content
        raise AssertionError("unreachable")

    def _streamed(self, count: int) -> bytes:
        with typed(self._place, "read"):
            content = cast("bytes", self._body.read(count))
        if not content:
            raise StorageUnavailableError(f"read {self._place}: the server broke off at {self._position}")
        return content

    def _reach_position(self) -> None:
        ahead = self._position - self._streamed_to
        if self._body is not None and 0 <= ahead <= _SKIP:
            while ahead:
                with typed(self._place, "read"):
                    skipped = len(self._body.read(ahead))
                if not skipped:
                    break
                ahead -= skipped
            self._streamed_to = self._position - ahead
        if self._body is None or ahead:
            self._drop()
            self._body = self._streaming_from(self._position)
            self._streamed_to = self._position

    def _streaming_from(self, position: int) -> Any:
        # Of another version, the rest would not fit what was read.
        condition = {"IfMatch": self._etag} if self._etag else {}
        try:
            with typed(self._place, "read"):
                answer = self._client.get_object(
                    Bucket=self._place.bucket, Key=self._place.key, Range=f"bytes={position}-", **condition
                )
        except StorageError as error:
            if code_of(error.__cause__) in _REPLACED:
                raise StorageError(f"read {self._place}: the object was replaced while it was read") from error
            raise
        body = answer["Body"]
        if int(answer["ContentLength"]) != self._size - position:
            body.close()
            raise StorageError(f"read {self._place}: the server does not serve ranges")
        return body

    def _drop(self) -> None:
        """Let go of the stream; its connection is used again where all of it was read."""
        body, self._body = self._body, None
        if body is not None:
            with suppress(Exception):
                body.close()
