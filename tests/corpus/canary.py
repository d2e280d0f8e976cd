"""A file and a port that nobody may touch, and how it is known whether somebody did."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.corpus.hostile import Canary

from mindia.testing import samples

_ACCESSED, _OPENED = 0x01, 0x20
"""Of inotify(7)."""


class Guard:
    """Watches over a canary.

    Attributes:
        canary: What is watched.
    """

    def __init__(self, canary: Canary, server: socket.socket, watch: int | None) -> None:
        self.canary = canary
        self._server = server
        self._watch = watch

    def touched(self) -> list[str]:
        """Return what was done to the canary since this was last asked."""
        found = []
        try:
            self._server.accept()[0].close()
            found.append("connected to the port")
        except BlockingIOError:
            pass
        try:
            if self._watch is not None and os.read(self._watch, 4096):
                found.append("opened the file")
        except BlockingIOError:
            pass
        return found


@contextmanager
def guarded(folder: Path) -> Iterator[Guard]:
    """Put a canary into a folder; on systems other than Linux only its port is watched."""
    path = folder / "canary.mp4"
    path.write_bytes(samples.video(audio_codec=None, seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        watch = _watch(path) if sys.platform == "linux" else None
        try:
            yield Guard(Canary(path=path, port=server.getsockname()[1]), server, watch)
        finally:
            if watch is not None:
                os.close(watch)


def _watch(path: Path) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    watch: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0 or library.inotify_add_watch(watch, os.fsencode(path), _ACCESSED | _OPENED) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return watch
