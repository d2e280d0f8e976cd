"""A real S3 server: Ceph's gateway before a store in memory, on the loopback. One for all processes that want it.

    python -m tests.s3.radosgw fetch   # downloads it, once
    with server(folder) as s3: …

It runs in a process of its own for as long as somebody holds a lock, which ends with whoever holds it: no crash of a
test leaves it running.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
from tests.s3.packages import NotAvailableError, environment, fetch

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / ".s3-server"
"""Where the programs are kept from one run to the next."""

_START_S = 100.0
_POLL_S = 0.25
_STORE_BYTES = 4 << 30


@attrs.frozen
class S3Server:
    """A server that runs.

    Attributes:
        endpoint: Its address.
        access_key: Of the account of the tests.
        secret_key: Likewise.
        other_access_key: Of an account that may not touch what the first one has.
        other_secret_key: Likewise.
        what: For the report.
    """

    endpoint: str
    access_key: str
    secret_key: str = attrs.field(repr=False)
    other_access_key: str
    other_secret_key: str = attrs.field(repr=False)
    what: str


@contextmanager
def server(folder: Path) -> Iterator[S3Server]:
    """Hold the server that processes with the same folder share; it is started where it does not run.

    Raises:
        NotAvailableError: It cannot be had on this machine, or does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users.lock").open("a") as users, _locked(folder / "start.lock"):
        fcntl.flock(users, fcntl.LOCK_SH)
        if not (folder / "server.json").exists():
            _start(folder)
        found = S3Server(**json.loads((folder / "server.json").read_text()))
        users_descriptor = os.dup(users.fileno())
    try:
        yield found
    finally:
        os.close(users_descriptor)


def _start(folder: Path) -> None:
    with _locked(PROJECT / ".s3-server.lock"):
        fetch(CACHE)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3.radosgw", "serve", str(folder)],
            cwd=PROJECT,
            env=environment(CACHE / "root"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while not (folder / "server.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            raise NotAvailableError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(_POLL_S)
    process.returncode = 0  # it ends by itself, after us: nobody waits for it


def serve(folder: Path) -> None:
    """Run it until nobody holds it any more."""
    root = CACHE / "root"
    state = folder / "server.json"
    with (
        TemporaryDirectory(prefix="mindia-s3-") as data,
        (folder / "users.lock").open("a") as users,
        ExitStack() as end,
    ):
        facts = _Cluster(root, Path(data), end).start()
        part = state.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(attrs.asdict(facts)))
        part.rename(state)
        while True:
            time.sleep(_POLL_S)
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                state.unlink()
                fcntl.flock(users, fcntl.LOCK_UN)
                return


class _Cluster:
    """One monitor, one store, one gateway."""

    def __init__(self, root: Path, data: Path, end: ExitStack) -> None:
        self._bin = root / "usr" / "bin"
        self._data = data
        self._end = end
        self._environment = environment(root) | {"CEPH_CONF": str(data / "ceph.conf")}
        self._librados = next(root.glob("usr/lib/*/librados.so.2"))
        self._fsid = str(uuid.uuid4())
        monitor, monitor_v1, self._port = _free_ports(3)
        self._monitor = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{monitor_v1}]"
        (data / "ceph.conf").write_text(self._configuration(root))

    def _configuration(self, root: Path) -> str:
        options = {
            "fsid": self._fsid,
            "mon host": self._monitor,
            "public addr": "127.0.0.1",
            "cluster addr": "127.0.0.1",
            "auth cluster required": "none",
            "auth service required": "none",
            "auth client required": "none",
            "ms mon client mode": "crc",  # the gateway would have it encrypted, for which there are no keys
            "run dir": self._data,
            "admin socket": "",
            "log to stderr": "true",
            "err to stderr": "true",
            "plugin dir": next(root.glob("usr/lib/*/ceph"), root),
            "erasure code dir": next(root.glob("usr/lib/*/ceph/erasure-code"), root),
            "osd class dir": next(root.glob("usr/lib/*/rados-classes"), root),
            "osd class load list": "*",
            "mon data": self._data / "mon",
            "mon allow pool size one": "true",
            "mon cluster log file": "/dev/null",
            "paxos propose interval": "0.05",  # a second otherwise, for each of the pools that are made one by one
            "paxos min wait": "0.01",
            "mon data avail crit": "1",
            "mon data avail warn": "1",
            "osd data": self._data / "osd",
            "osd objectstore": "memstore",
            "memstore device bytes": _STORE_BYTES,
            "osd pool default size": "1",
            "osd pool default min size": "1",
            "osd pool default pg num": "2",
            "osd pool default pgp num": "2",
            "osd pool default pg autoscale mode": "off",
            "osd crush chooseleaf type": "0",
            "mon max pg per osd": "1000",
            "rgw frontends": f"beast endpoint=127.0.0.1:{self._port}",
            "rgw thread pool size": "64",
            "rgw override bucket index max shards": "1",
            "rgw dynamic resharding": "false",
            "rgw enable usage log": "false",
            "rgw enable ops log": "false",
            # What was deleted is given back soon: the store is in memory.
            "rgw gc obj min wait": "20",
            "rgw gc processor period": "10",
            "rgw gc processor max time": "10",
        }
        return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())

    def start(self) -> S3Server:
        monmap = self._data / "monmap"
        self._run("monmaptool", "--create", "--addv", "a", self._monitor, "--fsid", self._fsid, str(monmap))
        (self._data / "mon").mkdir()
        (self._data / "osd").mkdir()
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap))
        self._daemon("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self._tell({"prefix": "osd new", "uuid": osd})
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-i", "0")
        accounts = [self._account(name) for name in ("tests", "others")]
        self._daemon("radosgw", "-n", "client.admin")
        endpoint = f"http://127.0.0.1:{self._port}"
        _wait_for_http(endpoint)
        version = self._run("radosgw", "--version").split()[2]
        (access, secret), (other_access, other_secret) = accounts
        return S3Server(endpoint, access, secret, other_access, other_secret, f"radosgw {version}")

    def _account(self, name: str) -> tuple[str, str]:
        access, secret = secrets.token_hex(10).upper(), secrets.token_hex(20)
        self._run(
            *("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", "--max-buckets=100000"),
            *(f"--access-key={access}", f"--secret-key={secret}"),
        )
        return access, secret

    def _tell(self, command: dict[str, str]) -> None:
        """Send the monitor a command, as the program `ceph` does."""
        library = ctypes.CDLL(str(self._librados))
        cluster = ctypes.c_void_p()
        _checked(library.rados_create2(ctypes.byref(cluster), b"ceph", b"client.admin", ctypes.c_uint64(0)), "create")
        try:
            _checked(library.rados_conf_read_file(cluster, str(self._data / "ceph.conf").encode()), "configure")
            _checked(library.rados_connect(cluster), "connect")
            words = (ctypes.c_char_p * 1)(json.dumps(command).encode())
            out, status = ctypes.c_char_p(), ctypes.c_char_p()
            out_length, status_length = ctypes.c_size_t(), ctypes.c_size_t()
            _checked(
                library.rados_mon_command(
                    *(cluster, words, ctypes.c_size_t(1), None, ctypes.c_size_t(0), ctypes.byref(out)),
                    *(ctypes.byref(out_length), ctypes.byref(status), ctypes.byref(status_length)),
                ),
                f"{command['prefix']}: {status.value!r}",
            )
        finally:
            library.rados_shutdown(cluster)

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self._data / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [self._bin / program, "-f", *arguments],
                env=self._environment,
                cwd=self._data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def stop() -> None:
            process.kill()  # all of it is in memory
            process.wait()

        self._end.callback(stop)

    def _run(self, program: str, *arguments: str) -> str:
        ended = subprocess.run(
            [self._bin / program, *arguments],
            env=self._environment,
            cwd=self._data,
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=False,
        )
        if ended.returncode:
            raise NotAvailableError(f"{program} {' '.join(arguments[:2])}: {ended.stderr[-2000:]}")
        return ended.stdout


def _checked(code: int, what: str) -> None:
    if code:
        raise NotAvailableError(f"librados, {what}: {code}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def _wait_for_http(endpoint: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(endpoint, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise NotAvailableError(f"nothing answers at {endpoint}: {error}") from None
            time.sleep(_POLL_S)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Fetch it, or serve."""
    if sys.argv[1] == "serve":
        # Its children end with it: it is asked, or its last user is gone.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        sys.path.insert(0, str(PROJECT))
        serve(Path(sys.argv[2]))
    else:
        try:
            with _locked(PROJECT / ".s3-server.lock"):
                print(f"S3 server: {fetch(CACHE)}")  # noqa: T201 - a command
        except NotAvailableError as error:
            # The tests are skipped then, or fail.
            print(f"no S3 server: {error}")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
