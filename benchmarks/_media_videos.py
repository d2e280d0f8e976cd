"""What encoding a video costs beside what ffmpeg alone takes, and how much memory the process needs meanwhile.

The bare command is the very one that the task runs: the same ladder, the same file, into a folder on the same disk.
Both are measured by the processor seconds of this process and of all that it has started, ours with an application that
is made for it and closed afterwards, so that its parsers count.

Memory is that of a fresh process with an application: how much more it has had in use at its most than before it began.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from uuid import UUID

import attrs
from benchmarks._report import Figure, Goal
from benchmarks._server import Server

import mindia
from mindia import LocalStorage, Settings
from mindia.media.ffmpeg import find_ffmpeg
from mindia.media.hls import arguments, planned
from mindia.media.hls_options import HlsOptions
from mindia.media.tracks import tracks
from mindia.media.video import decoded_pixels

_CPU_GOAL, _MEMORY_GOAL_MB = 1.05, 100


@attrs.frozen
class _Input:
    """A video: what it is, and how ffmpeg makes it."""

    name: str
    made: Sequence[str]

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name.replace(' ', '_')}.mkv"
        command = [find_ffmpeg().path, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *self.made, str(path)]
        subprocess.run(command, check=True)
        return path


def _moving(size: str, seconds: int, *more: str) -> list[str]:
    return [
        "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30:duration={seconds},noise=alls=6:allf=t",
        "-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}",
        "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", *more,
    ]  # fmt: skip


def videos(running: Server, *, quick: bool) -> list[Figure]:
    """Measure processor time and memory."""
    folder = running.folder / "videos"
    folder.mkdir()
    if quick:
        usual = _Input("640x360 4 s", _moving("640x360", 4))
        inputs = [usual]
    else:
        usual = _Input("1920x1080 20 s", _moving("1920x1080", 20))
        many = [argument for _ in range(38) for argument in ("-map", "1:a")]
        inputs = [
            usual,
            _Input("3840x2160 5 s", _moving("3840x2160", 5)),
            _Input("640x360 300 s", _moving("640x360", 300)),
            _Input("1280x720 of 40 tracks 10 s", [*_moving("1280x720", 10, "-map", "0:v", "-map", "1:a"), *many]),
        ]
    figures = [_processor(running, usual, usual.write(folder), repeats=2 if quick else 5)]
    for each in inputs:
        more_mb = _memory(running, each.write(folder))
        figures.append(
            Figure(name=f"memory more than before, {each.name}, MB", value=more_mb, goal=Goal(_MEMORY_GOAL_MB))
        )
    return figures


def _processor(running: Server, what: _Input, path: Path, *, repeats: int) -> Figure:
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(repeats):
        bare.append(_spent(lambda: _encode_bare(path)))
        video = _added(running, path)
        ours.append(_spent(lambda video=video: _encode(running, video)))  # type: ignore[misc]  # mypy cannot type the default
    ratio = median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    return Figure(
        name=f"processor time of the task, {what.name}, s",
        value=median(ours),
        peer=median(bare),
        ratio=ratio,
        goal=Goal(_CPU_GOAL),
    )


def _spent(work: Callable[[], object]) -> float:
    """Return the processor seconds of this process and of its children that have ended."""

    def now() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    before = now()
    work()
    return now() - before


def _encode_bare(path: Path) -> None:
    settings = Settings()
    with path.open("rb") as file:
        plan = planned(tracks(file, filename=path.name, settings=settings), HlsOptions.of(settings))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for variant in plan.variants:
            Path(folder, variant.name).mkdir()
        command = arguments(
            find_ffmpeg(),
            plan,
            source=str(path),
            folder=folder,
            max_pixels=decoded_pixels(settings),
            max_s=settings.max_video_seconds,
        )
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _application(url: str, objects: str) -> mindia.Mindia:
    return mindia.connect(url, storage=LocalStorage(Path(objects)))


def _added(running: Server, path: Path) -> UUID:
    with _application(running.url, str(running.folder / "objects")) as app:
        library = app.library(app.tenants.create("Bench"))
        video = library.media.add(path)
        for task in library.tasks.list(kind="generate_embedding"):  # which is no part of it
            library.tasks.cancel(task)
        return video.id


def _encode(running: Server, video_id: UUID) -> None:
    with _application(running.url, str(running.folder / "objects")) as app:
        if (report := app.run_until_idle()).completed != 1:
            raise SystemExit(f"{video_id} was not encoded: {report}")


def _memory(running: Server, path: Path) -> float:
    _added(running, path)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._media_videos", running.url, str(running.folder / "objects")],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(json.loads(done.stdout)["more_mb"])


def _most_mb() -> float:
    """Return how much memory this process has had in use at its most."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000_000
    # Not that of `getrusage`, which begins with what the process had that has started this one.
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1_000_000


def _tell_memory(url: str, objects: str) -> None:
    """Encode what is due, and print how much more memory this process has had in use than before."""
    with _application(url, objects) as app:
        app.check()
        before = _most_mb()
        report = app.run_until_idle()
        if report.completed != 1:
            raise SystemExit(f"it was not encoded: {report}")
        print(json.dumps({"more_mb": _most_mb() - before}))


if __name__ == "__main__":
    _tell_memory(*sys.argv[1:])
