"""Videos that are hard to make a stream of, tiny, made by ffmpeg."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from mindia.media.ffmpeg import find_ffmpeg

_QUICK = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@attrs.frozen(kw_only=True)
class OddStream:
    """A video, and what is to come of it with rungs of 48 and 96 lines.

    Attributes:
        make: Writes it into a folder, and returns where it is.
        sizes: Of the variants.
        frames: How many each is to have; up to `slack` more or fewer.
        rate: In frames per second.
        has_audio: Whether there is sound.
        slack: See `frames`.
    """

    make: Callable[[Path], Path]
    sizes: Sequence[tuple[int, int]]
    frames: int
    rate: float = 10
    has_audio: bool = True
    slack: int = 1


def ffmpeg(*arguments: str | Path) -> None:
    """Run it."""
    command = [find_ffmpeg().path, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def source(
    folder: Path,
    name: str = "source.mp4",
    *,
    size: str = "192x108",
    rate: str = "10",
    seconds: float = 2.5,
    audio: Sequence[str] = ("-c:a", "aac", "-ac", "2"),
    video: Sequence[str] = _QUICK,
    more: Sequence[str] = (),
) -> Path:
    """Write a moving picture with a tone; none where `audio` is empty."""
    path = folder / name
    tone = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}") if audio else ()
    picture = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}")
    ffmpeg(*picture, *tone, *video, *audio, *more, path)
    return path


def _rotated(folder: Path) -> Path:
    plain = source(folder, "plain.mp4")
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", folder / "rotated.mp4")
    return folder / "rotated.mp4"


def _changing(folder: Path) -> Path:
    first = source(folder, "first.ts", size="192x108", seconds=1.5)
    second = source(folder, "second.ts", size="128x96", seconds=1.5)
    both = folder / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    return both


def _lying(folder: Path) -> Path:
    path = source(folder, "lying.mkv")
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes
    path.write_bytes(content[:at] + struct.pack(">d", 100_000.0) + content[at + 8 :])
    return path


def _broken_off(folder: Path) -> Path:
    path = source(folder, "whole.mp4", seconds=5, more=("-movflags", "+faststart"))
    content = path.read_bytes()
    broken = folder / "broken.mp4"
    broken.write_bytes(content[: len(content) * 6 // 10])
    return broken


def _many_tracks(folder: Path) -> Path:
    plain = source(folder, "plain.mkv")
    maps = [argument for _ in range(39) for argument in ("-map", "0:a")]
    ffmpeg("-i", plain, "-map", "0:v", *maps, "-c", "copy", folder / "many.mkv")
    return folder / "many.mkv"


def _uneven(folder: Path) -> Path:
    select = "select='lt(n,10)+not(mod(n,4))'"
    return source(folder, "uneven.mkv", rate="20", seconds=3, more=("-vf", select, "-fps_mode", "vfr"))


_BOTH = [(86, 48), (170, 96)]

ODD_STREAMS: dict[str, OddStream] = {
    "rotated": OddStream(make=_rotated, sizes=[(48, 86), (96, 170)], frames=25),
    "odd_size": OddStream(
        make=lambda folder: source(
            folder, "odd.mkv", size="131x75", video=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p")
        ),
        sizes=[(84, 48)],
        frames=25,
    ),
    "silent": OddStream(make=lambda folder: source(folder, audio=()), sizes=_BOTH, frames=25, has_audio=False),
    "one_frame_a_second": OddStream(
        make=lambda folder: source(folder, rate="1", seconds=5), sizes=_BOTH, frames=5, rate=1
    ),
    "240_frames_a_second": OddStream(make=lambda folder: source(folder, rate="240"), sizes=_BOTH, frames=150, rate=60),
    "uneven": OddStream(make=_uneven, sizes=_BOTH, frames=20, rate=7.5, slack=60),
    "portrait": OddStream(make=lambda folder: source(folder, size="108x192"), sizes=[(48, 86), (96, 170)], frames=25),
    "mono": OddStream(
        make=lambda folder: source(folder, audio=("-c:a", "aac", "-ac", "1", "-ar", "22050")), sizes=_BOTH, frames=25
    ),
    "40_tracks": OddStream(make=_many_tracks, sizes=_BOTH, frames=25),
    "transport_stream": OddStream(make=lambda folder: source(folder, "source.ts"), sizes=_BOTH, frames=25),
    "webm": OddStream(
        make=lambda folder: source(
            folder,
            "source.webm",
            video=("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-b:v", "200k"),
            audio=("-c:a", "libopus"),
        ),
        sizes=_BOTH,
        frames=25,
    ),
    "matroska": OddStream(
        make=lambda folder: source(folder, "source.mkv", audio=("-c:a", "flac")), sizes=_BOTH, frames=25
    ),
    "avi": OddStream(
        make=lambda folder: source(folder, "source.avi", video=("-c:v", "mpeg4"), audio=("-c:a", "libmp3lame")),
        sizes=_BOTH,
        frames=25,
    ),
    "anamorphic": OddStream(
        make=lambda folder: source(folder, size="96x108", more=("-vf", "setsar=2/1")), sizes=_BOTH, frames=25
    ),
    "changing_size": OddStream(make=_changing, sizes=_BOTH, frames=30, slack=4),
    "no_keyframes": OddStream(
        make=lambda folder: source(folder, more=("-g", "9999", "-sc_threshold", "0", "-bf", "2")),
        sizes=_BOTH,
        frames=25,
    ),
    "lying_duration": OddStream(make=_lying, sizes=_BOTH, frames=25),
    "breaks_off": OddStream(make=_broken_off, sizes=_BOTH, frames=28, slack=8),
    "ten_bits": OddStream(
        make=lambda folder: source(
            folder, video=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le")
        ),
        sizes=_BOTH,
        frames=25,
    ),
    "tiny": OddStream(make=lambda folder: source(folder, size="16x16"), sizes=[(16, 16)], frames=25),
    "one_frame": OddStream(make=lambda folder: source(folder, seconds=0.1), sizes=_BOTH, frames=1),
}
"""By what is odd about each."""
