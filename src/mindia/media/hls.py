"""HTTP Live Streaming (RFC 8216): which variants a video gets, how they are encoded, and the playlists. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import attrs

from mindia.errors import CorruptMediaError
from mindia.media.hls_options import MAX_SIDE, HlsOptions, Rung, SegmentType

if TYPE_CHECKING:
    from mindia.media.ffmpeg import Ffmpeg
    from mindia.media.tracks import VideoTracks

MASTER = "master.m3u8"
INDEX = "index.m3u8"
INIT_FILES = "init*.mp4"
"""What segments of MP4 begin with: ffmpeg numbers it by the variants where there are several."""
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"

AUDIO_BITRATE = 128_000
_SAMPLE_RATE = 48_000
_AUDIO_CODEC = "mp4a.40.2"
_MIN_BITRATE = 100_000
_SLOWEST = Fraction(1)
"""Frames a second: with fewer a segment would be longer than it may be."""
_RATE_ROOM, _BUFFER_S = 1.07, 1.5
_SEGMENT = re.compile(r"segment_(\d+)\.(ts|m4s)")


@attrs.frozen(kw_only=True)
class Variant:
    """One of the forms that a video is encoded to.

    Attributes:
        name: The folder of its files: `720p`.
        width: In pixels, even.
        height: In pixels, even.
        bitrate: Of its pictures, in bits per second.
    """

    name: str
    width: int
    height: int
    bitrate: int


@attrs.frozen(kw_only=True)
class HlsPlan:
    """What is made of a video.

    Attributes:
        tracks: Of the video.
        variants: The lowest first.
        frame_rate: Of all of them.
        options: How they are encoded.
    """

    tracks: VideoTracks
    variants: tuple[Variant, ...]
    frame_rate: Fraction
    options: HlsOptions


def planned(tracks: VideoTracks, options: HlsOptions) -> HlsPlan:
    """Choose the variants of a video: each rung that it has the lines for; below the lowest, one of its own size."""
    return HlsPlan(
        tracks=tracks,
        variants=_variants(tracks.width, tracks.height, options.ladder),
        frame_rate=_frame_rate(tracks.frame_rate, options.max_frame_rate),
        options=options,
    )


def _variants(width: int, height: int, ladder: Sequence[Rung]) -> tuple[Variant, ...]:
    fit = min(1.0, MAX_SIDE / max(width, height))
    short = min(width, height) * fit
    rungs = [rung for rung in ladder if rung.height <= short]
    if not rungs:
        lowest = ladder[0]
        usual = lowest.height * lowest.height * 16 / 9
        bitrate = round(lowest.bitrate * min(1.0, width * height * fit * fit / usual))
        rungs = [Rung(height=max(2, math.floor(short)), bitrate=max(_MIN_BITRATE, bitrate))]
    made = []
    for rung in rungs:
        # By the exact sides: what is rounded before would be stretched.
        scale = rung.height / min(width, height)
        made.append(
            Variant(
                name=f"{rung.height}p",
                width=_even(width * scale),
                height=_even(height * scale),
                bitrate=rung.bitrate,
            )
        )
    return tuple(made)


def _even(pixels: float) -> int:
    # One that is a few pixels wide could otherwise be longer than it may be.
    return min(MAX_SIDE, max(2, 2 * round(pixels / 2 - 1e-9)))


def _frame_rate(rate: Fraction, limit: float) -> Fraction:
    return max(_SLOWEST, rate / math.ceil(rate / Fraction(limit).limit_denominator(1001)))


def arguments(ffmpeg: Ffmpeg, plan: HlsPlan, *, source: str, folder: str, max_pixels: int, max_s: float) -> list[str]:
    """Return the command that encodes all variants at once, the file being decoded a single time.

    Args:
        ffmpeg: The executable.
        plan: What is to be made.
        source: The path of the video.
        folder: Where the folders of the variants are made.
        max_pixels: What a frame of the video may have.
        max_s: Where it is cut off, in seconds.
    """
    options, tracks = plan.options, plan.tracks
    several = len(plan.variants)
    rate = f"{plan.frame_rate.numerator}/{plan.frame_rate.denominator}"
    # Where one fails to be at its place in time, the frames before and after it stand for it: so all variants have the
    # same frames, and begin anew at the same ones.
    graph = [f"[0:{tracks.video}]fps={rate},split={several}" + "".join(f"[s{n}]" for n in range(several))]
    command = [
        ffmpeg.path, "-hide_banner", "-nostdin", "-loglevel", "error", "-y",
        "-progress", "pipe:1", "-stats_period", "0.5",
        "-protocol_whitelist", "file", "-max_pixels", str(max_pixels), "-f", tracks.parser,
        "-t", f"{max_s:g}", "-i", source,
    ]  # fmt: skip
    maps: list[str] = []
    streams: list[str] = []
    for number, variant in enumerate(plan.variants):
        graph.append(f"[s{number}]scale={variant.width}:{variant.height},setsar=1,format=yuv420p[v{number}]")
        maps += ["-map", f"[v{number}]"]
        maps += [f"-b:v:{number}", str(variant.bitrate)]
        maps += [f"-maxrate:v:{number}", str(round(variant.bitrate * _RATE_ROOM))]
        maps += [f"-bufsize:v:{number}", str(round(variant.bitrate * _BUFFER_S))]
        sound = ""
        if tracks.audio is not None:
            maps += ["-map", f"0:{tracks.audio}"]
            sound = f"a:{number},"
        streams.append(f"v:{number},{sound}name:{variant.name}")
    command += ["-filter_complex", ";".join(graph), *maps]
    command += ["-map_metadata", "-1", "-map_chapters", "-1", "-c:v", ffmpeg.encoder]
    if ffmpeg.encoder == "libx264":
        command += ["-preset", options.preset, "-profile:v", "high"]
    group = math.ceil(plan.frame_rate * math.ceil(options.segment_s)) + 1
    command += [
        "-g", str(group), "-sc_threshold", "0",
        "-force_key_frames", f"expr:gte(t,n_forced*{options.segment_s:g})",
    ]  # fmt: skip
    if tracks.audio is not None:
        command += [
            "-c:a", "aac", "-b:a", str(AUDIO_BITRATE), "-ac", "2", "-ar", str(_SAMPLE_RATE),
            "-af", "aresample=async=1:first_pts=0",
        ]  # fmt: skip
    command += ["-f", "hls", "-hls_time", f"{options.segment_s:g}", "-hls_playlist_type", "vod"]
    command += ["-hls_flags", "independent_segments"]
    command += ["-hls_segment_type", "mpegts" if options.segment_type is SegmentType.TS else "fmp4"]
    if options.segment_type is SegmentType.FMP4:
        command += ["-hls_fmp4_init_filename", "init.mp4"]
    return [
        *command,
        "-hls_segment_filename", f"{folder}/%v/segment_%03d.{options.segment_type.extension}",
        "-var_stream_map", " ".join(streams),
        f"{folder}/%v/{INDEX}",
    ]  # fmt: skip


def segment_number(name: str) -> int | None:
    """Return the number in the filename of a segment, or None where it is none."""
    match = _SEGMENT.fullmatch(name)
    return None if match is None else int(match[1])


@attrs.frozen(kw_only=True)
class MadeVariant:
    """A variant that was encoded.

    Attributes:
        variant: What was to be made.
        codec: Of its pictures, as RFC 6381 writes it.
        durations: Of its segments, in seconds.
        sizes: Of its segments, in bytes.
    """

    variant: Variant
    codec: str
    durations: tuple[float, ...]
    sizes: tuple[int, ...]

    @property
    def duration(self) -> float:
        """In seconds."""
        return sum(self.durations)

    @property
    def peak_bitrate(self) -> int:
        """Of the segment with the most bits for its time, sound and container included."""
        # The last one may be of a frame: what it takes to be fetched says nothing about the rest.
        longest = max(self.durations)
        return math.ceil(
            max(8 * size / max(each, longest / 2) for each, size in zip(self.durations, self.sizes, strict=True))
        )

    @property
    def average_bitrate(self) -> int:
        """Of all of it."""
        return math.ceil(8 * sum(self.sizes) / max(self.duration, 1e-3))


def durations_in(playlist: str) -> list[float]:
    """Return the durations of the segments of a playlist."""
    return [float(each) for each in re.findall(r"^#EXTINF:([\d.]+)", playlist, flags=re.MULTILINE)]


def codec_in(head: bytes) -> str:
    """Return how pictures are coded, from the beginning of a segment in a transport stream, or of an init segment.

    Raises:
        CorruptMediaError: It does not tell.
    """
    # Profile, constraints and level: of the configuration record (ISO/IEC 14496-15, 5.3.3), or of the sequence
    # parameter set (ISO/IEC 14496-10, 7.3.2.1).
    match = re.search(rb"avcC\x01(...)", head, flags=re.DOTALL) or re.search(
        rb"\x00\x00\x01[\x27\x47\x67](...)", head, flags=re.DOTALL
    )
    if match is None:
        raise CorruptMediaError("the first segment has no pictures")
    return f"avc1.{match[1].hex()}"


def master_playlist(made: Sequence[MadeVariant], plan: HlsPlan) -> str:
    """Return the playlist that names the variants."""
    version = 3 if plan.options.segment_type is SegmentType.TS else 7
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{version}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for each in made:
        codecs = each.codec if plan.tracks.audio is None else f"{each.codec},{_AUDIO_CODEC}"
        lines += [
            f"#EXT-X-STREAM-INF:BANDWIDTH={each.peak_bitrate},AVERAGE-BANDWIDTH={each.average_bitrate},"
            f'CODECS="{codecs}",RESOLUTION={each.variant.width}x{each.variant.height},'
            f"FRAME-RATE={float(plan.frame_rate):.3f}",
            f"{each.variant.name}/{INDEX}",
        ]
    return "\n".join([*lines, ""])


def rewritten(playlist: str, url_of: Callable[[str], str | None]) -> str:
    """Return a playlist with other addresses.

    Args:
        playlist: The text.
        url_of: Is given each address, and returns what stands in its place, or None to leave it.
    """

    def tag(match: re.Match[str]) -> str:
        return f'URI="{url_of(match[1]) or match[1]}"'

    def lines() -> Iterable[str]:
        for line in playlist.split("\n"):
            if line.startswith("#"):
                yield re.sub(r'URI="([^"]*)"', tag, line)
            else:
                yield (url_of(line) or line) if line.strip() else line

    return "\n".join(lines())
