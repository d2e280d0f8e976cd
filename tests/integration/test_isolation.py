"""Parsers in child processes: the same answers, and no harm from what a file does to its parser."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime, timedelta
from multiprocessing import spawn
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from PIL import Image
from tests.corpus.hostile import Canary
from tests.corpus.hostile_images import IMAGES

from mindia import Image as ImageItem
from mindia import Library, MemoryStorage, Settings, connect
from mindia.domain.media import ImageFacts, Location
from mindia.domain.operations import Blur, Crop, Operation, Resize, SmartCrop, Thumbnail, Watermark
from mindia.domain.transformations import Transformation
from mindia.errors import (
    ClosedError,
    CorruptMediaError,
    EmptyFileError,
    InvalidError,
    MediaError,
    MindiaError,
    ParserUnavailableError,
    StorageUnavailableError,
    TooLargeError,
    TypeMismatchError,
    UnsupportedTypeError,
)
from mindia.media._answers import answers_of, made_of, probed_of
from mindia.media._parser_process import ParserProcess
from mindia.media.deriving import Made
from mindia.media.isolation import ParserPool
from mindia.media.probe import (
    MAX_TOGETHER,
    MAX_TOGETHER_BYTES,
    InProcessProber,
    Probed,
    Prober,
    Source,
    Unprobed,
)
from mindia.storage.local import LocalStorage
from mindia.testing import samples

FILES = {
    "turned.jpg": samples.image(orientation=6),
    "still.png": samples.image("PNG"),
    "moving.mp4": samples.video(),
    "sound.mp3": samples.audio(),
    "tone.wav": samples.wav(seconds=2),
    "letter.pdf": samples.pdf(["Dear Ada", "Yours"], title="A letter"),
    "stream.ts": samples.video("mpegts"),
    "song.m4a": samples.audio("ipod", codec="aac", title="Jóga 日本 🎈", artist="Björk", album="Homogenic"),
    "naive.jpg": samples.image(camera="Füji", taken_at=datetime.fromisoformat("2024-05-06T07:08:09")),
    "aware.png": samples.image("PNG", taken_at=datetime.fromisoformat("2024-05-06T07:08:09-05:30")),
    "utc.webp": samples.image("WEBP", taken_at=datetime.fromisoformat("2024-05-06T07:08:09+00:00")),
    "there.jpg": samples.image(location=Location(latitude=-33.8567844, longitude=151.2152967, altitude=-12.3)),
    "flat.jpg": samples.image(location=Location(latitude=48.1, longitude=2.3)),
}


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    """Children of a test's own, which it may kill or count."""
    pool = ParserPool(Settings())
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[ParserPool]:
    """Children for the files of many tests: starting them takes longer than most of these."""
    with closing(ParserPool(Settings())) as pool:
        yield pool


def probe(prober: Prober, content: bytes, filename: str, **settings: Any) -> Probed:
    unprobed = Unprobed(file=io.BytesIO(content), size=len(content), filename=filename)
    return prober.probe(unprobed, settings=Settings(**settings))


def children(pool: ParserPool) -> list[int]:
    return [child.pid for child in pool._children]


@pytest.mark.parametrize("filename", FILES)
@pytest.mark.parametrize("keep_location", [True, False])
def test_a_child_finds_the_same_as_the_process_itself(shared: ParserPool, filename: str, keep_location: bool) -> None:
    found = probe(shared, FILES[filename], filename, keep_location=keep_location)
    expected = probe(InProcessProber(), FILES[filename], filename, keep_location=keep_location)

    assert found == expected
    assert repr(found) == repr(expected), "as equal as numbers and times are, they are not the same"


def test_a_time_and_a_place_come_out_of_a_child_as_they_are(shared: ParserPool) -> None:
    aware, naive, there = (
        probe(shared, FILES[filename], filename, keep_location=True).facts
        for filename in ("aware.png", "naive.jpg", "there.jpg")
    )

    assert isinstance(aware, ImageFacts)
    assert aware.taken_at is not None
    assert aware.taken_at.utcoffset() == timedelta(hours=-5, minutes=-30)
    assert isinstance(naive, ImageFacts)
    assert naive.taken_at is not None
    assert naive.taken_at.tzinfo is None
    assert isinstance(there, ImageFacts)
    assert isinstance(there.location, Location)


@pytest.mark.parametrize(
    "facts",
    [
        {"camera": "a\0b"},
        {"camera": "\ud800"},
        {"camera": ["Canon"]},
        {"taken_at": "yesterday"},
        {"taken_at": 7},
        {"location": {"latitude": 91, "longitude": 0}},
        {"location": "here"},
        {"width": "wide"},
        {"width": float("inf")},
        {"width": None},
    ],
    ids=repr,
)
def test_an_answer_that_makes_no_sense_is_not_believed(facts: dict[str, object]) -> None:
    answer = {"content_type": "image/jpeg", "kind": "image", "facts": {"width": 1, "height": 1} | facts}

    with pytest.raises(CorruptMediaError, match=r"x\.jpg.*nonsense"):
        probed_of(answer, "x.jpg")


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("image", {"width": 0, "height": 1}),
        ("image", {"width": 2**31, "height": 1}),
        ("image", {"width": 1, "height": -1}),
        ("video", {"width": 1, "height": 1, "duration": float("inf")}),
        ("video", {"width": 1, "height": 1, "duration": float("nan")}),
        ("audio", {"duration": 1.0, "bitrate": 2**31, "sample_rate": 1, "channels": 1}),
        ("audio", {"duration": 1.0, "bitrate": -1, "sample_rate": 1, "channels": 1}),
        ("audio", {"duration": 1.0, "bitrate": 1, "sample_rate": 2**40, "channels": 1}),
        ("audio", {"duration": 1.0, "bitrate": 1, "sample_rate": 1, "channels": 0}),
        ("audio", {"duration": -1.0, "bitrate": 1, "sample_rate": 1, "channels": 1}),
        ("document", {"page_count": 2**31, "text": ""}),
    ],
)
def test_an_answer_that_no_column_can_hold_is_not_believed(kind: str, facts: dict[str, object]) -> None:
    with pytest.raises(CorruptMediaError, match=r"'x\.jpg' says that it"):
        probed_of({"content_type": "image/jpeg", "kind": kind, "facts": facts}, "x.jpg")


@pytest.mark.parametrize(
    ("content", "filename", "expected"),
    [
        (b"", "empty.jpg", EmptyFileError),
        (b"<svg/>" + bytes(100), "movie.mp4", UnsupportedTypeError),
        (samples.image()[:-200], "cut.jpg", CorruptMediaError),
        (samples.image(width=2000, height=2000), "large.jpg", TooLargeError),
    ],
)
def test_a_child_refuses_with_the_same_words(
    shared: ParserPool, content: bytes, filename: str, expected: type[MediaError]
) -> None:
    refused = []
    for prober in (shared, InProcessProber()):
        with pytest.raises(expected, match=filename) as caught:
            probe(prober, content, filename, max_image_pixels=1_000_000)
        refused.append((type(caught.value), str(caught.value)))
    assert refused[0] == refused[1]


def test_each_file_is_held_to_the_limits_of_its_own_call(shared: ParserPool) -> None:
    for _ in range(2):
        with pytest.raises(TooLargeError, match="limit is 100"):
            probe(shared, FILES["still.png"], "still.png", max_image_pixels=100)
        assert probe(shared, FILES["still.png"], "still.png").content_type == "image/png"


def test_a_file_that_waits_on_disk_is_read_from_its_beginning_and_keeps_its_position(
    shared: ParserPool, tmp_path: Path
) -> None:
    with (tmp_path / "tone.wav").open("w+b") as file:
        content = samples.wav(seconds=1)
        file.write(content)
        file.flush()
        settings = Settings(spool_memory_bytes=1000)
        unprobed = Unprobed(file=file, size=len(content), filename="tone.wav")
        found = shared.probe(unprobed, settings=settings)
        assert found == probe(InProcessProber(), content, "tone.wav")
        assert file.tell() == len(content)


def test_a_file_that_keeps_its_parser_busy_for_too_long_is_refused_and_the_next_one_is_not(pool: ParserPool) -> None:
    probe(pool, FILES["still.png"], "still.png")
    stopped = children(pool)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    patient = pool._settings
    pool._settings = attrs.evolve(patient, parser_timeout=timedelta(seconds=0.5))
    for _ in stopped:
        with pytest.raises(TooLargeError, match="parser_timeout"):
            probe(pool, FILES["still.png"], "still.png")
    assert not any(alive(pid) for pid in stopped)
    pool._settings = patient
    assert probe(pool, FILES["still.png"], "still.png").content_type == "image/png"


def test_one_that_has_just_parsed_is_asked_again(pool: ParserPool) -> None:
    probe(pool, FILES["still.png"], "still.png")
    used = [child.pid for child in pool._children if child.is_used]
    for _ in range(5):
        probe(pool, FILES["still.png"], "still.png")
    assert [child.pid for child in pool._children if child.is_used] == used


@pytest.mark.parametrize("at", [0, -1])
def test_a_child_that_was_killed_while_it_waited_is_replaced_without_a_word(pool: ParserPool, at: int) -> None:
    probe(pool, FILES["still.png"], "still.png")
    for pid in children(pool)[at:][:1]:
        os.kill(pid, signal.SIGKILL)
    for _ in range(4):
        assert probe(pool, FILES["still.png"], "still.png").content_type == "image/png"


def test_a_file_that_needs_too_much_memory_is_refused() -> None:
    bomb = samples.image("PNG", width=9_000, height=9_000)
    with closing(ParserPool(Settings(parser_memory_bytes=120_000_000))) as pool:
        with pytest.raises(MediaError, match=r"bomb\.png"):
            probe(pool, bomb, "bomb.png")
        assert probe(pool, FILES["still.png"], "still.png").content_type == "image/png"


NEEDY: dict[str, dict[str, Any]] = {
    "WEBP": {},
    "AVIF": {"speed": 10},
    "JPEG": {"progressive": True},
    "PNG": {"compress_level": 1},
}


def noise(image_format: str, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 20).convert("RGB").save(buffer, image_format, **NEEDY[image_format])
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", NEEDY)
def test_an_image_that_wants_for_memory_is_too_large_and_not_damaged_whatever_its_decoder_says(
    image_format: str,
) -> None:
    """Where it gives up hangs on how much there is, and so does what it says."""
    content = noise(image_format, 2_500)
    taken_in = []
    for memory_bytes in range(48_000_000, 160_000_000, 16_000_000):
        with closing(ParserPool(Settings(parser_memory_bytes=memory_bytes, parser_processes=1))) as pool:
            try:
                taken_in.append(probe(pool, content, "x", spool_memory_bytes=len(content)))
                break
            except TooLargeError as error:
                assert "parser_memory_bytes" in str(error)  # noqa: PT017 - or it is large enough
    assert taken_in


@pytest.mark.parametrize("image_format", NEEDY)
def test_a_damaged_image_is_damaged_and_not_too_large(shared: ParserPool, image_format: str) -> None:
    content = noise(image_format, 2_500)
    damaged = content[:1_000] if image_format != "JPEG" else content[: len(content) // 2]

    with pytest.raises(CorruptMediaError, match="cannot be read as"):
        probe(shared, damaged, "x", spool_memory_bytes=len(content))


def test_a_file_that_crashes_its_parser_has_no_more_time_with_the_second_one() -> None:
    with closing(ParserPool(Settings(parser_timeout=timedelta(seconds=1.5), parser_processes=1))) as pool:
        probe(pool, FILES["still.png"], "still.png")
        first, *_ = busy = list(pool._free)
        for child in busy:
            os.kill(child.pid, signal.SIGSTOP)
        crash = threading.Timer(1.0, os.kill, (first.pid, signal.SIGKILL))
        crash.start()
        start = time.monotonic()
        with pytest.raises(TooLargeError, match="parser_timeout"):
            probe(pool, FILES["still.png"], "still.png")
        took_s = time.monotonic() - start
        crash.join()
    assert len(busy) > 1, "the second parser was not kept busy: this would test nothing"
    assert 1.4 < took_s < 2.2


def test_a_process_that_wants_for_memory_itself_refuses_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("mindia.media.probe.probe_image", greedy)
    with pytest.raises(TooLargeError, match=r"'still\.png' needs more memory"):
        probe(InProcessProber(), FILES["still.png"], "still.png")


def test_what_a_decoder_that_gave_up_did_not_give_back_is_not_missing_for_the_next_file() -> None:
    greedy = samples.image("AVIF", width=4_000, height=4_000)
    modest = samples.image("PNG", width=3_000, height=3_000)
    with closing(ParserPool(Settings(parser_memory_bytes=80_000_000))) as pool:
        for _ in range(4):
            with pytest.raises(TooLargeError, match=r"greedy\.avif.*parser_memory_bytes"):
                probe(pool, greedy, "greedy.avif")
        for _ in range(4):
            assert probe(pool, modest, "modest.png").content_type == "image/png"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are set on Linux only")
def test_a_file_for_which_a_child_has_no_memory_left_is_read_by_a_new_one(pool: ParserPool) -> None:
    modest = samples.image("PNG", width=3_000, height=3_000)
    for _ in range(Settings().parser_processes + 1):
        probe(pool, FILES["still.png"], "still.png")
    before = children(pool)
    for pid in before:  # as if what they have read had left nothing of it
        resource.prlimit(pid, resource.RLIMIT_DATA, (1_000_000, 1_000_000))

    assert probe(pool, modest, "modest.png").content_type == "image/png"

    assert len(children(pool)) <= Settings().parser_processes + 1
    assert len(set(before) - set(children(pool))) == 1


def test_a_declared_type_of_any_length_is_a_contradiction_and_no_crash(shared: ParserPool) -> None:
    content = FILES["still.png"]
    for declared in ("image/png" * 30_000, "x" * 300_000):
        unprobed = Unprobed(file=io.BytesIO(content), size=len(content), filename="x", declared=declared)
        with pytest.raises(TypeMismatchError, match="was declared as"):
            shared.probe(unprobed, settings=Settings())


# Several at once


def unprobed(files: Mapping[str, bytes], **declared: str) -> list[Unprobed]:
    return [
        Unprobed(file=io.BytesIO(content), size=len(content), filename=name, declared=declared.get(name))
        for name, content in files.items()
    ]


def apart(prober: Prober, files: Sequence[Unprobed]) -> list[Probed | type[MindiaError]]:
    """Return what is found out about each file by itself."""
    found: list[Probed | type[MindiaError]] = []
    for file in files:
        try:
            found.append(prober.probe(file, settings=Settings()))
        except MindiaError as error:
            found.append(type(error))
    return found


def together(prober: Prober, files: Sequence[Unprobed]) -> list[Probed | type[MindiaError]]:
    found = prober.probe_all(files, settings=Settings())
    return [type(each) if isinstance(each, MindiaError) else each for each in found]


MIXED = {
    "turned.jpg": FILES["turned.jpg"],
    "empty.jpg": b"",
    "half.png": FILES["still.png"][: len(FILES["still.png"]) // 2],
    "wrong.gif": FILES["still.png"],
    "letter.pdf": FILES["letter.pdf"],
    "sound.mp3": FILES["sound.mp3"],
    "none.txt": b"words",
    "declared.png": FILES["still.png"],
    "moving.mp4": FILES["moving.mp4"],
}


@pytest.mark.parametrize("in_process", [True, False])
def test_several_files_are_found_out_about_as_each_by_itself(shared: ParserPool, in_process: bool) -> None:
    prober: Prober = InProcessProber() if in_process else shared
    files = unprobed(MIXED, **{"declared.png": "image/gif"})

    found = together(prober, files)

    assert found == apart(prober, files)
    assert {each for each in found if isinstance(each, type)} == {
        EmptyFileError, CorruptMediaError, TypeMismatchError, UnsupportedTypeError,
    }  # fmt: skip


def test_several_files_take_one_child_that_is_asked_once(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = ParserProcess.ask

    def counted(child: ParserProcess, *args: Any, **more: Any) -> None:
        asked.append(child)
        ask(child, *args, **more)

    monkeypatch.setattr(ParserProcess, "ask", counted)

    found = together(pool, unprobed(MIXED))

    assert len(asked) == 1
    assert len(found) == len(MIXED)


def test_as_many_as_may_be_with_the_longest_names_are_one_request(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ParserPool, "probe", lambda *_, **__: pytest.fail("they were asked for one by one"))
    content = FILES["turned.jpg"] + bytes(MAX_TOGETHER_BYTES - len(FILES["turned.jpg"]))
    longest = "\N{MUSICAL SYMBOL G CLEF}" * 251 + ".jpg"
    file = Unprobed(file=io.BytesIO(content), size=len(content), filename=longest, declared="\ud800" * 100_000)

    found = together(pool, [file] * MAX_TOGETHER)

    assert found == [TypeMismatchError] * MAX_TOGETHER


@pytest.mark.parametrize("what", ["os._exit(3)", "time.sleep(60)", "bytearray(1 << 40)"])
def test_one_of_several_that_harms_its_parser_is_alone_to_blame(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = f"""
import json, os, sys, time
sys.path[:] = json.loads(sys.argv.pop(3))
from mindia.media import _child

probe = _child.probe

def harmed(file, **more):
    if file.filename == "harmful.png":
        {what}
    return probe(file, **more)

_child.probe = harmed
_child.main()
"""
    monkeypatch.setattr("mindia.media._parser_process._START", start)
    files = unprobed({"a.png": FILES["still.png"], "harmful.png": FILES["still.png"], "b.pdf": FILES["letter.pdf"]})
    with closing(ParserPool(Settings(parser_timeout=timedelta(seconds=3)))) as pool:
        found = together(pool, files)

    first, harmful, last = found
    assert [first, last] == apart(InProcessProber(), [files[0], files[2]])
    assert harmful is (CorruptMediaError if "exit" in what else TooLargeError)


def test_a_child_that_was_killed_meanwhile_harms_none_of_several(pool: ParserPool) -> None:
    together(pool, unprobed(MIXED))
    for _ in range(4):
        for pid in children(pool)[:1]:
            os.kill(pid, signal.SIGKILL)
        assert together(pool, unprobed(MIXED)) == apart(InProcessProber(), unprobed(MIXED))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"answers": None},
        {"answers": []},
        {"answers": [{}, 1]},
        {"answers": [{}] * 3},
        {"answers": {"a": 1, "b": 2}},
    ],
)
def test_answers_for_several_that_make_no_sense_are_not_believed(answer: dict[str, Any]) -> None:
    with pytest.raises(CorruptMediaError, match="nonsense"):
        answers_of(answer, 2)


def test_a_closed_pool_refuses_each_of_several(pool: ParserPool) -> None:
    pool.close()
    assert together(pool, unprobed(MIXED)) == [ClosedError] * len(MIXED)


def test_what_is_stored_slowly_keeps_no_parser_from_others(database_url: str) -> None:
    """More items are on their way to the store at once than there are parsers."""
    storing = threading.Barrier(2 * Settings().parser_processes)

    class Slow(MemoryStorage):
        def put(self, *args: Any, **more: Any) -> None:
            storing.wait(60)
            super().put(*args, **more)

    with connect(database_url, storage=Slow()) as app:
        library = app.library(app.tenants.create("Acme"))
        pictures = [samples.image(width=8 + each) for each in range(storing.parties)]
        with ThreadPoolExecutor(storing.parties) as threads:
            items = list(threads.map(library.media.add, pictures))

    assert {item.width for item in items if isinstance(item, ImageItem)} == {
        8 + each for each in range(storing.parties)
    }


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


SMALL = Transformation(operations=[Resize(20)]).settled()


def test_a_child_makes_the_same_pictures_as_the_process_itself(shared: ParserPool) -> None:
    marked = Transformation(operations=[Resize(20), Watermark(UUID(int=1))], format="png").settled()
    mark = samples.image(width=900, height=900, color="red", image_format="PNG")
    for prober in (shared, InProcessProber()):
        made = prober.derive(
            Source(io.BytesIO(FILES["turned.jpg"]), len(FILES["turned.jpg"])),
            filename="turned.jpg", transformation=marked, watermarks=[Source(io.BytesIO(mark), len(mark))],
            settings=attrs.evolve(Settings(), spool_memory_bytes=100),
        )  # fmt: skip
        assert (made.width, made.height) == Image.open(io.BytesIO(made.content)).size == (20, 27)
        pictures = {name: derived(prober, content, Thumbnail(24)) for name, content in FILES.items()}
        assert {max(each.width, each.height) for each in pictures.values()} == {24}


def derived(prober: Prober, content: bytes, *operations: Operation, **settings: Any) -> Made:
    return prober.derive(
        Source(io.BytesIO(content), len(content)),
        filename="a.jpg",
        transformation=Transformation(operations=operations).settled(),
        watermarks=[],
        settings=Settings(**settings),
    )


def test_a_child_refuses_to_make_what_cannot_be_made(shared: ParserPool) -> None:
    with pytest.raises(CorruptMediaError, match=r"'a\.jpg' cannot be read"):
        derived(shared, samples.image()[:-100])
    with pytest.raises(InvalidError, match="leaves nothing"):
        derived(shared, samples.image(), Crop(5, 5, x=64, y=0))
    with pytest.raises(TooLargeError, match=r"Settings\.max_derivative_pixels"):
        derived(shared, samples.image(), max_derivative_pixels=100)
    assert derived(shared, samples.image()).width == 64


def test_a_child_that_is_killed_while_it_makes_a_picture_is_replaced(pool: ParserPool) -> None:
    derived(pool, samples.image())
    os.kill(pool._free[0].pid, signal.SIGKILL)

    assert derived(pool, samples.image(), Resize(20)).width == 20


def test_a_picture_that_takes_too_much_memory_or_time_is_too_large() -> None:
    large = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(large, "PNG")
    with closing(ParserPool(Settings(parser_memory_bytes=60_000_000))) as narrow, pytest.raises(TooLargeError):
        derived(narrow, large.getvalue(), Blur(200))
    with closing(ParserPool(Settings(parser_timeout=timedelta(milliseconds=200)))) as hasty:
        with pytest.raises(TooLargeError, match="takes longer"):
            derived(hasty, large.getvalue(), *[Blur(200)] * 30)
        with suppress(TooLargeError):  # a machine that is busy may not even start a child in time
            assert derived(hasty, samples.image(), Resize(20)).width == 20


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"width": 1, "height": 1}, {"content": b"<html>", "width": 1, "height": 1},
        {"content": samples.image(), "width": 1, "height": 1},
        {"content": samples.image("WEBP"), "width": 0, "height": 1},
        {"content": samples.image("WEBP"), "width": "1", "height": 1},
        {"content": samples.image("WEBP"), "width": 1, "height": 1 << 40},
    ],
)  # fmt: skip
def test_a_picture_that_is_none_is_not_believed(answer: dict[str, Any]) -> None:
    with pytest.raises(CorruptMediaError, match="nonsense"):
        made_of(answer, "a.jpg", SMALL)


def test_a_temporary_folder_that_is_missing_is_an_error_of_the_storage(shared: ParserPool, tmp_path: Path) -> None:
    class Remote(io.BytesIO):
        """What comes from an object store: no file of this machine."""

    with pytest.raises(StorageUnavailableError, match=r"Settings\.spool_folder"):
        shared.derive(
            Source(Remote(samples.image()), len(samples.image())), filename="a.jpg", transformation=SMALL,
            watermarks=[], settings=Settings(spool_folder=tmp_path / "missing", spool_memory_bytes=10),
        )  # fmt: skip


OF_MANY_FRAMES = {
    "APNG of a hundred thousand frames",
    "GIF of a hundred thousand frames on a large canvas",
    "WEBP of a hundred thousand frames",
}
HOSTILE_PICTURES = [
    pytest.param(name, marks=pytest.mark.slow if name in OF_MANY_FRAMES else ())
    for name, file in IMAGES.items()
    if file.accepted is not None
]


@pytest.mark.parametrize("name", HOSTILE_PICTURES)
def test_a_hostile_picture_becomes_a_small_one_or_is_refused(patient: ParserPool, name: str, canary: Canary) -> None:
    content = IMAGES[name].make(canary)
    for transformation in (SMALL, Transformation(operations=[SmartCrop(9, 9)], animated=True).settled()):
        try:
            made = patient.derive(
                Source(io.BytesIO(content), len(content)), filename=IMAGES[name].filename,
                transformation=transformation, watermarks=[], settings=Settings(),
            )  # fmt: skip
        except MediaError:
            continue
        assert max(made.width, made.height) <= 20
        assert len(made.content) < 5_000_000


@pytest.fixture(scope="module")
def patient() -> Iterator[ParserPool]:
    """Children that stay for a whole module."""
    with closing(ParserPool(Settings(parser_timeout=timedelta(seconds=5)))) as pool:
        yield pool


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(path=tmp_path / "canary", port=9)
