"""The child process of `mindia.media.isolation`: parses files that it is handed, one after the other."""

from __future__ import annotations

import base64
import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, BinaryIO

import attrs

from mindia.config import Settings
from mindia.domain.transformations import Transformation
from mindia.errors import InvalidError, MediaError, MissingExtraError, TooLargeError
from mindia.media.deriving import derive
from mindia.media.pictures import pictures
from mindia.media.probe import Unprobed, probe
from mindia.media.tracks import tracks

_MAX_REQUEST = 1 << 16
_MAX_FILES = 32
_FOUND = {"facts", "shots", "content_size", "tracks"}
"""What an answer has one of, unless the file was refused."""
_WORN = 0.05
"""The part of the memory that may be lost before another child takes the place of this one."""


def main() -> None:
    """Serve the parent on the socket that is named on the command line until it closes it."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    _limit(memory_bytes)
    import filetype  # noqa: F401 - warm before the first request
    import PIL.Image  # noqa: F401 - likewise

    memory, lost_bytes = _Memory(), 0
    while True:
        message, files, _, _ = socket.recv_fds(channel, _MAX_REQUEST, _MAX_FILES)
        if not message:
            return
        before_bytes = memory.used_bytes()
        answer = _answer(json.loads(message), files, memory_bytes)
        file = answer.pop("content", b"")
        if not all(_FOUND & each.keys() for each in answer.get("answers", [answer])):
            # Decoders that give up do not always give back: the next file would have less.
            lost_bytes += max(0, memory.used_bytes() - before_bytes)
        answer["worn"] = lost_bytes > memory_bytes * _WORN
        content = json.dumps(answer, default=datetime.isoformat).encode()
        channel.sendall(len(content).to_bytes(8) + content)
        channel.sendall(file)


class _PositionedFile(io.RawIOBase):
    """A file with a position of its own: a descriptor that was handed over shares the one of the parent."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = os.preadv(self._descriptor, [buffer], self._position)
        self._position += read
        return read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class _Memory:
    """How much of the memory that is limited is in use."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1  # this system does not tell

    def used_bytes(self) -> int:
        if self._file < 0:
            return 0
        return int(os.pread(self._file, 200, 0).split()[5]) * resource.getpagesize()


@lru_cache(maxsize=16)
def _settings(values: tuple[tuple[str, Any], ...], timeout_s: float) -> Settings:
    return Settings(**dict(values), parser_timeout=timedelta(seconds=timeout_s))


def _limit(memory_bytes: int) -> None:
    """Give up what a parser does not need, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # The parent decides when to stop: what the terminal sends to the whole group is not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(request: dict[str, Any], descriptors: list[int], memory_bytes: int) -> dict[str, Any]:
    """Answer a request; one for several files, which come as one, with an answer for each."""
    with ExitStack() as stack:
        files = (stack.enter_context(io.BufferedReader(_PositionedFile(each))) for each in descriptors)
        if "files" not in request:
            return _answer_for(request, files, memory_bytes)
        joined = next(files)
        parts = [request | part for part in request["files"]]
        return {
            "answers": [
                _answer_for(part, iter([io.BytesIO(joined.read(part["size"]))]), memory_bytes) for part in parts
            ]
        }


def _answer_for(request: dict[str, Any], files: Iterator[BinaryIO], memory_bytes: int) -> dict[str, Any]:
    filename = request["filename"]
    try:
        file, *others = files
        settings = _settings(tuple(request["settings"].items()), request["timeout_s"])
        if "transformation" in request:
            made = derive(
                file,
                filename=filename,
                transformation=Transformation.parse(request["transformation"]),
                watermarks=others,
                settings=settings,
            )
            return {
                "content": made.content,
                "content_size": len(made.content),
                "width": made.width,
                "height": made.height,
                "end": made.end,
                "is_exact": made.is_exact,
            }
        if "max_side" in request:
            shots = pictures(
                file, filename=filename, max_side=request["max_side"], times=request["times"], settings=settings
            )
            return {"shots": [(base64.b64encode(shot.content).decode(), shot.at_s) for shot in shots]}
        if "tracks" in request:
            found = attrs.asdict(tracks(file, filename=filename, settings=settings))
            return {"tracks": found | {"frame_rate": str(found["frame_rate"])}}
        probed = probe(
            Unprobed(file=file, size=request["size"], filename=filename, declared=request["declared"]),
            settings=settings,
        )
    except MissingExtraError as error:
        return {"missing": error.args[0], "extra": error.extra}
    except (MediaError, InvalidError) as error:
        return {"code": error.code, "message": str(error)}
    except MemoryError:
        return {
            "code": TooLargeError.code,
            "message": f"{filename!r} needs more than {memory_bytes} bytes of memory to be read "
            "(Settings.parser_memory_bytes)",
            "wants_memory": True,
        }
    return {
        "content_type": probed.content_type,
        "kind": probed.facts.kind,
        "facts": attrs.asdict(probed.facts),
    }
