"""Streams of odd videos, played through by another parser: all their frames are there, and variants fit together."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import av
import numpy as np
import pytest
from av.container import InputContainer
from tests.corpus.odd_streams import ODD_STREAMS, OddStream, ffmpeg, source

from mindia.config import Settings
from mindia.media.encoding import encode
from mindia.media.ffmpeg import find_ffmpeg, working_folder
from mindia.media.hls import MadeVariant, planned
from mindia.media.hls_options import HlsOptions
from mindia.media.tracks import tracks

PROFILES = {"42": "Baseline", "4d": "Main", "64": "High"}
"""By the number that begins how RFC 6381 writes a codec."""

SETTINGS = Settings(hls_ladder=("48p@100k", "96p@300k"), hls_segment_s=1.0, hls_preset="ultrafast")


class Unhindered:
    """Nobody wants it ended."""

    def check(self) -> None:
        pass

    @contextmanager
    def killing(self, kill: Callable[[], object]) -> Iterator[None]:  # noqa: ARG002 - of the port
        yield


@attrs.frozen
class Stream:
    """What was made, and where its files are."""

    made: tuple[MadeVariant, ...]
    files: dict[str, bytes]

    def text(self, name: str) -> str:
        return self.files[name].decode()

    def segments(self, variant: str) -> list[bytes]:
        """Return the segments that a player fetches, each with what it begins with."""
        playlist = self.text(f"{variant}/index.m3u8")
        init = re.search(r'#EXT-X-MAP:URI="([^"]+)"', playlist)
        first = self.files[f"{variant}/{init[1]}"] if init else b""
        names = [line for line in playlist.splitlines() if line and not line.startswith("#")]
        return [first + self.files[f"{variant}/{name}"] for name in names]


@attrs.frozen
class Played:
    """What was seen of a variant."""

    frames: int
    times: list[float]
    keyframes: list[float]
    starts_are_keyframes: bool
    size: tuple[int, int]
    sounds: int


def stream_of(path: Path, settings: Settings = SETTINGS) -> Stream:
    files: dict[str, bytes] = {}

    def store(name: str, file: Path, _: str) -> None:
        assert name not in files
        files[name] = file.read_bytes()

    with path.open("rb") as file, working_folder(path.parent) as folder:
        plan = planned(tracks(file, filename=path.name, settings=settings), HlsOptions.of(settings))
        made = encode(
            plan,
            find_ffmpeg(),
            source=file.fileno(),
            folder=folder,
            settings=settings,
            running=Unhindered(),
            store=store,
            tick=lambda _: None,
        )
        left = [path.name for path in folder.rglob("segment*")]
    assert not left, "what is stored is removed at once"
    assert not folder.exists()
    return Stream(made, files)


def opened(segment: bytes) -> InputContainer:
    return av.open(io.BytesIO(segment), mode="r", format="mpegts" if segment[0] == 0x47 else "mp4")


def played(segments: list[bytes]) -> Played:
    times: list[float] = []
    keyframes: list[float] = []
    starts: list[bool] = []
    sounds = 0
    size = (0, 0)
    for segment in segments:
        with opened(segment) as container:
            first = True
            frames: Iterator[Any] = container.decode()
            for frame in frames:
                if not isinstance(frame, av.VideoFrame):
                    sounds += 1
                    continue
                assert frame.time is not None
                times.append(frame.time)
                size = (frame.width, frame.height)
                if first:
                    starts.append(bool(frame.key_frame))
                    first = False
                if frame.key_frame:
                    keyframes.append(frame.time)
    return Played(len(times), times, keyframes, all(starts), size, sounds)


def check(stream: Stream, expected: OddStream) -> None:
    master = stream.text("master.m3u8")
    variants = [each.variant for each in stream.made]
    assert [(each.width, each.height) for each in variants] == list(expected.sizes)
    seen = [played(stream.segments(each.name)) for each in variants]
    for made, each in zip(stream.made, seen, strict=True):
        assert each.size == (made.variant.width, made.variant.height)
        assert abs(each.frames - expected.frames) <= expected.slack
        assert each.starts_are_keyframes, "or a player could not begin there"
        assert each.times == sorted(set(each.times)), "each frame comes once, and in its turn"
        assert each.times == seen[0].times, "players change from one variant to another"
        assert each.keyframes == seen[0].keyframes
        assert bool(each.sounds) is expected.has_audio
        rate = float(re.search(r"FRAME-RATE=([\d.]+)", master)[1])  # type: ignore[index]
        if expected.slack <= 8:
            assert rate == pytest.approx(expected.rate)
        assert made.duration == pytest.approx(each.frames / rate, abs=1.5 / rate + 0.1)
        assert max(made.durations) <= max(1.0, 1 / rate) + 2 / rate, "segments are as long as they shall be"
        assert f"RESOLUTION={made.variant.width}x{made.variant.height}" in master
        assert (",mp4a.40.2" in master) is expected.has_audio


@pytest.mark.parametrize("name", ODD_STREAMS)
def test_an_odd_video_is_played_through(name: str, tmp_path: Path) -> None:
    expected = ODD_STREAMS[name]
    check(stream_of(expected.make(tmp_path)), expected)


@pytest.mark.parametrize("name", ["rotated", "silent", "uneven"])
def test_an_odd_video_is_played_through_as_fragments_of_mp4(name: str, tmp_path: Path) -> None:
    expected = ODD_STREAMS[name]
    check(stream_of(expected.make(tmp_path), attrs.evolve(SETTINGS, hls_segments="fmp4")), expected)


def test_the_master_playlist_tells_the_codec_that_there_is(tmp_path: Path) -> None:
    stream = stream_of(source(tmp_path))

    told = re.findall(r'CODECS="avc1\.([0-9a-f]{6}),', stream.text("master.m3u8"))
    for codec, made in zip(told, stream.made, strict=True):
        with opened(stream.segments(made.variant.name)[0]) as container:
            next(container.decode(video=0))
            profile = str(container.streams.video[0].codec_context.profile)
        assert PROFILES[codec[:2]] in profile


def test_the_bandwidth_is_that_of_the_largest_segment_sound_included(tmp_path: Path) -> None:
    stream = stream_of(source(tmp_path, seconds=3))

    told = [int(each) for each in re.findall(r"[:,]BANDWIDTH=(\d+)", stream.text("master.m3u8"))]
    for bandwidth, made in zip(told, stream.made, strict=True):
        rates = [
            8 * len(each) / length
            for each, length in zip(stream.segments(made.variant.name), made.durations, strict=True)
        ]
        assert bandwidth == pytest.approx(max(rates), abs=2)


def test_pictures_are_neither_turned_nor_stretched(tmp_path: Path) -> None:
    """A square in the middle of an anamorphic, rotated video is a square, and where it was is up."""
    box = "color=black:s=96x108:r=10:d=1,drawbox=x=36:y=6:w=24:h=48:color=white:t=fill,setsar=2/1"
    plain = tmp_path / "plain.mp4"
    ffmpeg("-f", "lavfi", "-i", box, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", plain)
    ffmpeg("-display_rotation", "180", "-i", plain, "-c", "copy", tmp_path / "turned.mp4")

    stream = stream_of(tmp_path / "turned.mp4")
    with opened(stream.segments("96p")[0]) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="gray")
    rows, columns = (np.flatnonzero((picture > 128).any(axis=axis)) for axis in (1, 0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert abs(int(height) - int(width)) <= 4
    assert rows[0] > picture.shape[0] // 2 - 6, "it was above the middle before it was turned"
