"""The executable that encodes video: finding it, and running it so that nothing of it is left behind.

It is used as a program of its own and never linked: the builds that there are have parts under the GPL.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import attrs

from mindia.errors import InvalidError, MissingExtraError, ProcessDiedError, TranscodingError

OLDEST = (4, 4)
"""The first version that says how far it is as often as it is told to."""

ENCODERS = ("libx264", "libopenh264")
"""Of H.264, the better one first."""

_TELL_S = 0.5
_LOOK_S = 60.0
_MAX_TAIL_BYTES = 4096
_MAX_LINE_BYTES = 1 << 16

# What is watched for is the end of the parent, whose end of the pipe closes however it ends: then the program is
# killed. `$$` is the shell, and so the program that takes its place; the number is nobody else's while the watcher is
# in its group.
_GUARDED = """
exec 8<&0
(exec 0<&8 8<&-; read -r _; kill -9 $$) >/dev/null 2>&1 &
exec "$@" 8<&- </dev/null
"""

# The other watcher removes the folder, once more after a while, since the program may take a moment to end.
_SWEEPING = 'read -r _; rm -rf -- "$0" || { sleep 1; rm -rf -- "$0"; }'

_PASSING = ("No space left on device", "File too large", "Disk quota exceeded", "Cannot allocate memory")
"""What it says where the machine is at fault and not the file."""

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""What the program is told of the environment: no secrets."""


@attrs.frozen(kw_only=True)
class Ffmpeg:
    """An executable that can be used.

    Attributes:
        path: Where it is.
        version: What it calls itself.
        encoder: Its best one of H.264.
    """

    path: str
    version: str
    encoder: str


class Running(Protocol):
    """The strings to whoever may want the program ended."""

    def check(self) -> None:
        """Raise why it is to end, if it is."""
        ...

    def killing(self, kill: Callable[[], object]) -> AbstractContextManager[None]:
        """Have `kill` called where it is to end while the block runs."""
        ...


def find_ffmpeg(named: Path | None = None) -> Ffmpeg:
    """Return the executable that is named, or else that of the system, or else that of imageio-ffmpeg.

    Args:
        named: `Settings.ffmpeg`.

    Raises:
        InvalidError: The one that is named cannot be used.
        MissingExtraError: There is none, or none that is new enough and can encode H.264.
    """
    if named is not None:
        found = _looked_at(shutil.which(str(named)) or str(named))
        if isinstance(found, str):
            raise InvalidError(
                f"Settings.ffmpeg is {str(named)!r}, and {found}: name another one, or none and "
                "pip install 'mindia[video]'"
            )
        return found
    refused = []
    for path in filter(None, (shutil.which("ffmpeg"), _of_imageio())):
        found = _looked_at(path)
        if isinstance(found, Ffmpeg):
            return found
        refused.append(f"{path}: {found}")
    why = f" ({'; '.join(refused)})" if refused else ""
    raise MissingExtraError(f"transcoding video with ffmpeg{why}", extra="video")


def _of_imageio() -> str | None:
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    # Not its own search, which may find the system's or one that an environment variable names.
    folder = Path(imageio_ffmpeg.__file__).parent / "binaries"
    return next((str(path) for path in sorted(folder.glob("ffmpeg*")) if os.access(path, os.X_OK)), None)


@lru_cache(maxsize=8)
def _looked_at(path: str) -> Ffmpeg | str:
    """Return what is at a path, or why that cannot be used."""
    try:
        done = subprocess.run(  # noqa: S603 - the host's own executable
            [path, "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK_S,
            env=_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be run: {error}"
    banner = re.search(rb"ffmpeg version (\S+)", done.stderr + done.stdout)
    if banner is None:
        return "it is not ffmpeg"
    version = banner[1].decode("utf-8", "replace")
    # What was built between versions says nothing about them, and is newer than the oldest one.
    numbers = re.match(r"n?(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST:
        return f"version {version} is older than {OLDEST[0]}.{OLDEST[1]}"
    there = set(re.findall(r"^ [A-Z.]{6} (\w+)", done.stdout.decode("utf-8", "replace"), flags=re.MULTILINE))
    encoder = next((name for name in ENCODERS if name in there), None)
    if encoder is None or "aac" not in there:
        return f"version {version} does not encode H.264 and AAC"
    return Ffmpeg(path=path, version=version, encoder=encoder)


@contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """Give a folder that is removed at the end, and also where this process is killed.

    Args:
        parent: Where it is made; None for the system's temporary folder.

    Raises:
        TranscodingError: It cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="mindia-hls-", dir=parent))
        watcher = subprocess.Popen(  # noqa: S603 - words of our own
            ["/bin/sh", "-c", _SWEEPING, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise TranscodingError(f"there is no folder to encode in: {error}", is_final=False) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with watcher:  # which finds nothing to remove, or the rest
            pass


def run_ffmpeg(
    arguments: Sequence[str],
    *,
    folder: Path,
    running: Running,
    tick: Callable[[float], object],
    descriptors: Sequence[int] = (),
) -> None:
    """Run the program to its end.

    It is killed where `running` says so, where `tick` raises, and where this process ends, however it does.

    Args:
        arguments: The executable, and what it is told; with `-progress pipe:1` among that.
        folder: Where it works.
        descriptors: Files that it is handed.
        running: Who may want it ended.
        tick: Is called about every half second with how many seconds of the result there are.

    Raises:
        ProcessDiedError: It was killed by somebody else.
        TranscodingError: It gave up; `is_final` tells whether it would again.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - the host's own executable, arguments of ours
            ["/bin/sh", "-c", _GUARDED, "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_environment(),
            pass_fds=descriptors,
            start_new_session=True,
        )
    except OSError as error:
        raise TranscodingError(f"{arguments[0]!r} cannot be started: {error.strerror}", is_final=False) from error
    group = _Group(child)
    try:
        with running.killing(group.kill):
            said = _watched(child, running, tick)
    finally:
        group.end()
    running.check()
    if child.returncode < 0:
        raise ProcessDiedError(f"ffmpeg was killed by the signal {signal.Signals(-child.returncode).name}")
    if child.returncode:
        raise TranscodingError(
            f"ffmpeg gave up: {said or f'exit code {child.returncode}'}",
            is_final=not any(reason in said for reason in _PASSING),
        )


class _Group:
    """A program and its watcher, which are killed once at most. Thread-safe."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._lock = threading.Lock()
        self._has_ended = False

    def kill(self) -> None:
        with self._lock:
            if not self._has_ended:
                self._kill()

    def end(self) -> None:
        """Kill what is still there, the watcher first of all, and let go of it."""
        with self._lock:
            self._has_ended = True
            self._kill()
        child = self._child
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)


def _watched(child: subprocess.Popen[bytes], running: Running, tick: Callable[[float], object]) -> str:
    """Follow a program until it ends; return the end of what it has said."""
    assert child.stdout is not None
    assert child.stderr is not None
    tail, line, at_s = b"", b"", 0.0
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_TELL_S):
                content = os.read(key.fd, _MAX_LINE_BYTES)
                if not content:
                    selector.unregister(key.fileobj)
                elif key.fileobj is child.stderr:
                    tail = (tail + content)[-_MAX_TAIL_BYTES:]
                else:
                    *lines, line = (line + content)[-_MAX_LINE_BYTES:].split(b"\n")
                    at_s = next((_seconds(each) for each in reversed(lines) if each.startswith(b"out_time_us=")), at_s)
            running.check()
            tick(at_s)
    child.wait()
    return " | ".join(tail.decode("utf-8", "replace").strip().splitlines()[-5:])


def _seconds(line: bytes) -> float:
    value = line.partition(b"=")[2].strip()
    return max(0, int(value)) / 1_000_000 if value.lstrip(b"-").isdigit() else 0.0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
