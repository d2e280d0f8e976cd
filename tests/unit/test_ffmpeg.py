"""The executable that encodes videos is found, looked at, and named in what is said where it is missing."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mindia.errors import InvalidError, MissingExtraError, ProcessDiedError, TaskCancelledError, TranscodingError
from mindia.media import ffmpeg
from mindia.media.ffmpeg import find_ffmpeg, run_ffmpeg, working_folder

ENCODERS = " V....D libx264              H.264\n V....D libopenh264          H.264\n A....D aac   AAC\n"


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    ffmpeg._looked_at.cache_clear()
    yield
    ffmpeg._looked_at.cache_clear()


def script(folder: Path, text: str, name: str = "ffmpeg") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def one_of(version: str, encoders: str = ENCODERS) -> str:
    return f"echo 'ffmpeg version {version} Copyright' >&2\ncat <<'END'\n{encoders}END"


@pytest.mark.parametrize(
    "version", ["4.4.2-0+deb11u1", "5.1.6", "n7.1", "10.0", "N-112345-gabcdef", "2024-01-01-git-1234"]
)
def test_one_that_is_new_enough_is_taken(tmp_path: Path, version: str) -> None:
    found = find_ffmpeg(script(tmp_path, one_of(version)))
    assert (found.path, found.version, found.encoder) == (str(tmp_path / "ffmpeg"), version, "libx264")


def test_the_other_encoder_is_taken_where_the_better_one_is_missing(tmp_path: Path) -> None:
    encoders = "\n".join(line for line in ENCODERS.splitlines() if "x264" not in line) + "\n"
    assert find_ffmpeg(script(tmp_path, one_of("7.1", encoders))).encoder == "libopenh264"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (one_of("4.3.9"), "older than 4.4"),
        (one_of("n3.4"), "older than 4.4"),
        (one_of("7.1", " A....D aac   AAC\n"), "does not encode"),
        (one_of("7.1", " V....D libx264   H.264\n"), "does not encode"),
        ("echo hello", "is not ffmpeg"),
        ("exit 1", "is not ffmpeg"),
    ],
)
def test_one_that_is_named_and_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(InvalidError, match=rf"Settings\.ffmpeg is .*{says}.*pip install 'mindia\[video\]'"):
        find_ffmpeg(path)


def test_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="cannot be run"):
        find_ffmpeg(tmp_path / "nothing")


def test_that_of_the_system_comes_first_if_it_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = script(tmp_path / "new", one_of("6.0"))
    monkeypatch.setenv("PATH", f"{ours.parent}:/usr/bin:/bin")
    assert find_ffmpeg().path == str(ours)

    old = script(tmp_path / "old", one_of("2.8"))
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    assert "imageio_ffmpeg" in find_ffmpeg().path


def test_without_any_the_message_has_the_command_that_installs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = script(tmp_path, one_of("2.8"))
    monkeypatch.setenv("PATH", str(old.parent) + ":/bin:/usr/bin")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        MissingExtraError, match=r"ffmpeg: version 2\.8 is older than 4\.4.*pip install 'mindia\[video\]'"
    ):
        find_ffmpeg()


# Running


class Strings:
    """Ends a program when the test says so."""

    def __init__(self, *, after: int = -1) -> None:
        self._left = after
        self.kills: list[Callable[[], object]] = []

    def check(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise TaskCancelledError("it was called off")

    @contextmanager
    def killing(self, kill: Callable[[], object]) -> Iterator[None]:
        self.kills.append(kill)
        yield


def run(path: Path, folder: Path, *, running: Strings | None = None, tick: Callable[[float], object] = float) -> None:
    run_ffmpeg([str(path)], folder=folder, running=running or Strings(), tick=tick)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_how_far_it_is_is_told(tmp_path: Path) -> None:
    seen: list[float] = []
    path = script(tmp_path, "echo out_time_us=N/A; echo out_time_us=1500000; echo frame=3; echo out_time_us=2500000")
    run(path, tmp_path, tick=seen.append)
    assert seen[-1] == 2.5


def test_what_it_says_where_it_gives_up_is_told(tmp_path: Path) -> None:
    path = script(tmp_path, "echo one >&2; echo 'moov atom not found' >&2; exit 69")
    with pytest.raises(TranscodingError, match=r"one \| moov atom not found") as caught:
        run(path, tmp_path)
    assert caught.value.is_final


def test_much_that_it_says_is_no_burden(tmp_path: Path) -> None:
    path = script(tmp_path, "yes 'error while decoding MB 3 4' | head -c 3000000 >&2; exit 1")
    with pytest.raises(TranscodingError) as caught:
        run(path, tmp_path)
    assert len(str(caught.value)) < 5000


def test_one_that_was_killed_may_be_run_again(tmp_path: Path) -> None:
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        run(script(tmp_path, "kill -9 $$"), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_that_is_called_off_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    path = script(tmp_path, "sleep 1000 & echo $$ $! > pids; wait")
    with pytest.raises(TaskCancelledError):
        run(path, tmp_path, running=Strings(after=3))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline


PARENT = """
import contextlib, os, sys
from pathlib import Path
from mindia.media.ffmpeg import run_ffmpeg, working_folder

class Running:
    def check(self):
        pass
    @contextlib.contextmanager
    def killing(self, kill):
        yield

with working_folder(Path(sys.argv[2])) as folder:
    run_ffmpeg([sys.argv[1]], folder=folder, running=Running(), tick=lambda _: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_where_the_process_is_killed_the_program_ends_and_its_folder_goes(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = script(tmp_path, f"echo part > segment_000.ts; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(path), str(place)])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
        pid = int((tmp_path / "pid").read_text())
        assert list(place.glob("*/segment_000.ts"))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    while is_alive(pid) or list(place.iterdir()):
        assert time.monotonic() < deadline, "something is left"


def test_a_folder_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    with working_folder(tmp_path) as folder:
        (folder / "48p").mkdir()
        (folder / "48p" / "segment_000.ts").write_bytes(b"part")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_may_be_there_later(tmp_path: Path) -> None:
    with pytest.raises(TranscodingError) as caught, working_folder(tmp_path / "nothing"):
        pass
    assert not caught.value.is_final
