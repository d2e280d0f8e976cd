"""What is released: the wheel and the source archive, and that they work where nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import attrs
import pytest

import mindia
from mindia.db.migrator import migrations

_ROOT = Path(__file__).parents[2]
_SOURCE = _ROOT / "src"
_HOST = _ROOT / "tests/typing/host.py"
_EXTRAS = sorted(
    tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"].keys()
    - {"all", "fastembed", "sentence-transformers"}
)
"""Each but the two that bring gigabytes, and the one that is others together, which is tried by itself."""

_SMOKE = """\
import mindia
assert mindia.__version__ == {version!r}, mindia.__version__
assert mindia.__file__.startswith({prefix!r}), mindia.__file__
"""


@attrs.frozen
class Release:
    """What was built."""

    wheel: Path
    sdist: Path


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=_ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Release(wheel, sdist)


def test_the_wheel_has_the_package_and_nothing_else(release: Release) -> None:
    with zipfile.ZipFile(release.wheel) as wheel:
        there = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        (scripts,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
        said = message_from_bytes(wheel.read(metadata))
        assert "mindia = mindia.cli:main" in wheel.read(scripts).decode()
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
    wanted = {
        path.relative_to(_SOURCE).as_posix()
        for path in (_SOURCE / "mindia").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there == wanted
    assert "mindia/py.typed" in there
    assert {f"mindia/db/migrations/{migration}.sql" for migration in migrations()} <= there
    assert said["Version"] == mindia.__version__
    assert {*_EXTRAS, "all"} <= set(said.get_all("Provides-Extra", []))


def test_the_wheel_can_be_built_of_the_source_archive(release: Release, tmp_path: Path) -> None:
    with tarfile.open(release.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert (folder / "tests/conftest.py").is_file()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=folder)
    (again,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(release.wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """The interpreter of an environment in which nothing is installed."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    return tmp_path / "venv/bin/python"


def install(python: Path, *what: object) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, "install", *what)


def smoke(python: Path, code: str = "") -> None:
    told = _SMOKE.format(version=mindia.__version__, prefix=str(python.parents[1]))
    run(python, "-W", "error", "-c", told + code, cwd=python.parent)


@pytest.mark.slow
def test_it_is_imported_without_any_dependency(release: Release, empty: Path) -> None:
    install(empty, "--no-deps", release.wheel)
    smoke(empty, "assert mindia.errors.MindiaError\n")
    done = subprocess.run([empty.parent / "mindia"], capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install 'mindia[cli]'" in done.stderr) == (1, True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", _EXTRAS)
def test_it_works_with_each_extra(extra: str, release: Release, empty: Path) -> None:
    install(empty, f"mindia[{extra}] @ {release.wheel.as_uri()}")
    needs_libpq = extra in ("binary", "embedded")
    smoke(empty, "from mindia import *\n" if needs_libpq else "mindia.Settings(); mindia.MediaKind\n")
    if extra == "cli":
        assert "import" in run(empty.parent / "mindia", "--help")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_it_adds_finds_and_answers_on_the_command_line(release: Release, empty: Path, tmp_path: Path) -> None:
    install(empty, f"mindia[all] @ {release.wheel.as_uri()}")
    smoke(
        empty,
        "from mindia.testing import samples\n"
        f"with mindia.local({str(tmp_path / 'home')!r}) as app:\n"
        "    library = app.library(app.tenants.create('Acme'))\n"
        "    library.media.add(samples.image(), filename='cat.jpg')\n"
        "    app.run_until_idle()\n"
        "    assert len(library.search('cat')) == 1\n",
    )
    assert "cat.jpg" in run(empty.parent / "mindia", "list", "--home", tmp_path / "home", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_type_checkers_read_a_host_of_the_installed_package(release: Release, empty: Path, tmp_path: Path) -> None:
    install(empty, f"mindia[binary] @ {release.wheel.as_uri()}", "mypy>=1.18", "pyright[nodejs]>=1.1.400")
    host = tmp_path / "host.py"
    host.write_text(_HOST.read_text("utf-8"), "utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import mindia\nname: int = mindia.connect(3, storage=mindia.MemoryStorage())\n", "utf-8")
    mypy = (empty, "-m", "mypy", "--strict", "--python-executable", empty)
    pyright = (empty.parent / "pyright", "--pythonpath", empty)
    assert "no issues found" in run(*mypy, host, cwd=tmp_path)
    assert "0 errors" in run(*pyright, host, cwd=tmp_path)
    for checker in (mypy, pyright):
        done = subprocess.run([*map(str, checker), str(wrong)], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 1, "the types of the package are seen"
