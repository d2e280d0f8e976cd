"""Good sound that is out of the ordinary."""

from __future__ import annotations

from typing import Any

from tests.corpus.formats import chunk, id3, id3_frame, riff, wave_format
from tests.corpus.odd import OddFile, ffmpeg, tone

from mindia.testing import samples


def _sound(seconds: float, rate: int, channels: int, **others: Any) -> dict[str, Any]:
    return {"duration": seconds, "sample_rate": rate, "channels": channels, **others}


def _wav(*before: bytes, behind: bytes = b"") -> bytes:
    """Half a second, with other chunks around it."""
    return riff(b"WAVE", *before, wave_format(rate=8_000), chunk(b"data", bytes(8_000)), behind)


def _coded(
    suffix: str, *arguments: str, seconds: float = 0.5, rate: int = 44_100, layout: str = "mono", **files: bytes
) -> bytes:
    return ffmpeg(suffix, tone(seconds=seconds, rate=rate, layout=layout), *arguments, **files)


def _with_cover(suffix: str, codec: str) -> bytes:
    """Half a second with a picture of 600 x 600 pixels."""
    cover = samples.image(width=600, height=600)
    return _coded(
        suffix,
        f"-i {{cover}} -map 0 -map 1 -c:a {codec} -c:v copy -disposition:v attached_pic -metadata title=Song",
        cover=cover,
    )


def _bare_mp3(*arguments: str, **options: Any) -> bytes:
    """Frames and nothing else."""
    return _coded("mp3", "-c:a libmp3lame -write_xing 0 -id3v2_version 0", *arguments, **options)


def _uneven_mp3() -> bytes:
    """Three seconds of silence and three of noise, in frames of all sizes, and nothing that says how many."""
    return ffmpeg(
        "mp3",
        "-f lavfi -i aevalsrc=0.5*gt(t\\,3)*(2*random(0)-1):sample_rate=44100:duration=6",
        "-c:a libmp3lame -q:a 0 -write_xing 0 -id3v2_version 0",
    )


def _old_tag() -> bytes:
    """The tag of the first version, behind the sound."""
    return (
        b"TAG"
        + b"Old Song".ljust(30, b"\0")
        + b"Old Singer".ljust(30, b"\0")
        + b"Old Album".ljust(30, b"\0")
        + (b"1999" + bytes(30) + b"\1")
    )


def _large_tag() -> bytes:
    """A tag of a megabyte: titles in two bytes a letter, and a cover of noise."""
    title = id3_frame(b"TIT2", b"\1\xff\xfe" + "Größe".encode("utf-16le"))
    cover = id3_frame(b"APIC", b"\0image/jpeg\0\3\0" + samples.image() + bytes(1_000_000))
    return id3(title, cover)


_SMALLEST = b"\xff\xf3\x14\xc4" + bytes(20)
"""A frame of MP3 of 8 kilobits a second and 24,000 samples."""

WAV, MP3, FLAC, OGG, M4A = "audio/wav", "audio/mpeg", "audio/flac", "audio/ogg", "audio/mp4"
WEBM, MKA = "audio/webm", "audio/x-matroska"
_FRAME = 0.06
"""What coders add at the end, and at the beginning."""

AUDIO: dict[str, OddFile] = {
    "WAV of 8 kHz in 8 bits": OddFile(
        "x.wav", WAV, lambda: _coded("wav", "-c:a pcm_u8", rate=8_000), _sound(0.5, 8_000, 1, bitrate=64_000)
    ),
    "WAV of 96 kHz in 24 bits": OddFile(
        "x.wav",
        WAV,
        lambda: _coded("wav", "-c:a pcm_s24le", rate=96_000, layout="stereo"),
        _sound(0.5, 96_000, 2, bitrate=4_608_000),
    ),
    "WAV of 192 kHz in 32 bits": OddFile(
        "x.wav", WAV, lambda: _coded("wav", "-c:a pcm_s32le", rate=192_000), _sound(0.5, 192_000, 1, bitrate=6_144_000)
    ),
    "WAV of fractions": OddFile(
        "x.wav", WAV, lambda: _coded("wav", "-c:a pcm_f32le", rate=48_000), _sound(0.5, 48_000, 1, bitrate=1_536_000)
    ),
    "WAV of a telephone": OddFile(
        "x.wav", WAV, lambda: _coded("wav", "-c:a pcm_mulaw", rate=8_000), _sound(0.5, 8_000, 1, bitrate=64_000)
    ),
    "WAV of six channels": OddFile(
        "x.wav", WAV, lambda: _coded("wav", rate=48_000, layout="5.1"), _sound(0.5, 48_000, 6)
    ),
    "WAV of eight channels": OddFile(
        "x.wav", WAV, lambda: _coded("wav", rate=48_000, layout="7.1"), _sound(0.5, 48_000, 8)
    ),
    "WAV with a list before its sound": OddFile(
        "x.wav",
        WAV,
        lambda: _wav(chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Song\0") + chunk(b"IART", b"Singer\0"))),
        _sound(0.5, 8_000, 1, title="Song", artist="Singer"),
    ),
    "WAV of a broadcast": OddFile("x.wav", WAV, lambda: _wav(chunk(b"bext", bytes(603))), _sound(0.5, 8_000, 1)),
    "WAV with chunks of odd lengths": OddFile(
        "x.wav", WAV, lambda: _wav(chunk(b"junk", b"a"), behind=chunk(b"cue ", b"abc")), _sound(0.5, 8_000, 1)
    ),
    "WAV of 64 bits": OddFile("x.wav", WAV, lambda: _coded("wav", "-rf64 always", rate=8_000), _sound(0.5, 8_000, 1)),
    "WAV of a sample": OddFile(
        "x.wav",
        WAV,
        lambda: riff(b"WAVE", wave_format(rate=8_000), chunk(b"data", b"\0\1")),
        _sound(1 / 8_000, 8_000, 1),
    ),
    "WAV of a tenth of a second": OddFile("x.wav", WAV, lambda: samples.wav(seconds=0.1), _sound(0.1, 16_000, 1)),
    "MP3 of a tenth of a second": OddFile(
        "x.mp3", MP3, lambda: _coded("mp3", seconds=0.1), _sound(0.1, 44_100, 1), 2 * _FRAME
    ),
    "MP3 of all sizes of frames without a header": OddFile("x.mp3", MP3, _uneven_mp3, _sound(6.0, 44_100, 1), 0.1),
    "MP3 of all sizes of frames with a header": OddFile(
        "x.mp3", MP3, lambda: _coded("mp3", "-q:a 0", layout="stereo", seconds=3.0), _sound(3.0, 44_100, 2), 0.1
    ),
    "MP3 without a tag": OddFile("x.mp3", MP3, lambda: _bare_mp3(), _sound(0.5, 44_100, 1, title=None), 0.1),
    "MP3 with nothing but a tag of the first version": OddFile(
        "x.mp3",
        MP3,
        lambda: _bare_mp3() + _old_tag(),
        _sound(0.5, 44_100, 1, title="Old Song", artist="Old Singer", album="Old Album"),
        0.1,
    ),
    "MP3 with a tag of a megabyte": OddFile(
        "x.mp3", MP3, lambda: _large_tag() + _bare_mp3(), _sound(0.5, 44_100, 1, title="Größe"), 0.1
    ),
    "MP3 with a cover": OddFile(
        "x.mp3", MP3, lambda: _with_cover("mp3", "libmp3lame"), _sound(0.5, 44_100, 1, title="Song"), 0.1
    ),
    "MP3 of 8 kHz": OddFile("x.mp3", MP3, lambda: _coded("mp3", "-b:a 8k", rate=8_000), _sound(0.5, 8_000, 1), 0.3),
    "MP3 of 24 kHz": OddFile("x.mp3", MP3, lambda: _bare_mp3(rate=24_000), _sound(0.5, 24_000, 1), 0.1),
    "MP3 of almost twelve hours": OddFile(
        "x.mp3", MP3, lambda: _SMALLEST * 1_799_000, _sound(43_176.0, 24_000, 1, bitrate=8_000)
    ),
    "FLAC of a tenth of a second": OddFile("x.flac", FLAC, lambda: _coded("flac", seconds=0.1), _sound(0.1, 44_100, 1)),
    "FLAC of 96 kHz in 24 bits": OddFile(
        "x.flac",
        FLAC,
        lambda: _coded("flac", "-sample_fmt s32 -bits_per_raw_sample 24", rate=96_000, layout="stereo"),
        _sound(0.5, 96_000, 2),
    ),
    "FLAC of eight channels": OddFile(
        "x.flac", FLAC, lambda: _coded("flac", rate=48_000, layout="7.1"), _sound(0.5, 48_000, 8)
    ),
    "FLAC with a cover": OddFile(
        "x.flac", FLAC, lambda: _with_cover("flac", "flac"), _sound(0.5, 44_100, 1, title="Song")
    ),
    "M4A with a cover": OddFile(
        "x.m4a", M4A, lambda: _with_cover("m4a", "aac"), _sound(0.5, 44_100, 1, title="Song"), _FRAME
    ),
    "M4A without loss": OddFile("x.m4a", M4A, lambda: _coded("m4a", "-c:a alac"), _sound(0.5, 44_100, 1), _FRAME),
    "M4A of six channels": OddFile(
        "x.m4a", M4A, lambda: _coded("m4a", "-c:a aac", rate=48_000, layout="5.1"), _sound(0.5, 48_000, 6), _FRAME
    ),
    "M4A of fragments": OddFile(
        "x.m4a",
        M4A,
        lambda: _coded("m4a", "-c:a aac -movflags +frag_keyframe+empty_moov"),
        _sound(0.5, 44_100, 1),
        _FRAME,
    ),
    "M4B": OddFile("x.m4b", M4A, lambda: _coded("m4a", "-c:a aac -brand M4B"), _sound(0.5, 44_100, 1), _FRAME),
    "MP4 of nothing but sound": OddFile(
        "x.mp4", M4A, lambda: _coded("mp4", "-c:a aac"), _sound(0.5, 44_100, 1), _FRAME
    ),
    "OGG of Opus": OddFile(
        "x.opus",
        OGG,
        lambda: _coded("opus", "-c:a libopus -metadata title=Lied", rate=48_000),
        _sound(0.5, 48_000, 1, title="Lied"),
        _FRAME,
    ),
    "OGG of Opus of eight channels": OddFile(
        "x.ogg",
        OGG,
        lambda: _coded("ogg", "-c:a libopus -mapping_family 1", rate=48_000, layout="7.1"),
        _sound(0.5, 48_000, 8),
        _FRAME,
    ),
    "OGG of Vorbis": OddFile(
        "x.ogg", OGG, lambda: _coded("ogg", "-c:a libvorbis", layout="stereo"), _sound(0.5, 44_100, 2), _FRAME
    ),
    "OGG of FLAC": OddFile("x.oga", OGG, lambda: _coded("oga", "-c:a flac"), _sound(0.5, 44_100, 1), 0.11),
    "OGG of speech at 8 kHz": OddFile(
        "x.ogg", OGG, lambda: _coded("ogg", "-c:a libvorbis", rate=8_000), _sound(0.5, 8_000, 1), 0.1
    ),
    "WEBM of Opus": OddFile(
        "x.weba", WEBM, lambda: _coded("webm", "-c:a libopus", rate=48_000), _sound(0.5, 48_000, 1), _FRAME
    ),
    "WEBM of Vorbis": OddFile(
        "x.webm", WEBM, lambda: _coded("webm", "-c:a libvorbis", layout="stereo"), _sound(0.5, 44_100, 2), _FRAME
    ),
    "MKA of PCM": OddFile(
        "x.mka",
        MKA,
        lambda: _coded("mka", "-c:a pcm_s16le -metadata title=Lied"),
        _sound(0.5, 44_100, 1, title="Lied"),
        _FRAME,
    ),
    "MKA of AC-3": OddFile(
        "x.mka", MKA, lambda: _coded("mka", "-c:a ac3", rate=48_000, layout="5.1"), _sound(0.5, 48_000, 6), _FRAME
    ),
    "sound of a tag with a name of two bytes": OddFile(
        "x.mp3",
        MP3,
        lambda: (
            id3(id3_frame(b"TIT2", b"\3" + "日本語の歌".encode()), id3_frame(b"TPE1", b"\0" + b"Bj\xf6rk"))
            + _bare_mp3()
        ),
        _sound(0.5, 44_100, 1, title="日本語の歌", artist="Björk"),
        0.1,
    ),
}
