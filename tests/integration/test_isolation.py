"""Parsers in child processes: the same answers, and no harm from what a file does to its parser."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import spawn

import pytest

from mindia import Library, Mindia, Settings, connect
from mindia.errors import (
    ClosedError,
    CorruptMediaError,
    EmptyFileError,
    MediaError,
    ParserUnavailableError,
    TooLargeError,
    UnsupportedTypeError,
)
from mindia.media.isolation import ParserPool
from mindia.media.probe import InProcessProber, Probed, Prober
from mindia.storage.local import LocalStorage
from mindia.testing import samples

FILES = {
    "turned.jpg": samples.image(orientation=6),
    "still.png": samples.image("PNG"),
    "moving.mp4": samples.video(),
    "sound.mp3": samples.audio(),
    "tone.wav": samples.wav(seconds=2),
    "letter.pdf": samples.pdf(["Dear Ada", "Yours"]),
}


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    pool = ParserPool(Settings())
    yield pool
    pool.close()


def probe(prober: Prober, content: bytes, filename: str) -> Probed:
    return prober.probe(io.BytesIO(content), size=len(content), filename=filename, declared=None)


def children(pool: ParserPool) -> list[int]:
    return [child.pid for child in pool._children]


@pytest.mark.parametrize("filename", FILES)
def test_a_child_finds_the_same_as_the_process_itself(pool: ParserPool, filename: str) -> None:
    assert probe(pool, FILES[filename], filename) == probe(InProcessProber(Settings()), FILES[filename], filename)


@pytest.mark.parametrize(
    ("content", "filename", "expected"),
    [
        (b"", "empty.jpg", EmptyFileError),
        (b"<svg/>" + bytes(100), "movie.mp4", UnsupportedTypeError),
        (samples.image()[:-200], "cut.jpg", CorruptMediaError),
        (samples.image(width=2000, height=2000), "large.jpg", TooLargeError),
    ],
)
def test_a_child_refuses_with_the_same_words(content: bytes, filename: str, expected: type[MediaError]) -> None:
    settings = Settings(max_image_pixels=1_000_000)
    pool = ParserPool(settings)
    refused = []
    for prober in (pool, InProcessProber(settings)):
        with pytest.raises(expected, match=filename) as caught:
            probe(prober, content, filename)
        refused.append((type(caught.value), str(caught.value)))
    pool.close()
    assert refused[0] == refused[1]


def test_a_file_that_waits_on_disk_is_read_from_its_beginning_and_keeps_its_position(tmp_path: object) -> None:
    with io.open(f"{tmp_path}/tone.wav", "w+b") as file:  # noqa: UP020 - as a spool has it
        content = samples.wav(seconds=1)
        file.write(content)
        file.flush()
        pool = ParserPool(Settings(spool_memory_bytes=1000))
        found = pool.probe(file, size=len(content), filename="tone.wav", declared=None)
        pool.close()
        assert found == probe(InProcessProber(Settings()), content, "tone.wav")
        assert file.tell() == len(content)


def test_a_file_that_keeps_its_parser_busy_for_too_long_is_refused_and_the_next_one_is_not(app: Mindia) -> None:
    pool = ParserPool(Settings(parser_timeout=timedelta(seconds=0.5)))
    probe(pool, FILES["still.png"], "still.png")
    stopped = children(pool)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    for _ in stopped:
        with pytest.raises(TooLargeError, match="parser_timeout"):
            probe(pool, FILES["still.png"], "still.png")
    pool.close()
    assert not any(alive(pid) for pid in stopped)
    assert not app.closed


def test_a_child_that_was_killed_while_it_waited_is_replaced_without_a_word(pool: ParserPool) -> None:
    probe(pool, FILES["still.png"], "still.png")
    for pid in children(pool)[:1]:
        os.kill(pid, signal.SIGKILL)
    for _ in range(4):
        assert probe(pool, FILES["still.png"], "still.png").content_type == "image/png"


def test_a_file_that_needs_too_much_memory_is_refused() -> None:
    pool = ParserPool(Settings(parser_memory_bytes=120_000_000))
    bomb = samples.image("PNG", width=9_000, height=9_000)
    with pytest.raises(MediaError, match=r"bomb\.png"):
        probe(pool, bomb, "bomb.png")
    assert probe(pool, FILES["still.png"], "still.png").content_type == "image/png"
    pool.close()


def test_many_threads_share_few_children(pool: ParserPool) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: probe(pool, FILES["turned.jpg"], "turned.jpg"), range(64)))
    assert len(set(found)) == 1
    assert len(children(pool)) <= Settings().parser_processes + 1


def test_children_know_nothing_of_the_environment(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    probe(pool, FILES["still.png"], "still.png")
    for pid in children(pool):
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - of the system
            assert b"hidden" not in file.read()


def test_a_forked_process_has_children_of_its_own(pool: ParserPool) -> None:
    before = probe(pool, FILES["turned.jpg"], "turned.jpg")
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def work() -> None:
        sending.send(probe(pool, FILES["turned.jpg"], "turned.jpg"))
        pool.close()

    process = context.Process(target=work)
    process.start()
    assert receiving.recv() == before
    process.join()
    assert process.exitcode == 0
    assert probe(pool, FILES["turned.jpg"], "turned.jpg") == before


def test_an_interpreter_that_cannot_be_started_is_no_fault_of_the_file(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "_python_exe", "/nowhere/python")
    with pytest.raises(ParserUnavailableError, match="/nowhere/python"):
        probe(pool, FILES["still.png"], "still.png")


def test_a_process_without_a_descriptor_left_does_not_blame_the_file(pool: ParserPool) -> None:
    before = probe(pool, FILES["still.png"], "still.png")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(ParserUnavailableError, match=r"still\.png"):
            probe(pool, FILES["still.png"], "still.png")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert probe(pool, FILES["still.png"], "still.png") == before


def test_closing_ends_the_children_and_refuses_more(pool: ParserPool) -> None:
    probe(pool, FILES["still.png"], "still.png")
    pids = children(pool)
    pool.close()
    pool.close()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(ClosedError):
        probe(pool, FILES["still.png"], "still.png")


def test_children_end_with_the_process_that_made_them() -> None:
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def work() -> None:
        pool = ParserPool(Settings())
        probe(pool, FILES["still.png"], "still.png")
        sending.send(children(pool))
        signal.pause()

    process = context.Process(target=work)
    process.start()
    pids = receiving.recv()
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(alive(pid) for pid in pids)


def test_an_application_parses_in_children_unless_it_is_told_not_to(database_url: str, storage: LocalStorage) -> None:
    for isolated in (True, False):
        with connect(database_url, storage=storage, settings=Settings(isolate_parsers=isolated)) as app:
            library: Library = app.library(app.tenants.create("Acme"))
            assert library.media.add(FILES["turned.jpg"], filename="turned.jpg").content_type == "image/jpeg"
            assert isinstance(app._prober, ParserPool) is isolated


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - of the system
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
