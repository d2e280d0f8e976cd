"""Storyboards: each tile shows the frame of its time, and the cues end with the video."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import av
import pytest
from PIL import Image
from tests.corpus.odd import ffmpeg
from tests.corpus.odd_video import VIDEOS

from mindia import Derivative, Settings, Storyboard
from mindia.domain.operations import Tiles
from mindia.domain.transformations import Transformation
from mindia.errors import CorruptMediaError, InvalidError, TooLargeError
from mindia.media.deriving import derive
from mindia.testing import samples

RATE = 20
NO_TIME = Settings(parser_timeout=timedelta(microseconds=1))


def board_of(content: bytes, *, settings: Settings | None = None, **asked: Any) -> tuple[Storyboard, Image.Image]:
    """Return a storyboard with its sheet."""
    wanted = Transformation(operations=[Tiles(**{"side": 32, **asked})], format="png").settled()
    made = derive(
        io.BytesIO(content), filename="a.mp4", transformation=wanted, watermarks=[], settings=settings or Settings()
    )
    sheet = Derivative(
        id=UUID(int=1), tenant_id=UUID(int=2), source_id=UUID(int=3),
        operations=str(wanted.ending(made.end, is_exact=made.is_exact)), s3_key="x",
        content_type="image/png", file_size=1, width=made.width, height=made.height, created_at=datetime.now(UTC),
    )  # fmt: skip
    picture = Image.open(io.BytesIO(made.content))
    assert picture.size == (made.width, made.height)
    return Storyboard.of(sheet), picture.convert("RGB")


def seconds_shown(board: Storyboard, sheet: Image.Image) -> list[float]:
    """Return which second each tile shows, by the red of the frame: it grows by 20 with each frame, modulo 256."""
    shown = []
    for tile in board.tiles:
        pixel = sheet.getpixel((tile.x + tile.width // 2, tile.y + tile.height // 2))
        assert isinstance(pixel, tuple)
        number = round(tile.start_s * RATE)
        off = (pixel[0] - number * 20 + 128) % 256 - 128
        shown.append(tile.start_s if abs(off) < 10 else -1)
    return shown


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx")],
    ids=["mp4", "mkv", "webm"],
)
@pytest.mark.parametrize("interval", [None, 0.25])
def test_each_tile_shows_the_frame_of_its_time(container: str, codec: str, interval: float | None) -> None:
    film = samples.video(container, codec=codec, audio_codec=None, seconds=3.05, frame_rate=RATE)

    board, sheet = board_of(film, interval=interval)

    step = interval or 1.0
    assert board.interval_s == step
    assert board.duration_s == pytest.approx(3.05, abs=0.01)
    assert [tile.start_s for tile in board.tiles] == [number * step for number in range(4 if interval is None else 13)]
    assert seconds_shown(board, sheet) == [tile.start_s for tile in board.tiles]
    assert [tile.end_s for tile in board.tiles] == [*(tile.start_s for tile in board.tiles[1:]), board.duration_s]


def test_frames_that_are_far_apart_are_sought() -> None:
    film = samples.video(codec="mpeg4", audio_codec=None, seconds=250, frame_rate=1)

    board, sheet = board_of(film)

    assert board.interval_s == 3
    assert len(board.tiles) == 84
    assert (sheet.width // board.tiles[0].width, sheet.height // board.tiles[0].height) == (10, 9)
    reds = [sheet.getpixel((tile.x + 8, tile.y + 8)) for tile in board.tiles]
    assert all(
        isinstance(red, tuple) and abs((red[0] - round(tile.start_s) * 20 + 128) % 256 - 128) < 10
        for red, tile in zip(reds, board.tiles, strict=True)
    )


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_what_breaks_off_has_tiles_until_then(container: str, share: float) -> None:
    whole = samples.video(container, audio_codec=None, seconds=4, frame_rate=RATE)

    board, _ = board_of(whole[: int(len(whole) * share)], interval=0.1)

    assert 0.5 < board.duration_s < 3.9
    assert board.tiles[-1].start_s < board.tiles[-1].end_s == board.duration_s


def test_what_breaks_off_behind_its_header_has_tiles_until_then(tmp_path: Path) -> None:
    film = samples.video(audio_codec=None, seconds=4, frame_rate=RATE)
    with (
        av.open(io.BytesIO(film), "r") as source,
        av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole = (tmp_path / "a.mp4").read_bytes()

    board, sheet = board_of(whole[: int(len(whole) * 0.8)], interval=0.1)

    assert 0.5 < board.duration_s < 3.9
    assert seconds_shown(board, sheet)[:5] == [0, 0.1, 0.2, 0.3, 0.4]


def damaged(film: bytes, *, from_s: float) -> bytes:
    """Return a film whose frames from a second on are nothing but zeros."""
    content = bytearray(film)
    with av.open(io.BytesIO(film), "r") as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.pts is not None and packet.time_base and packet.pts * packet.time_base >= from_s:
                assert packet.pos is not None
                at = film.index(bytes(packet), packet.pos)
                content[at : at + packet.size] = bytes(packet.size)
    return bytes(content)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")],
    ids=["mp4", "mkv", "webm", "avi"],
)
@pytest.mark.parametrize("from_s", [0.1, 2.0, 3.8])
def test_what_is_damaged_up_to_its_end_has_tiles_until_then(container: str, codec: str, from_s: float) -> None:
    film = samples.video(container, codec=codec, audio_codec=None, seconds=4, frame_rate=RATE)

    board, sheet = board_of(damaged(film, from_s=from_s), interval=0.25)

    is_found = from_s < 3.75  # damage behind the beginning of the last tile is not looked for
    assert board.duration_s == pytest.approx(from_s if is_found else 4, abs=0.06)
    assert board.tiles[-1].start_s < board.tiles[-1].end_s == board.duration_s
    assert seconds_shown(board, sheet) == [tile.start_s for tile in board.tiles]
    assert board.is_exact


def test_intervals_are_as_short_as_what_can_be_decoded_allows() -> None:
    film = samples.video(codec="mpeg4", audio_codec=None, seconds=250, frame_rate=1)

    board, sheet = board_of(damaged(film, from_s=90))

    assert (board.interval_s, board.duration_s, len(board.tiles)) == (1, 90, 90)
    reds = [sheet.getpixel((tile.x + 8, tile.y + 8)) for tile in board.tiles]
    assert all(
        isinstance(red, tuple) and abs((red[0] - number * 20 + 128) % 256 - 128) < 10 for number, red in enumerate(reds)
    )


def test_what_is_damaged_as_a_whole_is_refused() -> None:
    with pytest.raises(CorruptMediaError, match="has no frame that can be read"):
        board_of(damaged(samples.video(audio_codec=None), from_s=0))


@pytest.mark.parametrize(("apart", "is_exact"), [(1, True), (2, False)])
def test_what_there_is_no_time_for_shows_the_frame_before(apart: int, is_exact: bool) -> None:
    film = samples.video(codec="mpeg4", audio_codec=None, seconds=250, frame_rate=1)
    film = ffmpeg("mp4", "-i {film}", f"-c:v mpeg4 -q:v 1 -g {apart} -sc_threshold 1000000000", film=film)

    board, sheet = board_of(film, settings=NO_TIME)

    assert board.is_exact is is_exact
    assert (board.interval_s, len(board.tiles)) == (3, 84)
    for tile in board.tiles:
        red = sheet.getpixel((tile.x + 8, tile.y + 8))
        shown_s = tile.start_s - tile.start_s % apart  # a frame that decoding can begin with
        assert isinstance(red, tuple)
        assert abs((red[0] - round(shown_s) * 20 + 128) % 256 - 128) < 10


def test_what_there_is_no_time_for_at_all_is_refused() -> None:
    film = samples.video(codec="mpeg4", audio_codec=None, seconds=250, frame_rate=1)
    with pytest.raises(TooLargeError, match="take an interval that is longer"):
        board_of(film, settings=NO_TIME)


def test_a_single_frame_is_a_single_tile() -> None:
    board, sheet = board_of(samples.video(audio_codec=None, seconds=0.1, frame_rate=10))

    assert len(board.tiles) == 1
    assert sheet.size == (32, 24)
    assert 0 < board.duration_s <= 0.1


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("MP4 turned by a quarter", (24, 32)),
        ("MOV turned by three quarters", (24, 32)),
        ("MP4 of wide pixels", (32, 18)),
        ("MKV of two by two pixels", (2, 2)),
    ],
)
def test_frames_are_as_they_are_displayed(name: str, shape: tuple[int, int]) -> None:
    board, _ = board_of(VIDEOS[name].make(), side=32)

    assert {(tile.width, tile.height) for tile in board.tiles} == {shape}


def test_what_cannot_be_made_is_refused() -> None:
    film = samples.video(seconds=3)
    with pytest.raises(InvalidError, match=r"the limit is 100: take 0\.\d+ seconds or more"):
        board_of(samples.video(seconds=11, frame_rate=5), interval=0.1)
    with pytest.raises(InvalidError, match="a storyboard is made of a video"):
        board_of(samples.image())
    with pytest.raises(CorruptMediaError):
        board_of(samples.audio("mp4", codec="aac"))
    with pytest.raises(TooLargeError, match=r"Settings\.max_derivative_pixels"):
        board_of(film, settings=Settings(max_derivative_pixels=100))


def test_the_track_is_read_by_another_parser() -> None:
    board, _ = board_of(samples.video(audio_codec=None, seconds=3.05, frame_rate=RATE))
    url = "https://example.org/media/clip.webp?until=5&signature=a%2Fb"

    text = board.webvtt(url)

    assert text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n")
    with av.open(io.BytesIO(text.encode()), "r", format="webvtt") as container:
        cues = [(packet.pts, packet.duration, bytes(packet)) for packet in container.demux() if packet.size]
    assert cues == [
        (round(tile.start_s * 1000), round((tile.end_s - tile.start_s) * 1000),
         f"{url}#xywh={tile.x},{tile.y},{tile.width},{tile.height}".encode())
        for tile in board.tiles
    ]  # fmt: skip
    for refused in ("", "a b", "a\nb", "a#b", "a-->b", "\u00e9"):
        with pytest.raises(InvalidError):
            board.webvtt(refused)
    with pytest.raises(InvalidError, match="is no storyboard"):
        Storyboard.of(attrs.evolve(board.sheet, operations="thumbnail_side-5~to_format-png"))
