"""A worker that encodes videos with a program of the test's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs
from tests.faults.child import ready
from tests.faults.worker_workload import SETTINGS

import mindia
from mindia import LocalStorage, Mindia


def connect(url: str, objects: str, spool: str, ffmpeg: str | None = None) -> Mindia:
    """Return an application that encodes to tiny sizes."""
    settings = attrs.evolve(
        SETTINGS,
        isolate_parsers=False,
        spool_folder=Path(spool),
        ffmpeg=None if ffmpeg is None else Path(ffmpeg),
        hls_ladder=("48p@100k", "96p@300k"),
        hls_segment_s=1.0,
        hls_preset="ultrafast",
        staging_grace=timedelta(hours=1),
    )
    return mindia.connect(url, storage=LocalStorage(Path(objects)), settings=settings)


def work(url: str, objects: str, spool: str, ffmpeg: str | None) -> None:
    """Run a worker until SIGTERM."""
    with connect(url, objects, spool, ffmpeg) as app:
        ready()
        app.worker(concurrency=1, types=["video_transcode"]).run()
