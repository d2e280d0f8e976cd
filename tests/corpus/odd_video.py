"""Good videos that are out of the ordinary."""

from __future__ import annotations

import struct
from typing import Any

from tests.corpus.containers import UNITY, UNKNOWN, matroska, mp4
from tests.corpus.odd import OddFile, ffmpeg, picture, size, tone

from mindia.testing import samples

_X264 = "-c:v libx264 -threads 1"
_GREEN = "-pix_fmt yuv420p"


def _mp4(*arguments: str, pixels: tuple[int, int] = (64, 48), seconds: float = 0.5, rate: str = "10") -> bytes:
    return ffmpeg("mp4", picture(*pixels, seconds=seconds, rate=rate), f"{_X264} {_GREEN}", *arguments)


def _turned(content: bytes, degrees: int) -> bytes:
    """Write a turn into the header of the track (ISO/IEC 14496-12, 8.3.2): its matrix, in 16.16."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    at = content.index(UNITY, content.index(b"tkhd"))
    return content[:at] + matrix + content[at + len(UNITY) :]


def _uneven() -> bytes:
    """Pictures that are shown for 1, 2, 3 … units of time: 10 of them for 5.5 seconds."""
    return ffmpeg(
        "mp4", picture(64, 48, seconds=1.0), f"{_X264} {_GREEN} -vf setpts=N*(N+1)/2/10/TB -fps_mode vfr -bf 0"
    )


def _many_streams() -> bytes:
    """A film with two languages, subtitles and chapters."""
    subtitles = b"1\n00:00:00,000 --> 00:00:00,400\nHello\n"
    chapters = b";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=250\ntitle=One\n"
    return ffmpeg(
        "mkv", picture(64, 48), tone(), tone(layout="5.1"), "-i {subtitles} -i {chapters}",
        f"-map 0 -map 1 -map 2 -map 3 -map_metadata 4 {_X264} {_GREEN} -c:a ac3 -c:s srt",
        subtitles=subtitles, chapters=chapters,
    )  # fmt: skip


def _file(
    filename: str,
    content_type: str,
    *arguments: str,
    facts: dict[str, Any],
    pixels: tuple[int, int] = (64, 48),
    seconds: float = 0.5,
    rate: str = "10",
    within: float = 0.05,
) -> OddFile:
    suffix = filename.rpartition(".")[2]
    source = picture(*pixels, seconds=seconds, rate=rate)
    return OddFile(filename, content_type, lambda: ffmpeg(suffix, source, *arguments), facts, within)


MP4, MOV, AVI, WEBM, MKV, TS = (
    "video/mp4", "video/quicktime", "video/x-msvideo", "video/webm", "video/x-matroska", "video/mp2t",
)  # fmt: skip
_HALF = size(64, 48, duration=0.5)

VIDEOS: dict[str, OddFile] = {
    "WEBM of odd sizes": _file(
        "x.webm", WEBM, f"-c:v libvpx {_GREEN}", pixels=(127, 97), facts=size(127, 97, duration=0.5)
    ),
    "WEBM of odd sizes, VP9": _file(
        "x.webm", WEBM, f"-c:v libvpx-vp9 {_GREEN}", pixels=(127, 97), facts=size(127, 97, duration=0.5)
    ),
    "MP4 of odd sizes": _file(
        "x.mp4", MP4, f"{_X264} -pix_fmt yuv444p", pixels=(127, 97), facts=size(127, 97, duration=0.5)
    ),
    "MP4 whose size is no multiple of 16": _file(
        "x.mp4", MP4, f"{_X264} {_GREEN}", pixels=(130, 98), facts=size(130, 98, duration=0.5)
    ),
    "MKV of two by two pixels": _file("x.mkv", MKV, "-c:v ffv1", pixels=(2, 2), facts=size(2, 2, duration=0.5)),
    "MP4 as large as that of a cinema": _file(
        "x.mp4",
        MP4,
        f"{_X264} {_GREEN} -preset ultrafast",
        pixels=(4_096, 2_160),
        seconds=0.1,
        facts=size(4_096, 2_160, duration=0.1),
    ),
    "MP4 turned by a quarter": OddFile("x.mp4", MP4, lambda: _turned(_mp4(), 90), size(48, 64, duration=0.5), 0.05),
    "MP4 turned by a half": OddFile("x.mp4", MP4, lambda: _turned(_mp4(), 180), _HALF, 0.05),
    "MOV turned by three quarters": OddFile(
        "x.mov",
        MOV,
        lambda: _turned(ffmpeg("mov", picture(64, 48), f"{_X264} {_GREEN}"), 270),
        size(48, 64, duration=0.5),
        0.05,
    ),
    "MKV turned by a quarter": OddFile(
        "x.mkv",
        MKV,
        lambda: ffmpeg("mkv", "-display_rotation 90 -i {upright} -c copy", upright=_mp4()),
        size(48, 64, duration=0.5),
        0.05,
    ),
    "MP4 of wide pixels": _file(
        "x.mp4", MP4, f"{_X264} {_GREEN} -vf setsar=4/3", pixels=(96, 72), facts=size(128, 72, duration=0.5)
    ),
    "MKV of narrow pixels": _file(
        "x.mkv", MKV, f"{_X264} {_GREEN} -vf setsar=8/9", pixels=(72, 48), facts=size(64, 48, duration=0.5)
    ),
    "MP4 of wide pixels, turned by a quarter": OddFile(
        "x.mp4",
        MP4,
        lambda: _turned(_mp4("-vf setsar=4/3", pixels=(96, 72)), 90),
        size(72, 128, duration=0.5),
        0.05,
    ),
    "MP4 of 10 bits": _file("x.mp4", MP4, f"{_X264} -pix_fmt yuv420p10le", facts=_HALF),
    "WEBM of 10 bits": _file("x.webm", WEBM, "-c:v libvpx-vp9 -pix_fmt yuv420p10le -profile:v 2", facts=_HALF),
    "MP4 of HEVC": _file("x.mp4", MP4, f"-c:v libx265 -x265-params log-level=none:pools=1 {_GREEN}", facts=_HALF),
    "MOV of HEVC as Apple calls it": _file(
        "x.mov", MOV, f"-c:v libx265 -x265-params log-level=none:pools=1 -tag:v hvc1 {_GREEN}", facts=_HALF
    ),
    "MP4 of AV1": _file(
        "x.mp4", MP4, f"-c:v libsvtav1 -preset 12 {_GREEN}", pixels=(128, 96), facts=size(128, 96, duration=0.5)
    ),
    "WEBM of AV1": _file(
        "x.webm", WEBM, f"-c:v libsvtav1 -preset 12 {_GREEN}", pixels=(128, 96), facts=size(128, 96, duration=0.5)
    ),
    "MP4 of MPEG-4": _file("x.mp4", MP4, "-c:v mpeg4", facts=_HALF),
    "MOV of ProRes": _file("x.mov", MOV, "-c:v prores_ks -profile:v 0", facts=_HALF),
    "MOV of single pictures": _file("x.mov", MOV, "-c:v mjpeg -pix_fmt yuvj420p", facts=_HALF),
    "MOV without compression": _file("x.mov", MOV, "-c:v rawvideo -pix_fmt uyvy422", facts=_HALF),
    "MOV with a time code": _file("x.mov", MOV, f"{_X264} {_GREEN} -timecode 10:00:00:00", facts=_HALF),
    "AVI of MPEG-4": _file("x.avi", AVI, "-c:v mpeg4 -bf 2", facts=_HALF, within=0.21),
    "AVI of single pictures": _file("x.avi", AVI, "-c:v mjpeg -pix_fmt yuvj420p", facts=_HALF),
    "MKV of MPEG-2": _file("x.mkv", MKV, "-c:v mpeg2video -r 25", rate="25", facts=_HALF),
    "MKV of Theora": _file("x.mkv", MKV, f"-c:v libtheora {_GREEN}", facts=_HALF),
    "TS of MPEG-2": _file("x.ts", TS, "-c:v mpeg2video -r 25", rate="25", facts=_HALF, within=0.13),
    "TS of HEVC": _file(
        "x.ts", TS, f"-c:v libx265 -x265-params log-level=none:pools=1 {_GREEN}", facts=_HALF, within=0.25
    ),
    "TS as of Blu-ray": _file("x.m2ts", TS, f"{_X264} {_GREEN} -bf 0", facts=_HALF, within=0.13),
    "TS that begins after ten hours": _file(
        "x.ts", TS, f"{_X264} {_GREEN} -bf 0 -output_ts_offset 36000", facts=_HALF, within=0.13
    ),
    "MP4 of grey": _file("x.mp4", MP4, f"{_X264} -pix_fmt gray", facts=_HALF),
    "MP4 in which each picture is shown for longer": OddFile("x.mp4", MP4, _uneven, size(64, 48, duration=5.0), 0.6),
    "MP4 of 29.97 pictures a second": _file(
        "x.mp4", MP4, f"{_X264} {_GREEN}", rate="30000/1001", seconds=1.001, facts=size(64, 48, duration=1.001)
    ),
    "MP4 of 240 pictures a second": _file("x.mp4", MP4, f"{_X264} {_GREEN}", rate="240", facts=_HALF),
    "MP4 of a picture a second": _file(
        "x.mp4", MP4, f"{_X264} {_GREEN}", rate="1", seconds=3.0, facts=size(64, 48, duration=3.0)
    ),
    "MP4 of a picture": _file("x.mp4", MP4, f"{_X264} {_GREEN}", seconds=0.1, facts=size(64, 48, duration=0.1)),
    "WEBM of a picture": _file("x.webm", WEBM, f"-c:v libvpx {_GREEN}", seconds=0.1, facts=size(64, 48, duration=0.1)),
    "MP4 without sound": OddFile(
        "x.mp4", MP4, lambda: samples.video(audio_codec=None, seconds=0.5), size(128, 96, duration=0.5), 0.05
    ),
    "MP4 with sound of eight channels": _file(
        "x.mp4", MP4, tone(layout="7.1"), f"{_X264} {_GREEN} -c:a aac", facts=_HALF
    ),
    "MP4 whose sound is longer": _file(
        "x.mp4", MP4, tone(seconds=2.0), f"{_X264} {_GREEN} -c:a aac", facts=size(64, 48, duration=2.0)
    ),
    "MKV of two languages, subtitles and chapters": OddFile("x.mkv", MKV, _many_streams, _HALF, 0.05),
    "MP4 whose index is at its end": OddFile("x.mp4", MP4, lambda: _mp4(), _HALF, 0.05),
    "MP4 whose index is in front": OddFile("x.mp4", MP4, lambda: _mp4("-movflags +faststart"), _HALF, 0.05),
    "MP4 of fragments": OddFile("x.mp4", MP4, lambda: _mp4("-movflags +frag_keyframe+empty_moov -g 2"), _HALF, 0.11),
    "MP4 of fragments with an index": OddFile(
        "x.mp4", MP4, lambda: _mp4("-movflags +dash+frag_keyframe+global_sidx -g 2"), _HALF, 0.11
    ),
    "MP4 that begins after ten seconds": OddFile("x.mp4", MP4, lambda: _mp4("-output_ts_offset 10"), _HALF, 0.11),
    "MP4 that begins in the middle": OddFile(
        "x.mp4",
        MP4,
        lambda: ffmpeg("mp4", "-ss 1.0 -i {whole} -c copy", whole=_mp4("-g 10", seconds=2.0)),
        size(64, 48, duration=1.0),
        0.11,
    ),
    "M4V": OddFile("x.m4v", MP4, lambda: ffmpeg("m4v", "-i {whole} -c copy -f ipod", whole=_mp4()), _HALF, 0.05),
    "MOV of before there were brands": OddFile(
        "x.mov", MOV, lambda: mp4([samples.image()] * 5).replace(b"ftyp", b"wide", 1), _HALF
    ),
    "MKV that is live": OddFile(
        "x.mkv", MKV, lambda: matroska([samples.image()] * 5, size=UNKNOWN, duration=0.0), _HALF, 0.11
    ),
    "WEBM that is live": _file("x.webm", WEBM, f"-c:v libvpx {_GREEN} -live 1", facts=_HALF, within=0.11),
    "MKV with its index in front": _file("x.mkv", MKV, f"{_X264} {_GREEN} -cues_to_front 1", facts=_HALF),
    "MP4 called MOV": OddFile("x.mov", MP4, lambda: _mp4(), _HALF, 0.05),
    "MOV called MP4": OddFile("x.mp4", MOV, lambda: ffmpeg("mov", picture(64, 48), f"{_X264} {_GREEN}"), _HALF, 0.05),
    "WEBM called MKV": OddFile(
        "x.mkv", WEBM, lambda: ffmpeg("webm", picture(64, 48), f"-c:v libvpx {_GREEN}"), _HALF, 0.05
    ),
}
