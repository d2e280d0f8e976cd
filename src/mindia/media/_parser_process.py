"""A child process that parses, as its parent sees it; `mindia.media._child` is what runs there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

from mindia import errors

_START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(3)); from mindia.media._child import main; main()"
_MAX_ANSWER = 1 << 27
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What a child is told of the environment: no secrets."""


class ParserProcess:
    """A process that parses.

    Attributes:
        is_used: Whether it has looked at a file.
    """

    def __init__(self, memory_bytes: int) -> None:
        from multiprocessing.spawn import get_executable  # costs more than the rest of this module

        executable = os.fsdecode(get_executable())
        ours, theirs = socket.socketpair()
        with theirs:
            command = [executable, "-I", "-c", _START, str(theirs.fileno()), str(memory_bytes), json.dumps(sys.path)]
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, arguments of ours
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
                )
            except OSError as error:
                ours.close()
                raise errors.ParserUnavailableError(
                    f"{executable!r} cannot be started to parse a file: {error.strerror}; name another one with "
                    "multiprocessing.set_executable, or trust what you take in (Settings.isolate_parsers)"
                ) from error
        self._channel = ours
        self.is_used = False

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask(self, request: dict[str, Any], descriptors: list[int], *, deadline: float) -> None:
        """Send a request.

        Raises:
            TimeoutError: It is not taken in time.
            OSError: The child has ended.
        """
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))
        socket.send_fds(
            self._channel, [json.dumps(request, ensure_ascii=False).encode(errors="surrogatepass")], descriptors
        )

    def answer(self, *, deadline: float) -> dict[str, Any]:
        """Return the answer to the request.

        Raises:
            TimeoutError: There is none in time.
            OSError: The child has ended.
            ValueError: The answer is none.
        """
        size = int.from_bytes(self._receive(8, deadline))
        if size > _MAX_ANSWER:
            raise ValueError(f"an answer of {size} bytes")
        answer = json.loads(self._receive(size, deadline))
        if not isinstance(answer, dict):
            raise ValueError(f"the answer is a {type(answer).__name__}")  # noqa: TRY004 - a value of another process
        if (content_size := answer.get("content_size")) is not None:
            if not isinstance(content_size, int) or not 0 <= content_size <= _MAX_ANSWER:
                raise ValueError("a file that is too large")
            answer["content"] = self._receive(content_size, deadline)
        return answer

    def _receive(self, size: int, deadline: float) -> bytes:
        received = bytearray(size)
        left = memoryview(received)
        while left:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._channel.recv_into(left)
            if not count:
                raise ConnectionResetError("the parser has ended")
            left = left[count:]
        return bytes(received)

    def leave_to_parent(self) -> None:
        """Let go in a forked process: the child ends with the one that made it, which alone can wait for it."""
        self._channel.close()
        self._process.returncode = 0

    def end(self) -> None:
        """Kill the child: there is nothing that it would have to finish."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
