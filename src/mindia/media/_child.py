"""The child process of `mindia.media.isolation`: parses files that it is handed, one after the other."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

import attrs

from mindia.config import Settings
from mindia.errors import MediaError, MissingExtraError, TooLargeError
from mindia.media.probe import probe

_MAX_REQUEST = 1 << 16


def main() -> None:
    """Serve the parent on the socket that is named on the command line until it closes it."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    _limit(memory_bytes)
    import PIL.Image  # noqa: F401 - warm before the first request

    while True:
        message, files, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 1)
        if not message:
            return
        answer = json.dumps(_answer(json.loads(message), files[0], memory_bytes)).encode()
        channel.sendall(len(answer).to_bytes(8) + answer)


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


def _limit(memory_bytes: int) -> None:
    """Give up what a parser does not need, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    # The parent decides when to stop: what the terminal sends to the whole group is not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answer(request: dict[str, Any], descriptor: int, memory_bytes: int) -> dict[str, Any]:
    filename = request["filename"]
    try:
        with io.BufferedReader(_PositionedFile(descriptor)) as file:
            probed = probe(
                file,
                size=request["size"],
                filename=filename,
                declared=request["declared"],
                settings=Settings(**request["limits"]),
            )
    except MissingExtraError as error:
        return {"missing": error.args[0], "extra": error.extra}
    except MediaError as error:
        return {"code": error.code, "message": str(error)}
    except MemoryError:
        return {
            "code": TooLargeError.code,
            "message": f"{filename!r} needs more than {memory_bytes} bytes of memory to be read "
            "(Settings.parser_memory_bytes)",
        }
    return {
        "content_type": probed.content_type,
        "kind": probed.facts.kind,
        "facts": attrs.asdict(probed.facts),
    }
