"""Types from the bytes."""

from __future__ import annotations

import attrs

from mindia.domain.media import MediaKind
from mindia.errors import TypeMismatchError, UnsupportedTypeError
from mindia.media.names import extension_of

HEAD_BYTES = 4096
"""How much of the beginning is needed to tell the type."""


@attrs.frozen(kw_only=True)
class MediaType:
    """An allowed type.

    Attributes:
        content_type: MIME type.
        kind: Which kind of media it is.
        extensions: The filename extensions that may stand for it; the first is the usual one.
        parser: The one format that the parser of this kind is held to: of Pillow, or a demuxer of FFmpeg.
        aliases: Other names of the type that clients declare.
    """

    content_type: str
    kind: MediaKind
    extensions: tuple[str, ...]
    parser: str
    aliases: tuple[str, ...] = ()


_IMAGE, _VIDEO, _AUDIO, _DOCUMENT = MediaKind

JPEG = MediaType(
    content_type="image/jpeg", kind=_IMAGE, extensions=("jpg", "jpeg", "jpe", "jfif"), parser="JPEG",
    aliases=("image/jpg", "image/pjpeg"),
)  # fmt: skip
PNG = MediaType(
    content_type="image/png", kind=_IMAGE, extensions=("png", "apng"), parser="PNG",
    aliases=("image/apng", "image/x-png"),
)  # fmt: skip
GIF = MediaType(content_type="image/gif", kind=_IMAGE, extensions=("gif",), parser="GIF")
WEBP = MediaType(content_type="image/webp", kind=_IMAGE, extensions=("webp",), parser="WEBP")
AVIF = MediaType(content_type="image/avif", kind=_IMAGE, extensions=("avif",), parser="AVIF")
MP4 = MediaType(
    content_type="video/mp4", kind=_VIDEO, extensions=("mp4", "m4v"), parser="mov", aliases=("video/x-m4v",)
)
MOV = MediaType(content_type="video/quicktime", kind=_VIDEO, extensions=("mov", "qt"), parser="mov")
AVI = MediaType(
    content_type="video/x-msvideo",
    kind=_VIDEO,
    extensions=("avi",),
    parser="avi",
    aliases=("video/avi", "video/msvideo"),
)
WEBM = MediaType(content_type="video/webm", kind=_VIDEO, extensions=("webm",), parser="matroska")
MKV = MediaType(
    content_type="video/x-matroska", kind=_VIDEO, extensions=("mkv",), parser="matroska", aliases=("video/matroska",)
)
MP3 = MediaType(
    content_type="audio/mpeg", kind=_AUDIO, extensions=("mp3",), parser="mp3", aliases=("audio/mp3", "audio/x-mpeg")
)
M4A = MediaType(
    content_type="audio/mp4", kind=_AUDIO, extensions=("m4a", "m4b"), parser="mov", aliases=("audio/m4a", "audio/x-m4a")
)
WAV = MediaType(
    content_type="audio/wav", kind=_AUDIO, extensions=("wav", "wave"), parser="wav",
    aliases=("audio/x-wav", "audio/wave", "audio/vnd.wave"),
)  # fmt: skip
FLAC = MediaType(content_type="audio/flac", kind=_AUDIO, extensions=("flac",), parser="flac", aliases=("audio/x-flac",))
OGG = MediaType(
    content_type="audio/ogg", kind=_AUDIO, extensions=("ogg", "oga", "opus"), parser="ogg",
    aliases=("application/ogg", "audio/opus", "audio/vorbis"),
)  # fmt: skip
WEBM_AUDIO = MediaType(content_type="audio/webm", kind=_AUDIO, extensions=("weba",), parser="matroska")
MKA = MediaType(
    content_type="audio/x-matroska", kind=_AUDIO, extensions=("mka",), parser="matroska", aliases=("audio/matroska",)
)
PDF = MediaType(content_type="application/pdf", kind=_DOCUMENT, extensions=("pdf",), parser="pdf")

ALLOWED = (JPEG, PNG, GIF, WEBP, AVIF, MP4, MOV, AVI, WEBM, MKV, MP3, M4A, WAV, FLAC, OGG, WEBM_AUDIO, MKA, PDF)

SOUND_ONLY = {MP4: M4A, MOV: M4A, WEBM: WEBM_AUDIO, MKV: MKA}
"""What a container of video is where the parser finds nothing but sound in it; the first bytes do not tell."""

_AVIF_BRANDS = {b"avif", b"avis"}
_M4A_BRANDS = {b"M4A ", b"M4B "}
_MP4_BRANDS = {
    b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71", b"avc1",
    b"M4V ", b"M4VH", b"M4VP", b"dash", b"msnv", b"MSNV", b"f4v ", b"XAVC", b"3gp4", b"3gp5", b"3gp6",
}  # fmt: skip

_UNDECLARED = ("", "application/octet-stream", "binary/octet-stream")


def sniff(head: bytes) -> MediaType | None:
    """Tell the type from the first bytes, or None where it is none of the allowed ones.

    Args:
        head: The first `HEAD_BYTES` bytes, or all where there are fewer.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"%PDF-"):
        return PDF
    if head.startswith(b"fLaC"):
        return FLAC
    if head.startswith(b"OggS"):
        return OGG
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska(head)
    if head.startswith((b"RIFF", b"RF64")):
        return {b"WEBP": WEBP, b"AVI ": AVI, b"WAVE": WAV}.get(head[8:12])
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _iso_media(head)
    if head.startswith(b"ID3") or _is_mpeg_audio(head):
        return MP3
    return None


def check_name(found: MediaType, *, filename: str, declared: str | None) -> None:
    """Refuse a name or a declared type that contradicts the bytes; saying nothing is fine.

    Raises:
        TypeMismatchError: The extension or the declared type is that of another type.
    """
    extension = extension_of(filename)
    claimed = next((kind for kind in ALLOWED if extension in kind.extensions), None)
    if claimed is not None and not _may_be_called(found, claimed):
        raise TypeMismatchError(f"{filename!r} is not {claimed.content_type}: its bytes are {found.content_type}")
    plain = (declared or "").partition(";")[0].strip().lower()
    if plain in _UNDECLARED:
        return
    named = next((kind for kind in ALLOWED if plain == kind.content_type or plain in kind.aliases), None)
    if named is None or not _may_be_called(found, named):
        raise TypeMismatchError(f"{filename!r} was declared as {plain!r}; its bytes are {found.content_type}")


def require(head: bytes, *, filename: str) -> MediaType:
    """Return the type of the bytes.

    Raises:
        UnsupportedTypeError: It is none of the allowed ones.
    """
    found = sniff(head)
    if found is None:
        names = ", ".join(kind.extensions[0] for kind in ALLOWED)
        raise UnsupportedTypeError(
            f"{filename!r} begins with {head[:12]!r}, which is none of the allowed types: {names}"
        )
    return found


def _may_be_called(found: MediaType, other: MediaType) -> bool:
    """Tell whether writers of a type commonly use the name of the other: of the same container, but sound is no video.

    So `.mp4` may be QuickTime, and may hold nothing but sound; `.m4a` may not hold pictures.
    """
    return found.parser == other.parser and not (found.kind is _VIDEO and other.kind is _AUDIO)


def _iso_media(head: bytes) -> MediaType | None:
    if head[4:8] != b"ftyp":
        return MOV  # QuickTime before there were brands
    size = int.from_bytes(head[:4])
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))}
    if brands & _AVIF_BRANDS:
        return AVIF
    if head[8:12] in _M4A_BRANDS:
        return M4A
    if head[8:12] == b"qt  ":
        return MOV
    return MP4 if brands & _MP4_BRANDS else None


def _matroska(head: bytes) -> MediaType | None:
    # The DocType element, EBML id 0x4282, stands in the header with a one-byte length.
    at = head.find(b"\x42\x82", 0, 128)
    length = head[at + 2] & 0x7F if 0 <= at < len(head) - 2 else 0
    return {b"webm": WEBM, b"matroska": MKV}.get(head[at + 3 : at + 3 + length].rstrip(b"\0"))


def _is_mpeg_audio(head: bytes) -> bool:
    """Tell whether there is a frame header of MPEG audio layer III (ISO/IEC 11172-3, 2.4.2.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    version, bitrate, sample_rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and bitrate not in (0, 15) and sample_rate != 3
