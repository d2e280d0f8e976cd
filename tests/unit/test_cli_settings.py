"""Where the command line finds its settings, what it prints, and what it ends with."""

from __future__ import annotations

import inspect
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import run
from uuid import UUID

import attrs
import pytest

import mindia
from mindia import LocalStorage, S3Storage, Settings, errors
from mindia.cli._connect import opened, storage_of
from mindia.cli._exit_codes import ExitCode, exit_code_of
from mindia.cli._json import line_of
from mindia.cli._output import safe, size_of
from mindia.cli._settings import Configuration, Flags, redacted
from mindia.cli._values import duration_of, metadata_of, time_of, uuid_of
from mindia.domain.media import MediaKind
from mindia.domain.tenants import Quota, TypeUsage, Usage
from mindia.errors import InvalidError, MindiaError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(flags: Flags | None = None, **environment: str) -> Configuration:
    return Configuration.read(flags or Flags(), environment)


def test_flags_come_before_the_environment_and_that_before_the_file(here: Path) -> None:
    Path("mindia.toml").write_text(
        'home = "a"\nstorage = "objects"\ntenant = "of file"\n[settings]\npool_size = 2\npoll = 0.5\nlisten = false\n'
    )
    assert read().home == here / "a"
    assert read().storage == str(here / "objects")
    assert read().tenant == "of file"
    assert (read().settings.pool_size, read().settings.poll, read().settings.listen) == (
        2,
        timedelta(seconds=0.5),
        False,
    )
    assert read(MINDIA_HOME="b").home == Path("b")
    assert read(MINDIA_POOL_SIZE="3").settings.pool_size == 3
    flags = Flags(home="c", tenant="of flag", settings=("pool-size=4",))
    said = read(flags, MINDIA_HOME="b", MINDIA_TENANT="of environment", MINDIA_POOL_SIZE="3")
    assert (said.home, said.tenant, said.settings.pool_size) == (Path("c"), "of flag", 4)
    assert said.settings.poll == timedelta(seconds=0.5)


def test_a_library_that_is_named_takes_the_place_of_one_that_is_named_less_near() -> None:
    Path("mindia.toml").write_text('home = "a"\n')
    said = read(MINDIA_DATABASE_URL="postgresql://x@h/db")
    assert (said.home, said.database_url) == (None, "postgresql://x@h/db")
    assert read(Flags(home="c"), MINDIA_DATABASE_URL="postgresql://x@h/db").database_url is None


def test_paths_of_a_file_are_those_of_its_folder(here: Path) -> None:
    (here / "etc").mkdir()
    (here / "etc/m.toml").write_text('home = "a"\nstorage = "s3://b"\n')
    said = read(Flags(config="etc/m.toml"))
    assert (said.home, said.storage) == (here / "etc/a", "s3://b")
    assert read(MINDIA_CONFIG="etc/m.toml").home == here / "etc/a"
    (here / "etc/m.toml").write_text('home = "a"\nstorage = "b"\nold_storage = "a/objects"\n')
    moving = read(Flags(config="etc/m.toml"))
    assert (moving.storage, moving.old_storage) == (str(here / "etc/b"), str(here / "etc/a/objects"))
    assert read(Flags(config="etc/m.toml"), MINDIA_OLD_STORAGE="c").old_storage == "c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("home = 3", "home must be a text"),
        ("hoem = 'a'", "is 'home' meant"),
        ("home", "is no TOML"),
        ("home = 'a'\ndatabase_url = 'dbname=b'", "give one of them"),
        ("[settings]\npoolsize = 1", "is 'pool_size' meant"),
        ("[settings]\npool_size = 'many'", "pool_size is 'many'"),
        ("[settings]\npool_size = {}", "pool_size must be"),
        ("[settings]\nsecret_key = 'short'", "at least 16"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    Path("mindia.toml").write_text(text)
    with pytest.raises(InvalidError, match=message):
        read()


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(InvalidError, match=r"other\.toml cannot be read"):
        read(Flags(config="other.toml"))


@pytest.mark.parametrize("setting", ["pool_size", "pool_sizes=1", "secret_key=0123456789abcdef", "pool_size=x"])
def test_a_setting_on_the_command_line_that_is_wrong_is_refused(setting: str) -> None:
    with pytest.raises(InvalidError) as raised:
        read(Flags(settings=(setting,)))
    assert "0123456789abcdef" not in str(raised.value)


def test_a_password_on_the_command_line_is_refused_and_not_repeated() -> None:
    for url in ("postgresql://me:hush@h/db", "host=h password=hush", "host=h password='hush"):
        with pytest.raises(InvalidError) as raised:
            read(Flags(database_url=url))
        assert "hush" not in str(raised.value)


def test_no_secret_is_shown() -> None:
    said = read(
        MINDIA_DATABASE_URL="postgresql://me:hush@h:1/db",
        MINDIA_OWNER_URL="password=hush",
        MINDIA_SECRET_KEY="hush" * 4,
    )
    assert "hush" not in repr(said)
    assert redacted("postgresql://me:hush@h:1/db") == "postgresql://me:***@h:1/db"
    assert redacted("host=h password=hush sslpassword=hush").count("***") == 2
    assert redacted("host=h password='hush") == "***"


def test_variables_of_the_place_are_none_of_the_settings() -> None:
    names = {field.name for field in attrs.fields(Settings)}
    assert not names & {"config", "app", "home", "database_url", "owner_url", "storage", "tenant", "password"}


def test_addresses_of_storages(here: Path) -> None:
    for address in ("objects", f"file://{here}/objects"):
        found = storage_of(address)
        assert isinstance(found, LocalStorage)
        assert found.root == here / "objects"
    assert isinstance(storage_of("s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu-1"), S3Storage)
    assert isinstance(storage_of("s3://"), S3Storage)
    for wrong in ("s3://key:hush@bucket", "s3://b?nonsense=1", "s3://b?create_buckets=x", "ftp://x", "file://other/x"):
        with pytest.raises(InvalidError) as raised:
            storage_of(wrong)
        assert "hush" not in str(raised.value)


def test_nothing_named_tells_the_ways() -> None:
    with pytest.raises(InvalidError, match="mindia init"):
        opened(read())
    with pytest.raises(InvalidError, match="needs a storage"):
        opened(read(MINDIA_DATABASE_URL="dbname=x"))


def test_an_application_of_the_host(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "shop_media.py").write_text(
        "import mindia\ndef make():\n    return mindia.connect('dbname=x', storage=mindia.MemoryStorage())\nno = 1\n"
    )
    with opened(read(MINDIA_APP="shop_media:make")) as app:
        assert isinstance(app, mindia.Mindia)
    for wrong in ("shop_media", "shop_media:nothing", "shop_media:no", "nowhere_at_all:x"):
        with pytest.raises(InvalidError, match="app is"):
            opened(read(MINDIA_APP=wrong))


def test_models_are_made_of_their_tables() -> None:
    Path("mindia.toml").write_text('database_url = "dbname=x"\nstorage = "o"\n[embedder]\ntype = "lexical"\n')
    opened(read()).close()
    for table in ("type = 'none'", "type = 'openai-compatible'\nmodel = 'm'", "type = 'lexical'\nnonsense = 1"):
        Path("mindia.toml").write_text(f'database_url = "dbname=x"\nstorage = "o"\n[embedder]\n{table}\n')
        with pytest.raises(InvalidError, match="embedder"):
            opened(read())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("NotFoundError", ExitCode.NOT_FOUND),
        ("ObjectNotFoundError", ExitCode.NOT_FOUND),
        ("TenantInactiveError", ExitCode.REFUSED),
        ("RoleError", ExitCode.REFUSED),
        ("QuotaExceededError", ExitCode.CONFLICT),
        ("InvalidError", ExitCode.USAGE),
        ("CorruptMediaError", ExitCode.ERROR),
        ("SchemaOutOfDateError", ExitCode.ERROR),
        ("DatabaseUnavailableError", ExitCode.UNAVAILABLE),
        ("StorageUnavailableError", ExitCode.UNAVAILABLE),
        ("EmbeddedServerError", ExitCode.UNAVAILABLE),
    ],
)
def test_each_error_has_its_exit_code(name: str, code: ExitCode) -> None:
    assert exit_code_of(getattr(errors, name)("x")) is code


def test_what_may_succeed_later_is_told_by_its_exit_code() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MindiaError)]
    for kind in kinds:
        error = kind.__new__(kind)
        if error.retryable and not isinstance(error, errors.AuthenticationError):
            assert exit_code_of(error) is ExitCode.UNAVAILABLE, kind
    assert exit_code_of(TimeoutError()) is ExitCode.UNAVAILABLE
    assert exit_code_of(KeyboardInterrupt()) is ExitCode.INTERRUPTED
    assert exit_code_of(OSError()) is ExitCode.ERROR


def test_nothing_acts_on_a_terminal() -> None:
    hostile = "a\x1b[31m\r\nb\x9b2J\u202egnp.exe\u2028\udc80[red]ü猫👩‍🚀"
    assert safe(hostile) == r"a\x1b[31m\r\nb\x9b2J\u202egnp.exe\u2028\udc80[red]ü猫👩‍🚀"


def test_objects_are_lines_of_json() -> None:
    usage = Usage(
        by_type=(TypeUsage(kind=MediaKind.IMAGE, content_type="image/png", item_count=2, total_bytes=5),), quota=Quota()
    )
    line = line_of(usage)
    assert json.loads(line) == {
        "type": "usage",
        "by_type": [{"kind": "image", "content_type": "image/png", "item_count": 2, "total_bytes": 5}],
        "quota": {"max_items": None, "max_total_bytes": None},
        "item_count": 2,
        "total_bytes": 5,
        "derivative_count": 0,
        "derivative_bytes": 0,
    }
    odd = {
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "span": timedelta(minutes=1),
        "text": "\x9b\u202e\udc80\n",
        "id": UUID(int=1),
    }
    line = line_of(odd, kind="odd")
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["span"] == 60


def test_values_as_they_are_typed_in() -> None:
    assert duration_of("1.5h") == timedelta(minutes=90)
    assert duration_of("30") == timedelta(seconds=30)
    assert time_of("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    assert time_of("2026-03-01T01:00:00+01:00") == datetime(2026, 3, 1, tzinfo=UTC)
    ago = time_of("1d")
    assert ago is not None
    assert ago < datetime.now(UTC)
    assert metadata_of(["a=1", "b=x=y", "c=[true]"]) == {"a": 1, "b": "x=y", "c": [True]}
    assert [size_of(count) for count in (999, 1000, 999_950, 5 * 10**12)] == ["999 B", "1 kB", "1 MB", "5 TB"]
    for wrong in ("", "x", "-1s", "9" * 30 + "w"):
        with pytest.raises(InvalidError):
            duration_of(wrong)
    for call in (lambda: uuid_of("x"), lambda: time_of("yesterday"), lambda: metadata_of(["x"])):
        with pytest.raises(InvalidError):
            call()


def test_help_loads_none_of_what_commands_need() -> None:
    code = "import sys, mindia.cli\ntry: mindia.cli.main()\nfinally: print(*sorted(sys.modules), file=sys.stderr)"
    done = run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "Exit codes" in done.stdout
    assert not {"mindia.app", "mindia.domain.media", "psycopg", "numpy", "boto3", "PIL"} & set(done.stderr.split())


def test_without_the_extra_it_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['typer'] = None; import mindia.cli; mindia.cli.main()"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'mindia[cli]'" in done.stderr
