"""Encodes a video for HTTP Live Streaming, and hands on what is ready while the rest is still being encoded."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mindia.config import Settings
from mindia.errors import TranscodingError
from mindia.media.ffmpeg import Ffmpeg, Running, run_ffmpeg
from mindia.media.hls import (
    INDEX,
    INIT_FILES,
    MASTER,
    PLAYLIST_TYPE,
    HlsPlan,
    MadeVariant,
    Variant,
    arguments,
    codec_in,
    durations_in,
    master_playlist,
    segment_number,
)
from mindia.media.hls_options import SegmentType
from mindia.media.video import decoded_pixels

_STORED_AT_ONCE = 4
_HEAD_BYTES = 1 << 16
_PACKET_BYTES = 188
"""Of a transport stream (ISO/IEC 13818-1, 2.4.3.2)."""
_LEAST_FREE_BYTES = 1 << 20
"""What is written on a disk with less left may be cut off where that cannot be seen."""
_LAST_LINE = "#EXT-X-ENDLIST"

Store = Callable[[str, Path, str], object]
"""Is given the name of a file below the prefix of the stream, where it is, and its MIME type. In threads of its own."""


def encode(
    plan: HlsPlan,
    ffmpeg: Ffmpeg,
    *,
    source: int,
    folder: Path,
    settings: Settings,
    running: Running,
    store: Store,
    tick: Callable[[float], object],
) -> tuple[MadeVariant, ...]:
    """Encode all variants of a video, and store their files; each is removed here as soon as it is stored.

    Args:
        plan: What is to be made.
        ffmpeg: The executable.
        source: The descriptor of the video.
        folder: An empty one, to work in.
        settings: Limits.
        running: Who may want it ended.
        store: Stores a file; the playlists come last, and the master playlist last of all.
        tick: Is called about every half second with how many seconds are encoded.

    Raises:
        TranscodingError: It cannot be encoded; `is_final` tells whether the video is at fault.
        ProcessDiedError: The program was killed.
    """
    for variant in plan.variants:
        (folder / variant.name).mkdir()
    # The shell that starts the program has the first ten for itself.
    handed = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 10)
    try:
        return _encoded(plan, ffmpeg, handed, folder, settings, running, store, tick)
    finally:
        os.close(handed)


def _encoded(
    plan: HlsPlan,
    ffmpeg: Ffmpeg,
    source: int,
    folder: Path,
    settings: Settings,
    running: Running,
    store: Store,
    tick: Callable[[float], object],
) -> tuple[MadeVariant, ...]:
    with ThreadPoolExecutor(_STORED_AT_ONCE, thread_name_prefix="mindia-segments") as pool:
        handing_on = _HandingOn(plan, folder, store, pool)

        def look(at_s: float) -> None:
            handing_on.look(is_done=False)
            tick(at_s)

        try:
            run_ffmpeg(
                arguments(
                    ffmpeg,
                    plan,
                    # Without an index a file is read from its beginning on; opened anew, it has its own position.
                    source=f"/dev/fd/{source}",
                    folder=str(folder),
                    max_pixels=decoded_pixels(settings),
                    max_s=settings.max_video_seconds,
                ),
                folder=folder,
                running=running,
                tick=look,
                descriptors=[source],
            )
            handing_on.look(is_done=True)
            while not handing_on.settle(timeout_s=0.5):
                running.check()
                tick(0.0)
        finally:
            handing_on.give_up()
        made = tuple(handing_on.made(variant) for variant in plan.variants)
        for variant in plan.variants:
            store(f"{variant.name}/{INDEX}", folder / variant.name / INDEX, PLAYLIST_TYPE)
        master = folder / MASTER
        master.write_text(master_playlist(made, plan), "utf-8")
        store(MASTER, master, PLAYLIST_TYPE)
    return made


class _HandingOn:
    """Stores the segments of all variants as they come, several at once."""

    def __init__(self, plan: HlsPlan, folder: Path, store: Store, pool: ThreadPoolExecutor) -> None:
        self._plan = plan
        self._folder = folder
        self._store = store
        self._pool = pool
        self._pending: list[Future[None]] = []
        self._sizes: dict[str, dict[int, int]] = {variant.name: {} for variant in plan.variants}
        self._codecs: dict[str, str] = {}

    def look(self, *, is_done: bool) -> None:
        """Hand on what is complete: all but the latest segment of each variant, and that too once all is done.

        Raises:
            Exception: What storing one has failed with.
        """
        for variant in self._plan.variants:
            self._look_at(variant, is_done=is_done)
        self.settle(timeout_s=0.0)

    def _look_at(self, variant: Variant, *, is_done: bool) -> None:
        place = self._folder / variant.name
        known = self._sizes[variant.name]
        numbers = {
            number: path
            for path in place.iterdir()
            if (number := segment_number(path.name)) is not None and number not in known
        }
        latest = max(numbers, default=-1)
        for number, path in sorted(numbers.items()):
            if number == latest and not is_done:
                continue
            if number == 0 and self._plan.options.segment_type is SegmentType.TS:
                self._codecs[variant.name] = _codec_of(path)
            known[number] = _whole(path, self._plan.options.segment_type)
            self._hand_on(variant, path, self._plan.options.segment_type.content_type)
        if shutil.disk_usage(self._folder).free < _LEAST_FREE_BYTES:
            raise _cut_off(self._folder)
        if is_done:
            for init in place.glob(INIT_FILES):
                self._codecs[variant.name] = _codec_of(init)
                self._hand_on(variant, init, "video/mp4")

    def _hand_on(self, variant: Variant, path: Path, content_type: str) -> None:
        self._pending.append(self._pool.submit(self._put, f"{variant.name}/{path.name}", path, content_type))

    def _put(self, name: str, path: Path, content_type: str) -> None:
        self._store(name, path, content_type)
        path.unlink()

    def settle(self, *, timeout_s: float) -> bool:
        """Wait for what is being stored, at most so long; True where all is.

        Raises:
            Exception: What storing one has failed with.
        """
        left: list[Future[None]] = []
        for future in self._pending:
            if future.done() or not left:
                try:
                    future.result(timeout_s if not left else 0.0)
                except TimeoutError:
                    if future.done():
                        raise  # its own, not that of waiting
                    left.append(future)
            else:
                left.append(future)
        self._pending = left
        return not left

    def give_up(self) -> None:
        """Begin with nothing more."""
        for future in self._pending:
            future.cancel()

    def made(self, variant: Variant) -> MadeVariant:
        """Return what has come of a variant."""
        sizes = self._sizes[variant.name]
        path = self._folder / variant.name / INDEX
        if not path.exists() or not sizes:
            raise TranscodingError("the video has no pictures that can be encoded", is_final=True)
        playlist = path.read_text("utf-8")
        durations = durations_in(playlist)
        if len(durations) != len(sizes) or _LAST_LINE not in playlist or variant.name not in self._codecs:
            raise _cut_off(path)
        return MadeVariant(
            variant=variant,
            codec=self._codecs[variant.name],
            durations=tuple(durations),
            sizes=tuple(sizes[number] for number in sorted(sizes)),
        )


def _whole(path: Path, kind: SegmentType) -> int:
    """Return the size of a segment, unless it is cut off: of a disk that is full, ffmpeg does not say a word."""
    size = path.stat().st_size
    if kind is SegmentType.TS:
        is_whole = size > 0 and size % _PACKET_BYTES == 0
    else:
        is_whole = size > 0 and _end_of_boxes(path) == size
    if not is_whole:
        raise _cut_off(path)
    return size


def _end_of_boxes(path: Path) -> int:
    """Return where the boxes of a file of MP4 end, as these say (ISO/IEC 14496-12, 4.2)."""
    end = 0
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            size = int.from_bytes(header[:4])
            if size == 1:
                size = int.from_bytes(header[8:16])
            if size < 8:
                return -1
            end += size
            file.seek(end)
    return end


def _cut_off(path: Path) -> TranscodingError:
    return TranscodingError(
        f"{path.name} is cut off: the disk of the temporary folder is full (Settings.spool_folder), or files may not "
        "be as large",
        is_final=False,
    )


def _codec_of(path: Path) -> str:
    with path.open("rb") as file:
        return codec_in(file.read(_HEAD_BYTES))
