"""Files that are two things at once, or something else than their name says."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from functools import partial

from tests.corpus.containers import box, mp4
from tests.corpus.formats import chunk, id3, id3_frame, in_jpeg, jpeg_segment, png, png_chunk
from tests.corpus.hostile import CORRUPT, UNSUPPORTED, Canary, HostileFile, either, harmless, refused

from mindia.errors import EmptyFileError, MediaError, TypeMismatchError
from mindia.testing import samples

_SCRIPT = b"<html><body><script>alert(document.cookie)</script></body></html>"
_PHP = b"<?php system($_GET['c']); __HALT_COMPILER(); ?>"
_MISMATCH: tuple[type[MediaError], ...] = (TypeMismatchError,)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF"), b"Main-Class: Evil\n")
    return buffer.getvalue()


def _gif_script() -> bytes:
    """Its width is `/*`, and what follows it is behind the end of the comment."""
    content = samples.image("GIF")
    return content[:6] + b"/*" + content[8:] + b"*/=1;alert(document.cookie)//"


def _playlist(source: str) -> bytes:
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%b\n#EXT-X-ENDLIST\n" % source.encode()


def _everywhere(canary: Canary, line: str) -> bytes:
    """A line for each way to write where the canary is."""
    return "\n".join(line.format(source) for source in canary.sources).encode()


def _svg(canary: Canary) -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">%b</svg>' % _everywhere(
        canary, '<image href="{}" width="9" height="9"/>'
    )


def _dash(canary: Canary) -> bytes:
    return b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>%b</Period></MPD>' % _everywhere(
        canary, "<BaseURL>{}</BaseURL>"
    )


def _concat(canary: Canary) -> bytes:
    return b"ffconcat version 1.0\n" + _everywhere(canary, "file '{}'")


def _session(canary: Canary) -> bytes:
    return b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video %d RTP/AVP 96\n" % canary.port


def _wave_of_another_file() -> bytes:
    """A list of waves that is none of those that are allowed."""
    return b"RIFF" + struct.pack("<I", 100) + b"RMID" + bytes(100)


def _playlists() -> dict[str, HostileFile]:
    """A playlist for each way to write where the canary is, under the names of types that are allowed."""
    ways = ("a path", "a file", "a file by URL", "a page", "a connection")
    return {
        f"playlist of {way} called {name}": refused(f"x.{name}", partial(_playlist_of, number), UNSUPPORTED)
        for number, way in enumerate(ways)
        for name in ("mp4", "ts", "jpg")
    }


def _playlist_of(number: int, canary: Canary) -> bytes:
    return _playlist(canary.sources[number])


OTHERS: dict[str, HostileFile] = {
    "nothing": refused("x.jpg", lambda _: b"", (EmptyFileError,)),
    "one byte": refused("x.jpg", lambda _: b"\xff", UNSUPPORTED),
    "the first bytes of a JPEG and no more": refused("x.jpg", lambda _: b"\xff\xd8\xff", CORRUPT),
    "the first bytes of a PNG and no more": refused("x.png", lambda _: b"\x89PNG\r\n\x1a\n", CORRUPT),
    "the first bytes of a GIF and no more": refused("x.gif", lambda _: b"GIF89a", CORRUPT),
    "the first bytes of an MP3 and no more": refused("x.mp3", lambda _: b"ID3", CORRUPT),
    "zeros": refused("x.mp4", lambda _: bytes(2_000_000), UNSUPPORTED),
    "noise": refused("x.mp4", lambda _: b"\0" + random.Random(1).randbytes(2_000_000), UNSUPPORTED),
    "program": refused("x.jpg", lambda _: b"\x7fELF\2\1\1" + bytes(500), UNSUPPORTED),
    "archive": refused("x.pdf", lambda _: _zip(), UNSUPPORTED),
    "shell script": refused("x.jpg", lambda c: b"#!/bin/sh\ncat %b\n" % str(c.path).encode(), UNSUPPORTED),
    "HTML called MP4": refused("x.mp4", lambda _: _SCRIPT, UNSUPPORTED),
    "HTML called JPEG": refused("x.jpg", lambda _: _SCRIPT, UNSUPPORTED),
    "HTML called TS": refused("x.ts", lambda _: _SCRIPT, UNSUPPORTED),
    "SVG": refused("x.svg", _svg, UNSUPPORTED),
    "SVG called MP4": refused("x.mp4", _svg, UNSUPPORTED),
    "SVG called JPEG": refused("x.jpg", _svg, UNSUPPORTED),
    "DASH called MP4": refused("x.mp4", _dash, UNSUPPORTED),
    "list of files called MP4": refused("x.mp4", _concat, UNSUPPORTED),
    "list of files called TS": refused("x.ts", _concat, UNSUPPORTED),
    "session called MP4": refused("x.mp4", _session, UNSUPPORTED),
    **_playlists(),
    "playlist behind the beginning of an MP4": refused(
        "x.mp4", lambda c: box(b"ftyp", b"isom", bytes(4), b"isom") + _playlist(c.url) * 50, CORRUPT
    ),
    "playlist behind the beginning of an MP3": refused(
        "x.mp3", lambda c: id3(id3_frame(b"TIT2", b"\3a")) + _playlist(c.url) * 50, CORRUPT
    ),
    "playlist behind the beginning of an AVI": refused(
        "x.avi", lambda c: b"RIFF\xff\0\0\0AVI " + _playlist(c.url) * 50, CORRUPT
    ),
    "GIF that is a script": either("x.gif", "image/gif", lambda _: _gif_script()),
    "GIF with a page behind it": harmless("x.gif", "image/gif", lambda _: samples.image("GIF") + _SCRIPT),
    "JPEG with an archive behind it": harmless("x.jpg", "image/jpeg", lambda _: samples.image() + _zip()),
    "JPEG with a program in its comment": harmless(
        "x.jpg", "image/jpeg", lambda _: in_jpeg(samples.image(), jpeg_segment(0xFE, _PHP))
    ),
    "JPEG with a document behind it": harmless("x.jpg", "image/jpeg", lambda _: samples.image() + samples.pdf()),
    "PNG with a program in its text": harmless(
        "x.png", "image/png", lambda _: png(8, 8, png_chunk(b"tEXt", b"Comment\0" + _PHP))
    ),
    "PNG with a program in its pixels": harmless(
        "x.png", "image/png", lambda _: png(16, 1, data=b"\0" + (_PHP * 2)[:48])
    ),
    "WEBP with a page in a chunk": harmless(
        "x.webp", "image/webp", lambda _: (lambda c: c + chunk(b"html", _SCRIPT))(samples.image("WEBP"))
    ),
    "PDF with a page behind it": harmless("x.pdf", "application/pdf", lambda _: samples.pdf() + _SCRIPT),
    "PDF with a page in front of its objects": harmless(
        "x.pdf", "application/pdf", lambda _: samples.pdf().replace(b"%PDF-1.4\n", b"%PDF-1.4\n%" + _SCRIPT + b"\n")
    ),
    "PDF with an archive behind it": harmless("x.pdf", "application/pdf", lambda _: samples.pdf() + _zip()),
    "document behind noise": refused("x.pdf", lambda _: b"noise" * 100 + samples.pdf(), UNSUPPORTED),
    "document that is a page as well": refused("x.pdf", lambda _: b"<!--" + samples.pdf() + b"-->", UNSUPPORTED),
    "MP4 with a page in front": harmless(
        "x.mp4", "video/mp4", lambda _: mp4([samples.image()] * 3, front=box(b"free", _SCRIPT))
    ),
    "MP3 with a page in its tag": either(
        "x.mp3", "audio/mpeg", lambda _: id3(id3_frame(b"TIT2", b"\3" + _SCRIPT)) + samples.audio(seconds=0.2)[45:]
    ),
    "WAV of another kind": refused("x.wav", lambda _: _wave_of_another_file(), UNSUPPORTED),
    "PNG called JPEG": refused("x.jpg", lambda _: samples.image("PNG"), _MISMATCH),
    "JPEG called MP4": refused("x.mp4", lambda _: samples.image(), _MISMATCH),
    "PDF called PNG": refused("x.png", lambda _: samples.pdf(), _MISMATCH),
    "MP4 called MP3": refused("x.mp3", lambda _: mp4([samples.image()] * 3), _MISMATCH),
    "WAV called PDF": refused("x.pdf", lambda _: samples.wav(seconds=0.1), _MISMATCH),
    "MP4 of an unknown brand": refused("x.mp4", lambda _: mp4([samples.image()] * 3, brand=b"evil"), UNSUPPORTED),
    "PDF with a script and a page of text": harmless(
        "x.pdf",
        "application/pdf",
        lambda _: samples.pdf().replace(b"/Type /Catalog", b"/Type /Catalog /OpenAction << /S /JavaScript /JS (a) >>"),
    ),
}
