"""The type of a file comes from its bytes; its name and what the client says must not contradict them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mindia.domain.media import MediaKind
from mindia.errors import TypeMismatchError, UnsupportedTypeError
from mindia.media import sniff
from mindia.media.sniff import ALLOWED, HEAD_BYTES, MediaType
from mindia.testing import samples


def saved(image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, image_format, **options)
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"content")
    return buffer.getvalue()


def brand(major: bytes, *others: bytes) -> bytes:
    """The beginning of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    content = major + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(content)) + b"ftyp" + content + struct.pack(">I", 8) + b"mdat"


MADE: dict[str, tuple[Callable[[], bytes], MediaType]] = {
    "jpeg": (lambda: samples.image("JPEG"), sniff.JPEG),
    "progressive jpeg": (lambda: saved("JPEG", progressive=True), sniff.JPEG),
    "png": (lambda: samples.image("PNG"), sniff.PNG),
    "animated png": (lambda: saved("PNG", save_all=True, append_images=[Image.new("RGB", (8, 8))]), sniff.PNG),
    "gif": (lambda: samples.image("GIF"), sniff.GIF),
    "webp": (lambda: samples.image("WEBP"), sniff.WEBP),
    "lossless webp": (lambda: saved("WEBP", lossless=True), sniff.WEBP),
    "avif": (lambda: samples.image("AVIF"), sniff.AVIF),
    "mp4": (lambda: samples.video("mp4"), sniff.MP4),
    "mov": (lambda: samples.video("mov"), sniff.MOV),
    "avi": (lambda: samples.video("avi", codec="mpeg4", audio_codec="libmp3lame"), sniff.AVI),
    "webm": (lambda: samples.video("webm", codec="libvpx", audio_codec="libopus"), sniff.WEBM),
    "mkv": (lambda: samples.video("matroska"), sniff.MKV),
    "ts": (lambda: samples.video("mpegts"), sniff.TS),
    "m2ts": (lambda: samples.video("mpegts", options={"mpegts_m2ts_mode": "1"}), sniff.TS),
    "mp3": (samples.audio, sniff.MP3),
    "m4a": (lambda: samples.audio("ipod", codec="aac"), sniff.M4A),
    "wav": (samples.wav, sniff.WAV),
    "flac": (lambda: samples.audio("flac", codec="flac"), sniff.FLAC),
    "ogg": (lambda: samples.audio("ogg", codec="libopus"), sniff.OGG),
    "pdf": (samples.pdf, sniff.PDF),
}


@pytest.mark.parametrize(("make", "expected"), MADE.values(), ids=MADE)
def test_a_file_of_an_allowed_type_is_told_by_its_bytes(make: Callable[[], bytes], expected: MediaType) -> None:
    assert sniff.sniff(make()[:HEAD_BYTES]) is expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GIF87a" + bytes(20), sniff.GIF),
        (b"\xff\xd8\xff\xe1" + bytes(20), sniff.JPEG),
        (b"RF64" + bytes(4) + b"WAVE", sniff.WAV),
        (b"\xff\xfb\x90\x64" + bytes(20), sniff.MP3),
        (b"\xff\xf3\x40\xc4" + bytes(20), sniff.MP3),
        (b"ID3\x04" + bytes(20), sniff.MP3),
        (b"%PDF-2.0\n", sniff.PDF),
        (brand(b"isom", b"isom", b"mp41"), sniff.MP4),
        (brand(b"mp42"), sniff.MP4),
        (brand(b"XXXX", b"mp42"), sniff.MP4),
        (brand(b"M4V ", b"isom"), sniff.MP4),
        (brand(b"dash", b"iso6"), sniff.MP4),
        (brand(b"qt  "), sniff.MOV),
        (brand(b"M4A ", b"isom", b"mp42"), sniff.M4A),
        (brand(b"M4B "), sniff.M4A),
        (brand(b"avif", b"mif1", b"miaf"), sniff.AVIF),
        (brand(b"mif1", b"avif"), sniff.AVIF),
        (brand(b"avis", b"msf1", b"iso8"), sniff.AVIF),
        (brand(b"avis", b"msf1", b"isom", b"mp42"), sniff.AVIF),
        (brand(b"mif1", b"isom", b"avif"), sniff.AVIF),
        (brand(b"isom", b"avif", b"M4A "), sniff.MP4),
        (brand(b"M4B ", b"isom", b"mp42"), sniff.M4A),
        (brand(b"qt  ", b"mp42", b"isom"), sniff.MOV),
        (brand(b"XXXX", b"YYYY", b"M4A ", b"isom"), sniff.M4A),
        (b"\0\0\0\x08wide\0\0\0\x08mdat", sniff.MOV),
        (b"\0\0\0\x08moov", sniff.MOV),
        (b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm", sniff.WEBM),
        (b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska", sniff.MKV),
        (b"\x1a\x45\xdf\xa3\x93\x42\x86\x81\x01\x42\x82\x86webm\0\0", sniff.WEBM),
        (b"\x1a\x45\xdf\xa3\x8d\xbf\x84\x42\x82\x84x\x42\x82\x84webm", sniff.WEBM),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x0b\x42\x82\x88matroska", sniff.MKV),
        (b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff\x42\x82\x84webm", sniff.WEBM),
        ((b"\x47\x40\x00\x10" + bytes(184)) * 3, sniff.TS),
        ((b"\x47\x1f\xff\x10" + b"\xff" * 184) * 22, sniff.TS),
        ((b"\xff\xfb\x90\x64" + b"\x47\x40\x00\x10" + bytes(184)) * 22, sniff.TS),
    ],
    ids=repr,
)
def test_the_variants_of_a_type_are_known(head: bytes, expected: MediaType) -> None:
    assert sniff.sniff(head) is expected


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\xff",
    "zeros": bytes(HEAD_BYTES),
    "text": b"just some text\n" * 100,
    "utf-16": "text".encode("utf-16"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg with prolog": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "html": b"<!DOCTYPE html><html></html>",
    "html in capitals": b"  <HTML><SCRIPT>alert(1)</SCRIPT>",
    "xml": b'<?xml version="1.0"?><a/>',
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat list": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "json": b'{"a": 1}',
    "shell script": b"#!/bin/sh\n",
    "php": b"<?php system($_GET['c']);",
    "zip": zipped("a.txt"),
    "docx": zipped("word/document.xml"),
    "gzip": b"\x1f\x8b\x08\0" + bytes(20),
    "rar": b"Rar!\x1a\x07\0",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "exe": b"MZ\x90\0" + bytes(60),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(60),
    "mach-o": b"\xcf\xfa\xed\xfe" + bytes(60),
    "class": b"\xca\xfe\xba\xbe" + bytes(60),
    "heic": brand(b"heic", b"mif1", b"heic"),
    "heif": brand(b"mif1", b"heic", b"miaf"),
    "heif without a coding": brand(b"mif1", b"miaf", b"mp42"),
    "heic that calls itself other things": brand(b"heic", b"mif1", b"avif", b"mp42", b"isom"),
    "heic of several pictures": brand(b"hevc", b"msf1", b"isom"),
    "heic behind an unknown brand": brand(b"XXXX", b"heic", b"mp42"),
    "raw image of canon": brand(b"crx ", b"crx ", b"isom"),
    "jpeg 2000 video": brand(b"mjp2", b"isom"),
    "locked sound": brand(b"aax ", b"isom", b"M4A "),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + brand(b"jp2 "),
    "jpeg xl": b"\0\0\0\x0cJXL \r\n\x87\n",
    "unknown brand": brand(b"XXXX", b"YYYY"),
    "brand behind the box": brand(b"XXXX") + b"isom",
    "bmp": saved("BMP"),
    "tiff": saved("TIFF"),
    "eps": saved("EPS"),
    "ico": saved("ICO"),
    "psd": b"8BPS\0\x01",
    "postscript": b"%!PS-Adobe-3.0\n",
    "two packets of mpeg-ts": (b"\x47\x40\x00\x10" + bytes(184)) * 2,
    "mpeg-ts out of step": (b"\x47\x40\x00\x10" + bytes(184)) * 8 + b"\0" + (b"\x47\x40\x00\x10" + bytes(184)) * 4,
    "mpeg-ps": b"\0\0\x01\xba" + bytes(60),
    "flv": b"FLV\x01\x05",
    "asf": b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "aiff": b"FORM\0\0\0\0AIFF",
    "aac": b"\xff\xf1\x50\x80" + bytes(20),
    "mpeg audio layer II": b"\xff\xfd\x90\x64" + bytes(20),
    "mpeg audio with a reserved version": b"\xff\xeb\x90\x64" + bytes(20),
    "mpeg audio with a reserved sample rate": b"\xff\xfb\x9c\x64" + bytes(20),
    "mpeg audio with a forbidden bitrate": b"\xff\xfb\xf0\x64" + bytes(20),
    "midi": b"MThd\0\0\0\x06",
    "riff of another kind": b"RIFF\0\0\0\0ACON",
    "riff without a kind": b"RIFF\0\0\0\0",
    "riff of 64 bits of another kind": b"RF64\0\0\0\0WEBP",
    "riff with the bytes turned": b"RIFX\0\0\0\0WAVE",
    "matroska without a type": b"\x1a\x45\xdf\xa3" + bytes(20),
    "matroska of another type": b"\x1a\x45\xdf\xa3\x93\x42\x82\x84evil",
    "matroska cut off": b"\x1a\x45\xdf\xa3\x42\x82",
    "matroska by its content": b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\x87\x42\x82\x84webm",
    "pdf behind something": b"\n%PDF-1.4",
    "half a signature": b"\x89PNG",
    "signature of png with line ends changed": b"\x89PNG\n\x1a\n",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=REFUSED)
def test_what_is_none_of_the_allowed_types_is_refused(head: bytes) -> None:
    assert sniff.sniff(head) is None
    with pytest.raises(UnsupportedTypeError, match=r"'x\.jpg' begins with .* none of the allowed types: jpg, png"):
        sniff.require(head, filename="x.jpg")


@pytest.mark.parametrize(("make", "found"), MADE.values(), ids=MADE)
def test_a_second_opinion_agrees_with_the_type_of_real_files(make: Callable[[], bytes], found: MediaType) -> None:
    sniff.check_other_opinion(make()[:HEAD_BYTES], found, filename="x")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (brand(b"M4B ", b"isom"), sniff.M4A),
        (brand(b"avis", b"isom"), sniff.AVIF),
        (brand(b"qt  ", b"mp42"), sniff.MOV),
        ((b"\0\0\1\0" + b"\x47\x40\x00\x10" + bytes(184)) * 22, sniff.TS),
        (b"%PDF-1.4\n" + bytes(300), sniff.PDF),
        (b"%PDF-1.4\n" + b"\xff\xd8\xff<html><script>" * 20, sniff.PDF),
    ],
    ids=["m4b", "avis", "mov", "a time that looks like an icon", "pdf", "polyglot"],
)
def test_a_second_opinion_that_means_the_same_file_is_no_contradiction(head: bytes, found: MediaType) -> None:
    assert sniff.sniff(head) is found
    sniff.check_other_opinion(head, found, filename="x")


def test_a_file_that_is_two_things_from_the_beginning_is_refused_by_both_names() -> None:
    """The first 128 bytes of DICOM may be anything (DICOM PS3.10, 7.1), so also the beginning of a WAV file."""
    head = (b"RIFF\0\0\0\0WAVEfmt " + bytes(128))[:128] + b"DICM" + bytes(100)
    assert sniff.sniff(head) is sniff.WAV

    with pytest.raises(TypeMismatchError, match=r"'x\.wav' begins as audio/wav, but looks like application/dicom"):
        sniff.check_other_opinion(head, sniff.WAV, filename="x.wav")


@given(st.binary(max_size=64) | st.sampled_from(sorted(REFUSED.values())))
def test_whatever_the_bytes_are_the_answer_is_a_type_or_none(head: bytes) -> None:
    assert sniff.sniff(head) in (None, *ALLOWED)


@pytest.mark.parametrize(("make", "found"), MADE.values(), ids=MADE)
def test_a_file_cut_off_after_any_byte_is_of_its_type_or_of_none(make: Callable[[], bytes], found: MediaType) -> None:
    head = make()[:64]

    assert {sniff.sniff(head[:size]) for size in range(len(head))} <= {None, found}


@pytest.mark.parametrize("found", ALLOWED, ids=lambda found: found.content_type)
def test_every_usual_name_of_a_type_is_accepted(found: MediaType) -> None:
    for extension in found.extensions:
        sniff.check_name(found, filename=f"x.{extension}", declared=None)
        sniff.check_name(found, filename=f"x.{extension.upper()}", declared=found.content_type)
    for declared in (found.content_type, *found.aliases):
        sniff.check_name(found, filename="x", declared=declared)
        sniff.check_name(found, filename="x", declared=f" {declared.upper()}; charset=utf-8")


@pytest.mark.parametrize("declared", [None, "", "application/octet-stream", "binary/octet-stream", " ;x"])
@pytest.mark.parametrize("filename", ["x", "x.", ".x", "holiday.2024", "x.data", "x.jpg.bak"])
def test_a_name_that_says_nothing_contradicts_nothing(filename: str, declared: str | None) -> None:
    sniff.check_name(sniff.JPEG, filename=filename, declared=declared)


@pytest.mark.parametrize(
    ("found", "filename", "declared"),
    [
        (sniff.MOV, "x.mp4", "video/mp4"),
        (sniff.MP4, "x.mov", "video/quicktime"),
        (sniff.MP4, "x.m4v", "video/x-m4v"),
        (sniff.MKV, "x.webm", "video/webm"),
        (sniff.WEBM, "x.mkv", "video/x-matroska"),
        (sniff.M4A, "x.mp4", "video/mp4"),
        (sniff.TS, "x.m2ts", "video/mp2t"),
        (sniff.WEBM_AUDIO, "x.webm", "audio/webm"),
        (sniff.WEBM_AUDIO, "x.webm", "video/webm"),
        (sniff.OGG, "x.opus", "audio/opus"),
    ],
)
def test_a_container_may_go_by_the_name_of_its_relatives(found: MediaType, filename: str, declared: str) -> None:
    sniff.check_name(found, filename=filename, declared=declared)


@pytest.mark.parametrize(
    ("found", "filename"),
    [
        (sniff.PNG, "x.jpg"),
        (sniff.JPEG, "x.png"),
        (sniff.JPEG, "X.PNG"),
        (sniff.JPEG, "x.mp4"),
        (sniff.MP4, "x.jpg"),
        (sniff.MP4, "x.webm"),
        (sniff.MP4, "x.m4a"),
        (sniff.MOV, "x.m4a"),
        (sniff.WEBM, "x.weba"),
        (sniff.AVI, "x.mp4"),
        (sniff.MP4, "x.ts"),
        (sniff.TS, "x.mp4"),
        (sniff.AVIF, "x.mp4"),
        (sniff.MP3, "x.wav"),
        (sniff.WAV, "x.mp3"),
        (sniff.WAV, "x.avi"),
        (sniff.PDF, "x.jpg"),
        (sniff.JPEG, "x.pdf"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.content_type,
)
def test_an_extension_of_another_type_is_refused(found: MediaType, filename: str) -> None:
    with pytest.raises(TypeMismatchError, match=f"{filename}.* its bytes are {found.content_type}"):
        sniff.check_name(found, filename=filename, declared=None)


@pytest.mark.parametrize(
    ("found", "declared"),
    [
        (sniff.PNG, "image/jpeg"),
        (sniff.JPEG, "image/svg+xml"),
        (sniff.JPEG, "text/html"),
        (sniff.JPEG, "text/html; charset=utf-8"),
        (sniff.JPEG, "image/*"),
        (sniff.JPEG, "image"),
        (sniff.JPEG, "nonsense"),
        (sniff.MP4, "audio/mp4"),
        (sniff.WEBM, "audio/webm"),
        (sniff.MP3, "video/mp4"),
        (sniff.PDF, "image/png"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.content_type,
)
def test_a_declared_type_that_is_another_is_refused(found: MediaType, declared: str) -> None:
    with pytest.raises(TypeMismatchError, match=f"was declared as .*; its bytes are {found.content_type}"):
        sniff.check_name(found, filename="x", declared=declared)


def test_no_two_types_share_a_name() -> None:
    content_types = [name for kind in ALLOWED for name in (kind.content_type, *kind.aliases)]
    extensions = [extension for kind in ALLOWED for extension in kind.extensions]

    assert len(set(content_types)) == len(content_types)
    assert len(set(extensions)) == len(extensions)
    assert {kind.kind for kind in ALLOWED} == set(MediaKind)
