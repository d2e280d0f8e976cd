"""Which variants a video gets, how they are asked for, and what the playlists say."""

from __future__ import annotations

from fractions import Fraction

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.config import Settings
from mindia.errors import CorruptMediaError, InvalidError
from mindia.media.ffmpeg import Ffmpeg
from mindia.media.hls import (
    HlsPlan,
    MadeVariant,
    Variant,
    arguments,
    codec_in,
    durations_in,
    master_playlist,
    planned,
    rewritten,
    segment_number,
)
from mindia.media.hls_options import HlsOptions, Rung
from mindia.media.tracks import VideoTracks

OPTIONS = HlsOptions.of(Settings())
X264 = Ffmpeg(path="/usr/bin/ffmpeg", version="7.1", encoder="libx264")


def tracks(width: int = 1920, height: int = 1080, rate: Fraction = Fraction(30), audio: int | None = 1) -> VideoTracks:
    return VideoTracks(parser="mov", width=width, height=height, duration=60.0, frame_rate=rate, video=0, audio=audio)


def sizes(width: int, height: int) -> list[tuple[str, int, int]]:
    return [(each.name, each.width, each.height) for each in planned(tracks(width, height), OPTIONS).variants]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 1080, [("360p", 640, 360), ("480p", 854, 480), ("720p", 1280, 720), ("1080p", 1920, 1080)]),
        (3840, 2160, [("360p", 640, 360), ("480p", 854, 480), ("720p", 1280, 720), ("1080p", 1920, 1080)]),
        (1080, 1920, [("360p", 360, 640), ("480p", 480, 854), ("720p", 720, 1280), ("1080p", 1080, 1920)]),
        (1279, 719, [("360p", 640, 360), ("480p", 854, 480)]),
        (640, 360, [("360p", 640, 360)]),
        (720, 576, [("360p", 450, 360), ("480p", 600, 480)]),
        (639, 359, [("359p", 638, 358)]),
        (101, 75, [("75p", 100, 74)]),
        (16, 16, [("16p", 16, 16)]),
        (1, 1, [("2p", 2, 2)]),
        (20_000, 400, [("81p", 4050, 80)]),
    ],
)
def test_a_video_gets_the_rungs_that_it_has_the_lines_for(
    width: int, height: int, expected: list[tuple[str, int, int]]
) -> None:
    assert sizes(width, height) == expected


@given(st.integers(2, 9000), st.integers(2, 9000))
def test_nothing_is_enlarged_or_stretched_or_odd(width: int, height: int) -> None:
    variants = planned(tracks(width, height), OPTIONS).variants

    assert variants
    for each in variants:
        assert each.width % 2 == each.height % 2 == 0
        assert 2 <= each.width <= max(2, width + 1)
        assert 2 <= each.height <= max(2, height + 1)
        assert max(each.width, each.height) <= 4096
        short = min(each.width / width, each.height / height) * max(width, height)
        assert max(each.width, each.height) - short <= 2 * max(width, height) / min(width, height) + 2
        assert each.bitrate >= 100_000
    assert [each.bitrate for each in variants] == sorted(each.bitrate for each in variants)
    assert len({each.name for each in variants}) == len(variants)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (Fraction(30), Fraction(30)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (Fraction(60), Fraction(60)),
        (Fraction(60000, 1001), Fraction(60000, 1001)),
        (Fraction(240), Fraction(60)),
        (Fraction(144), Fraction(48)),
        (Fraction(100), Fraction(50)),
        (Fraction(1), Fraction(1)),
        (Fraction(1, 10), Fraction(1)),
    ],
)
def test_many_frames_a_second_are_thinned_out_evenly(rate: Fraction, expected: Fraction) -> None:
    assert planned(tracks(rate=rate), OPTIONS).frame_rate == expected


def command(plan: HlsPlan, ffmpeg: Ffmpeg = X264) -> list[str]:
    return arguments(ffmpeg, plan, source="/dev/fd/10", folder="/tmp/out", max_pixels=1000, max_s=99.0)


def after(option: str, told: list[str]) -> str:
    assert told.count(option) == 1, option
    return told[told.index(option) + 1]


def test_one_command_encodes_the_whole_ladder() -> None:
    told = command(planned(tracks(), OPTIONS))

    assert told[0] == "/usr/bin/ffmpeg"
    assert after("-i", told) == "/dev/fd/10"
    assert after("-var_stream_map", told) == (
        "v:0,a:0,name:360p v:1,a:1,name:480p v:2,a:2,name:720p v:3,a:3,name:1080p"
    )
    assert after("-filter_complex", told).startswith("[0:0]fps=30/1,split=4[s0][s1][s2][s3];[s0]scale=640:360,")
    assert [told[told.index(f"-b:v:{n}") + 1] for n in range(4)] == ["800000", "1400000", "2800000", "5000000"]
    assert after("-force_key_frames", told) == "expr:gte(t,n_forced*6)"
    assert after("-preset", told) == "veryfast"
    assert int(after("-g", told)) > 180, "or keyframes would come in between"


def test_the_file_is_opened_as_what_it_was_found_to_be_and_leads_nowhere_else() -> None:
    told = command(planned(tracks(), OPTIONS))
    before = told[: told.index("-i")]

    assert after("-protocol_whitelist", before) == "file"
    assert after("-f", before) == "mov"
    assert after("-max_pixels", before) == "1000"
    assert after("-t", before) == "99"
    assert after("-map_metadata", told) == "-1", "nor does what it tells of places go into the stream"


def test_a_silent_video_is_not_asked_for_sound() -> None:
    told = command(planned(tracks(audio=None), OPTIONS))

    assert after("-var_stream_map", told).startswith("v:0,name:360p v:1,name:480p")
    assert "-c:a" not in told
    assert "0:1" not in told


def test_another_encoder_is_not_told_what_it_does_not_know() -> None:
    told = command(planned(tracks(), OPTIONS), attrs.evolve(X264, encoder="libopenh264"))

    assert after("-c:v", told) == "libopenh264"
    assert "-preset" not in told


def test_segments_may_be_fragments_of_mp4() -> None:
    told = command(planned(tracks(), HlsOptions.of(Settings(hls_segments="fmp4"))))

    assert after("-hls_segment_type", told) == "fmp4"
    assert after("-hls_segment_filename", told).endswith("/%v/segment_%03d.m4s")


@pytest.mark.parametrize(
    "settings",
    [
        {"hls_ladder": ()},
        {"hls_ladder": ("720",)},
        {"hls_ladder": ("8p@100k",)},
        {"hls_ladder": ("9000p@100k",)},
        {"hls_ladder": ("720p@100k", "720p@200k")},
        {"hls_ladder": (720,)},
        {"hls_segments": "webm"},
        {"hls_segment_s": 0.5},
        {"hls_segment_s": 61.0},
        {"hls_preset": "placebo; rm -rf /"},
        {"hls_max_frame_rate": 241.0},
    ],
    ids=str,
)
def test_settings_that_no_stream_could_be_made_with_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidError, match=next(iter(settings)) if "ladder" not in str(settings) else "rung"):
        HlsOptions.of(Settings(**settings))  # type: ignore[arg-type]


def test_the_ladder_may_be_in_any_order_and_comes_from_the_environment() -> None:
    settings = Settings.from_env({"MINDIA_HLS_LADDER": "720p@2000k, 240p@300k"})

    assert HlsOptions.of(settings).ladder == (Rung(height=240, bitrate=300_000), Rung(height=720, bitrate=2_000_000))


MADE = MadeVariant(
    variant=Variant(name="360p", width=640, height=360, bitrate=800_000),
    codec="avc1.64001e",
    durations=(6.0, 6.0, 0.04),
    sizes=(600_000, 750_000, 90_000),
)


def test_the_master_playlist_tells_what_a_player_chooses_by() -> None:
    lines = master_playlist([MADE], planned(tracks(rate=Fraction(30000, 1001)), OPTIONS)).splitlines()

    assert lines[:2] == ["#EXTM3U", "#EXT-X-VERSION:3"]
    assert lines[-2:] == [
        "#EXT-X-STREAM-INF:BANDWIDTH=1000000,AVERAGE-BANDWIDTH=956811,"
        'CODECS="avc1.64001e,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=29.970',
        "360p/index.m3u8",
    ]


def test_a_silent_stream_does_not_tell_of_sound() -> None:
    assert 'CODECS="avc1.64001e",' in master_playlist([MADE], planned(tracks(audio=None), OPTIONS))


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        (b"\x00\x00\x00\x01\x67\x64\x00\x1f\xac", "avc1.64001f"),
        (b"....\x00\x00\x01\x27\x4d\x40\x0b", "avc1.4d400b"),
        (b"moov....avcC\x01\x64\x00\x28\xff", "avc1.640028"),
    ],
)
def test_how_it_is_coded_is_read_from_the_stream(head: bytes, codec: str) -> None:
    assert codec_in(head) == codec


def test_a_stream_that_does_not_tell_is_no_stream() -> None:
    with pytest.raises(CorruptMediaError):
        codec_in(b"G" * 188)


def test_addresses_in_a_playlist_are_replaced_and_nothing_else() -> None:
    playlist = '#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:6.000000,\nsegment_000.m4s\n\n#EXT-X-ENDLIST\n'

    assert rewritten(playlist, lambda name: f"https://s3/{name}?s=1") == (
        '#EXTM3U\n#EXT-X-MAP:URI="https://s3/init.mp4?s=1"\n#EXTINF:6.000000,\nhttps://s3/segment_000.m4s?s=1\n\n'
        "#EXT-X-ENDLIST\n"
    )
    assert rewritten(playlist, lambda _: None) == playlist
    assert durations_in(playlist) == [6.0]


@pytest.mark.parametrize(
    ("name", "number"),
    [("segment_007.ts", 7), ("segment_1000.m4s", 1000), ("segment_007.ts.tmp", None), ("index.m3u8", None)],
)
def test_segments_are_told_by_their_names(name: str, number: int | None) -> None:
    assert segment_number(name) == number
