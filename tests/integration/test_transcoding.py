"""The task that encodes a video: what it leaves behind, and what is told of it, however it ends."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import psycopg
import pytest
from tests.conftest import Roles, as_application
from tests.integration.queue_jobs import SETTINGS as QUEUE_SETTINGS
from tests.integration.queue_jobs import running

import mindia
from mindia import Library, LocalStorage, MemoryStorage, Mindia, Settings, Task, TaskStatus, Video
from mindia.domain.media import ProcessingStatus
from mindia.domain.tasks import VideoTranscode
from mindia.errors import NotFoundError, StorageUnavailableError, StreamNotReadyError
from mindia.media.ffmpeg import find_ffmpeg
from mindia.testing import samples
from mindia.testing.storage import listed

LADDER = ("48p@100k", "96p@300k")
CLIP = samples.video(seconds=3)
PENDING, PROCESSING, COMPLETED, FAILED = ProcessingStatus
HOOK = "https://93.184.216.34/hook"


@pytest.fixture
def settings(roles: Roles, tmp_path: Path) -> Settings:
    spool = tmp_path / "spool"
    spool.mkdir()
    return attrs.evolve(
        QUEUE_SETTINGS,
        worker_role=roles.worker,
        isolate_parsers=False,
        spool_folder=spool,
        transcode_on_add=True,
        hls_ladder=LADDER,
        hls_segment_s=1.0,
        hls_preset="ultrafast",
        retry_base=timedelta(microseconds=1),
        retry_cap=timedelta(microseconds=1),
    )


@pytest.fixture
def url(fresh_database_url: str, roles: Roles) -> str:
    return as_application(fresh_database_url, roles)


@pytest.fixture
def app(url: str, storage: LocalStorage, settings: Settings) -> Iterator[Mindia]:
    with mindia.connect(url, storage=storage, settings=settings) as app:
        yield app


@pytest.fixture
def library(app: Mindia) -> Library:
    library = app.library(app.tenants.create("Acme"))
    library.webhooks.register(HOOK, events=["video.completed", "video.failed"])
    # What is sent is of no interest here; what is written is.
    library.webhooks.pause(next(iter(library.webhooks.list())))
    return library


def with_settings(app: Mindia, url: str, storage: Any, **changed: Any) -> Mindia:
    return mindia.connect(url, storage=storage, settings=attrs.evolve(app.settings, **changed))


def told(library: Library) -> list[tuple[str, UUID, str | None]]:
    """The events of videos, the oldest first."""
    found = []
    for delivery in library.webhooks.deliveries():
        payload: Any = delivery.payload
        data = payload["data"]
        found.append((delivery.event_type, UUID(data["media_id"]), data.get("reason")))
    return found[::-1]


def the_task(library: Library) -> Task:
    (task,) = library.tasks.list(kind="video_transcode")
    return task


def derived(app: Mindia, storage: LocalStorage, library: Library) -> set[str]:
    bucket = app.tenants.get(library.tenant_id).s3_bucket
    return {key for key in listed(storage, bucket) if key.startswith("derived/")}


def nothing_is_left(app: Mindia, storage: LocalStorage, library: Library) -> None:
    assert not derived(app, storage, library)
    assert not list(app.settings.spool_folder.iterdir())  # type: ignore[union-attr]
    assert app.maintenance.verify(tenant=library.tenant_id).is_clean


def fresh(library: Library, video: Any) -> Video:
    return library.media.get(video.id, type=Video)


def test_a_video_that_is_added_becomes_a_stream(app: Mindia, library: Library, storage: LocalStorage) -> None:
    video = library.media.add(CLIP, filename="clip.mp4")
    assert fresh(library, video).processing_status is PENDING
    with pytest.raises(StreamNotReadyError, match="pending"):
        library.media.hls_url(video)

    report = app.run_until_idle()

    assert (report.completed, report.failed) == (2, 0)
    done = fresh(library, video)
    assert done.processing_status is COMPLETED
    assert done.hls_master_key is not None
    prefix = done.hls_master_key.removesuffix("master.m3u8")
    variants = [
        f"{each}/{name}"
        for each in ("48p", "96p")
        for name in ("index.m3u8", "segment_000.ts", "segment_001.ts", "segment_002.ts")
    ]
    assert derived(app, storage, library) == {f"{prefix}{name}" for name in ("master.m3u8", *variants)}
    assert told(library) == [("video.completed", video.id, None)]
    result = the_task(library).result
    assert result == {"variants": ["48p", "96p"], "duration": 3.0, "expected_duration": 3.0, "segments": 3}
    assert app.maintenance.verify(tenant=library.tenant_id, hash_fraction=1).is_clean
    assert not list(app.settings.spool_folder.iterdir())  # type: ignore[union-attr]
    assert library.usage().derivative_count == 1


def test_a_stream_goes_with_its_video(app: Mindia, library: Library, storage: LocalStorage) -> None:
    video = library.media.add(CLIP)
    app.run_until_idle()

    library.media.delete(video)
    app.run_until_idle()

    nothing_is_left(app, storage, library)


def test_by_a_setting_nothing_is_encoded_unasked(
    app: Mindia, url: str, storage: LocalStorage, library: Library
) -> None:
    with with_settings(app, url, storage, transcode_on_add=False) as quiet:
        ours = quiet.library(library.tenant_id)
        video = ours.media.add(CLIP)
        assert not list(ours.tasks.list(kind="video_transcode"))

        task = ours.media.transcode(video, priority=10)
        assert ours.media.transcode(video).id == task.id, "there is one task for the same bytes"
        quiet.run_until_idle()

    assert task.priority == 10
    assert fresh(library, video).processing_status is COMPLETED


def test_copies_share_the_stream_and_all_are_told_of(app: Mindia, library: Library, storage: LocalStorage) -> None:
    video = library.media.add(CLIP)
    before = library.media.copy(video)
    app.run_until_idle()
    after = library.media.copy(video)

    assert len(list(library.tasks.list(kind="video_transcode"))) == 1
    keys = {fresh(library, each).hls_master_key for each in (video, before, after)}
    assert len(keys) == 1
    assert {fresh(library, each).processing_status for each in (video, before, after)} == {COMPLETED}
    assert sorted(told(library)) == sorted([("video.completed", video.id, None), ("video.completed", before.id, None)])
    library.media.delete(video)
    app.run_until_idle()
    assert derived(app, storage, library), "two still have it"


def test_a_copy_gets_its_stream_though_the_first_of_them_has_gone(app: Mindia, library: Library) -> None:
    video = library.media.add(CLIP)
    copy = library.media.copy(video)
    library.media.delete(video)

    app.run_until_idle()

    assert fresh(library, copy).processing_status is COMPLETED
    assert told(library) == [("video.completed", copy.id, None)]


def test_what_is_there_is_not_made_again_unless_it_is_asked_for(
    app: Mindia, library: Library, storage: LocalStorage
) -> None:
    video = library.media.add(CLIP)
    app.run_until_idle()
    first = fresh(library, video).hls_master_key

    library.media.transcode(video)
    app.run_until_idle()
    assert fresh(library, video).hls_master_key == first

    library.media.transcode(video, again=True)
    app.run_until_idle()
    second = fresh(library, video).hls_master_key
    assert second != first
    assert len(told(library)) == 2
    app.maintenance.remove_deleted()
    assert {key.split("/")[2] for key in derived(app, storage, library)} == {str(second).split("/")[2]}


def test_a_video_that_was_deleted_meanwhile_needs_nothing(app: Mindia, library: Library, storage: LocalStorage) -> None:
    library.media.delete(library.media.add(CLIP))

    report = app.run_until_idle()

    assert (report.failed, report.retried) == (0, 0)
    assert told(library) == []
    nothing_is_left(app, storage, library)


def test_a_video_that_is_deleted_while_it_is_encoded_leaves_nothing(
    url: str, app: Mindia, library: Library, storage: LocalStorage
) -> None:
    video = library.media.add(CLIP)
    at_work = Meddling(storage, at="segment", does=lambda: library.media.delete(video))
    with mindia.connect(url, storage=at_work, settings=app.settings) as worker:
        worker.run_until_idle()
        worker.run_until_idle()

    assert told(library) == []
    assert the_task(library).status is TaskStatus.COMPLETED
    app.run_until_idle()
    nothing_is_left(app, storage, library)


@pytest.mark.parametrize("kind", ["image", "nothing"])
def test_only_videos_are_encoded(library: Library, kind: str) -> None:
    named = library.media.add(samples.image()).id if kind == "image" else UUID(int=7)
    for call in (library.media.transcode, library.media.hls_url):
        with pytest.raises(NotFoundError, match="there is no video"):
            call(named)


def test_a_transcode_that_the_host_enqueues_by_itself_is_one_as_well(app: Mindia, library: Library) -> None:
    video = library.media.add(CLIP)
    library.tasks.cancel(the_task(library))
    library.tasks.enqueue(VideoTranscode(video_id=video.id))

    app.run_until_idle()

    assert fresh(library, video).processing_status is COMPLETED


# Faults


class Meddling(MemoryStorage):
    """A store in which something happens once when an object is put."""

    def __init__(self, storage: LocalStorage, *, at: str, does: Callable[[], object], times: int = 1) -> None:
        self._storage = storage
        self._at = at
        self._does = does
        self._left = times
        self._lock = threading.Lock()
        self.puts: list[tuple[str, float]] = []

    def put(self, bucket: str, key: str, source: Any, **more: Any) -> None:
        with self._lock:
            self.puts.append((key.rpartition("/")[2], time.monotonic()))
            happens = self._at in key and self._left > 0
            self._left -= happens
        if happens:
            self._does()
        self._storage.put(bucket, key, source, **more)

    def __getattribute__(self, name: str) -> Any:
        own = ("put", "puts", "__class__", "__dict__")
        if name in own or name.startswith("_"):
            return object.__getattribute__(self, name)
        return getattr(self._storage, name)


def a_program(folder: Path, script: str) -> Path:
    """Write what stands in for ffmpeg; `$FFMPEG` is the true one, and what only asks for encoders is answered by it."""
    path = folder / "ffmpeg"
    path.write_text(
        "#!/bin/sh\n"
        f"FFMPEG={find_ffmpeg().path}\n"
        'if [ "$1" = -encoders ]; then exec "$FFMPEG" -encoders; fi\n'
        f"{script}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run_with(app: Mindia, url: str, storage: LocalStorage, program: Path, *, until_idle: int = 1) -> None:
    with with_settings(app, url, storage, ffmpeg=program) as worker:
        for _ in range(until_idle):
            worker.run_until_idle()


def test_a_program_that_is_killed_once_is_run_again(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    video = library.media.add(CLIP)
    flag = tmp_path / "killed"
    program = a_program(tmp_path, f'[ -e {flag} ] && exec "$FFMPEG" "$@"\ntouch {flag}\nkill -9 $$')

    run_with(app, url, storage, program, until_idle=2)

    assert fresh(library, video).processing_status is COMPLETED
    assert [each.error_type for each in library.tasks.errors(the_task(library))] == ["ProcessDiedError"]
    assert told(library) == [("video.completed", video.id, None)], "a failure that passes is not told of"
    assert len({key.split("/")[2] for key in derived(app, storage, library)}) == 1


def test_one_that_is_killed_again_and_again_fails_once(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    video = library.media.add(CLIP)
    program = a_program(tmp_path, "kill -9 $$")

    run_with(app, url, storage, program, until_idle=5)
    app.run_until_idle()

    assert the_task(library).status is TaskStatus.FAILED
    assert fresh(library, video).processing_status is FAILED
    ((what, which, reason),) = told(library)
    assert (what, which) == ("video.failed", video.id)
    assert "SIGKILL" in str(reason)
    nothing_is_left(app, storage, library)
    with pytest.raises(StreamNotReadyError, match="failed"):
        library.media.hls_url(video)


@pytest.mark.parametrize("segments", ["ts", "fmp4"])
@pytest.mark.parametrize("limit", ["trap '' XFSZ; ulimit -f 8", "says so"])
def test_a_full_disk_is_waited_for(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path, limit: str, segments: str
) -> None:
    video = library.media.add(CLIP)
    flag = tmp_path / "full"
    words = "No space left on device"
    rest = f'echo "{words}" >&2; exit 1' if limit == "says so" else f'{limit}\nexec "$FFMPEG" "$@"'
    program = a_program(tmp_path, f'[ -e {flag} ] && exec "$FFMPEG" "$@"\ntouch {flag}\n{rest}')

    with with_settings(app, url, storage, ffmpeg=program, hls_segments=segments) as worker:
        worker.run_until_idle()
        worker.run_until_idle()

    (error,) = library.tasks.errors(the_task(library))
    assert (words if limit == "says so" else "is cut off: the disk") in error.error_message
    assert fresh(library, video).processing_status is COMPLETED
    assert told(library) == [("video.completed", video.id, None)]


def test_a_video_that_cannot_be_encoded_fails_at_once(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    video = library.media.add(CLIP)
    program = a_program(tmp_path, 'echo "Invalid data found when processing input" >&2; exit 183')

    run_with(app, url, storage, program)

    task = the_task(library)
    assert (task.status, task.attempt) == (TaskStatus.FAILED, 1), "another attempt would come to the same"
    ((what, _, reason),) = told(library)
    assert what == "video.failed"
    assert "Invalid data found" in str(reason)
    assert fresh(library, video).processing_status is FAILED
    nothing_is_left(app, storage, library)

    library.tasks.retry(task)
    app.run_until_idle()
    assert fresh(library, video).processing_status is COMPLETED


def test_without_a_program_the_message_says_what_to_install(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    library.media.add(CLIP)

    run_with(app, url, storage, tmp_path / "nowhere")

    assert "pip install 'mindia[video]'" in library.tasks.errors(the_task(library))[0].error_message


def test_an_object_store_that_is_away_is_waited_for(
    app: Mindia, url: str, library: Library, storage: LocalStorage
) -> None:
    def away() -> None:
        raise StorageUnavailableError("it is away")

    video = library.media.add(CLIP)
    with mindia.connect(
        url, storage=Meddling(storage, at="segment_001", does=away, times=1), settings=app.settings
    ) as worker:
        worker.run_until_idle()
        worker.run_until_idle()

    assert [each.error_type for each in library.tasks.errors(the_task(library))] == ["StorageUnavailableError"]
    assert fresh(library, video).processing_status is COMPLETED
    assert told(library) == [("video.completed", video.id, None)]
    assert app.maintenance.verify(tenant=library.tenant_id).is_clean


def test_segments_are_stored_while_the_rest_is_still_encoded(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    library.media.add(samples.video(seconds=6))
    finished = tmp_path / "finished"
    program = a_program(tmp_path, f'"$FFMPEG" -readrate 2 "$@"\ncode=$?\ntouch {finished}\nexit $code')
    seen: list[bool] = []
    watched = Meddling(storage, at="segment_000", does=lambda: seen.append(finished.exists()), times=2)

    with mindia.connect(url, storage=watched, settings=attrs.evolve(app.settings, ffmpeg=program)) as worker:
        worker.run_until_idle()

    assert seen == [False, False]
    assert the_task(library).status is TaskStatus.COMPLETED


def processes_named(program: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(program) in command:
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def hanging(tmp_path: Path) -> Path:
    """A program that writes something, starts another one, and never ends."""
    return a_program(tmp_path, f"touch started; sleep 1000 & echo {tmp_path}/ffmpeg; wait")


def test_one_that_is_called_off_ends_the_program_and_leaves_nothing(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    video = library.media.add(CLIP)
    program = hanging(tmp_path)
    with (
        with_settings(app, url, storage, ffmpeg=program) as other,
        running(other.worker(concurrency=1, types=["video_transcode"], shutdown_timeout_s=5)),
    ):
        wait_until(lambda: list(app.settings.spool_folder.glob("*/started")))  # type: ignore[union-attr]
        assert fresh(library, video).processing_status is PROCESSING

        library.tasks.cancel(the_task(library))
        wait_until(lambda: the_task(library).is_finished)

    assert the_task(library).status is TaskStatus.CANCELLED
    assert not processes_named(program)
    app.run_until_idle()
    assert fresh(library, video).processing_status is PENDING
    assert told(library) == []
    nothing_is_left(app, storage, library)


def test_one_that_takes_too_long_ends_the_program_and_fails_once(
    app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path
) -> None:
    video = library.media.add(CLIP)
    program = hanging(tmp_path)
    with with_settings(app, url, storage, ffmpeg=program, transcode_timeout=timedelta(seconds=0.5)) as other:
        for _ in range(5):
            other.run_until_idle()

    assert the_task(library).status is TaskStatus.FAILED
    assert {each.error_type for each in library.tasks.errors(the_task(library))} == {"TaskTimedOut"}
    assert not processes_named(program)
    assert fresh(library, video).processing_status is FAILED
    assert [what for what, *_ in told(library)] == ["video.failed"]
    nothing_is_left(app, storage, library)


def test_progress_is_told(app: Mindia, url: str, library: Library, storage: LocalStorage, tmp_path: Path) -> None:
    library.media.add(CLIP)
    program = a_program(tmp_path, "echo out_time_us=1500000; sleep 1000 & wait")
    with (
        with_settings(app, url, storage, ffmpeg=program) as other,
        running(other.worker(concurrency=1, types=["video_transcode"], shutdown_timeout_s=0.1)),
    ):
        wait_until(lambda: the_task(library).progress is not None and the_task(library).progress > 0.4)  # type: ignore[operator]
        task = the_task(library)
        assert task.progress == pytest.approx(0.495)
        library.tasks.cancel(task)
        wait_until(lambda: the_task(library).is_finished)


def test_the_end_of_a_task_whose_worker_was_killed_is_told_of_once(
    app: Mindia, library: Library, fresh_database_url: str
) -> None:
    video = library.media.add(CLIP)
    with psycopg.connect(fresh_database_url) as connection:  # as it stands when the worker has died for the last time
        connection.execute(
            "update mindia.tasks set status = 'failed', error_message = 'the worker died' where id = %s",
            (the_task(library).id,),
        )
        connection.execute(
            "update mindia.videos set processing_status = 'processing', transcode_task_id = %s", (the_task(library).id,)
        )

    app.run_until_idle()
    app.run_until_idle()

    assert told(library) == [("video.failed", video.id, "the worker died")]
    assert fresh(library, video).processing_status is FAILED
