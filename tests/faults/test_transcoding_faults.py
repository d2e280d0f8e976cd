"""A worker that is killed while it encodes a video leaves nothing behind that stays."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

from tests.faults.harness import Harness, Server, wait_until
from tests.faults.transcoding_workload import connect, work

from mindia import LocalStorage, TaskStatus, Video
from mindia.media.ffmpeg import find_ffmpeg
from mindia.testing import samples
from mindia.testing.storage import listed


def test_a_worker_killed_in_the_middle_leaves_nothing_and_another_one_does_it(
    harness: Harness, server: Server, tmp_path: Path
) -> None:
    url = server.new_database()
    objects, spool = tmp_path / "objects", tmp_path / "spool"
    spool.mkdir()
    slow = tmp_path / "slow"
    slow.write_text(
        f'#!/bin/sh\nif [ "$1" = -encoders ]; then exec {find_ffmpeg().path} -encoders; fi\n'
        f'exec {find_ffmpeg().path} -readrate 1 "$@"\n'
    )
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    with connect(url, str(objects), str(spool)) as app:
        app.migrate()
        tenant = app.tenants.create("Acme")
        library = app.library(tenant)
        video = library.media.add(samples.video(seconds=20), filename="clip.mp4")

        def derived() -> set[str]:
            return {key for key in listed(LocalStorage(objects), tenant.s3_bucket) if key.startswith("derived/")}

        killed = harness.start(work, url, str(objects), str(spool), str(slow))
        wait_until(derived, what="the first segment is stored")
        killed.kill()
        wait_until(lambda: not list(spool.iterdir()), what="the program is ended and its folder removed")
        left = derived()
        assert left

        other = harness.start(work, url, str(objects), str(spool), None)
        (task,) = library.tasks.list(kind="video_transcode")
        wait_until(lambda: library.tasks.get(task.id).status is TaskStatus.COMPLETED, what="another worker does it")
        other.terminate()
        other.wait()

        done = library.media.get(video.id, type=Video)
        assert done.hls_master_key is not None
        assert [each.error_type for each in library.tasks.errors(task)] == ["WorkerDied"]
        app.maintenance.sweep_staged(older_than=timedelta(0))
        assert not derived() & left, "what the killed one has stored is swept"
        assert done.hls_master_key in derived()
        assert app.maintenance.verify(tenant=tenant, hash_fraction=1).is_clean
        assert not list(spool.iterdir())
