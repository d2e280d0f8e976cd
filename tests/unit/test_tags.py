"""Titles and names that a file says of itself become facts that can be stored; damaged ones never fail the file."""

from __future__ import annotations

import io
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia import Settings
from mindia.domain.media import AudioFacts, DocumentFacts, Facts
from mindia.media.probe import Unprobed, probe
from mindia.media.text import decoded, one_line
from mindia.testing import samples

FORMATS: dict[str, tuple[str, str]] = {
    "mp3": ("mp3", "libmp3lame"),
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "aac"),
    "flac": ("flac", "flac"),
    "opus": ("ogg", "libopus"),
    "flac in ogg": ("ogg", "flac"),
    "wav": ("wav", "pcm_s16le"),
    "weba": ("webm", "libopus"),
    "mka": ("matroska", "aac"),
}


def facts(content: bytes) -> Facts:
    return probe(Unprobed(file=io.BytesIO(content), size=len(content), filename="x"), settings=Settings()).facts


def tags(content: bytes) -> tuple[str | None, str | None, str | None]:
    found = facts(content)
    assert isinstance(found, AudioFacts)
    return found.title, found.artist, found.album


def title(content: bytes) -> str | None:
    found = facts(content)
    assert isinstance(found, DocumentFacts)
    return found.title


def sound(name: str, **named: Any) -> bytes:
    container_format, codec = FORMATS[name]
    return samples.audio(container_format, codec=codec, seconds=0.2, **named)


@pytest.mark.parametrize("name", FORMATS)
def test_sound_has_its_title_its_artist_and_its_album(name: str) -> None:
    content = sound(name, title="Jóga 日本", artist="Björk", album="Homogenic")

    assert tags(content) == ("Jóga 日本", "Björk", "Homogenic")


@pytest.mark.parametrize("name", FORMATS)
def test_sound_without_tags_has_none(name: str) -> None:
    assert tags(sound(name)) == (None, None, None)
    assert tags(sound(name, artist="Björk")) == (None, "Björk", None)


@pytest.mark.parametrize("name", FORMATS)
def test_a_long_tag_is_cut(name: str) -> None:
    found, _, _ = tags(sound(name, title="long " * 500))

    assert found == ("long " * 100).rstrip()


@pytest.mark.parametrize("name", ["m4a", "flac", "wav", "weba", "mka"])
def test_a_tag_in_no_encoding_does_not_fail_the_file(name: str) -> None:
    content = sound(name, title="Bj??rk??", artist="Bj??rk")

    found = tags(content.replace(b"Bj??rk??", b"Bj\xc3\xb6rk\xff\xfe").replace(b"Bj??rk", b"Bj\xf6\xf6rk"))

    assert found[1] == "Bjöörk"
    assert found[0] is not None
    assert found[0].startswith("Bj")
    found[0].encode()


@pytest.mark.parametrize("name", ["m4a", "flac", "mka"])
def test_control_characters_are_no_part_of_a_tag(name: str) -> None:
    content = sound(name, title="one????two", album="????")

    assert tags(content.replace(b"one????two", b"one\r\n\x1b\ttwo").replace(b"????", b"\x01\x02\x03\x04")) == (
        "one two",
        None,
        None,
    )


def test_the_name_of_a_track_is_not_the_title_of_a_file() -> None:
    buffer = io.BytesIO()
    content = sound("mka")
    with av.open(io.BytesIO(content), "r") as source, av.open(buffer, "w", format="matroska") as copy:
        track = copy.add_stream_from_template(source.streams.audio[0])
        track.metadata["title"] = "Stereo"
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                copy.mux(packet)
    assert b"Stereo" in buffer.getvalue()

    assert tags(buffer.getvalue()) == (None, None, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Annual report", "Annual report"),
        ("Bücher 日本 🎈", "Bücher 日本 🎈"),
        ("  two \r\n lines\0 ", "two lines"),
        ("", None),
        (" \0\t", None),
        ("t" * 800, "t" * 500),
    ],
)
def test_a_document_has_its_title(written: str, expected: str | None) -> None:
    assert title(samples.pdf(title=written)) == expected


def test_a_document_without_a_title_has_none() -> None:
    assert title(samples.pdf()) is None


@pytest.mark.parametrize("half", ["d800", "dc00", "d83dd83d"])
def test_half_a_character_in_the_title_of_a_document_does_not_fail_it(half: str) -> None:
    content = samples.pdf(title="balloon").replace(b"feff0062", b"feff" + half.encode())

    found = title(content)

    assert found is None or found.encode()


@given(st.text(max_size=60), st.integers(1, 50))
def test_a_line_can_be_shown_and_stored_whatever_it_was_made_of(text: str, max_chars: int) -> None:
    line = one_line(text + "\ud800\0", max_chars=max_chars)

    assert line is None or 0 < len(line) <= max_chars
    assert line is None or line == line.strip()
    assert "\0" not in (line or "").encode().decode()


@given(st.binary(max_size=60))
def test_bytes_of_any_encoding_become_text_that_can_be_stored(raw: bytes) -> None:
    decoded(raw).encode()


@given(st.text(max_size=60))
def test_text_in_utf_8_is_read_as_it_was_written(text: str) -> None:
    assert decoded(text.encode(errors="replace")) == text.encode(errors="replace").decode()
