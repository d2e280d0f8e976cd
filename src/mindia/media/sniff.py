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
TS = MediaType(
    content_type="video/mp2t", kind=_VIDEO, extensions=("ts", "m2ts", "mts"), parser="mpegts",
    aliases=("video/m2ts", "video/vnd.dlna.mpeg-tts"),
)  # fmt: skip
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

ALLOWED = (JPEG, PNG, GIF, WEBP, AVIF, MP4, MOV, AVI, WEBM, MKV, TS, MP3, M4A, WAV, FLAC, OGG, WEBM_AUDIO, MKA, PDF)

SOUND_ONLY = {MP4: M4A, MOV: M4A, WEBM: WEBM_AUDIO, MKV: MKA}
"""What a container of video is where the parser finds nothing but sound in it; the first bytes do not tell."""

_MP4_BRANDS = (
    b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"iso7", b"iso8", b"iso9", b"mp41", b"mp42", b"mp71", b"avc1",
    b"M4V ", b"M4VH", b"M4VP", b"dash", b"msnv", b"MSNV", b"f4v ", b"XAVC", b"3gp4", b"3gp5", b"3gp6",
)  # fmt: skip
_BRANDS = {
    b"avif": AVIF, b"avis": AVIF, b"M4A ": M4A, b"M4B ": M4A, b"qt  ": MOV, **dict.fromkeys(_MP4_BRANDS, MP4)
}  # fmt: skip
_HEIF_BRANDS = {b"mif1", b"msf1"}
"""Of pictures that may be coded in any way (ISO/IEC 23008-12, 10)."""
_OTHER_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"jp2 ", b"jpx ", b"jpm ", b"mjp2", b"crx ",
    b"aax ", b"aaxc", b"odcf",
}  # fmt: skip
"""Of files that name allowed brands beside: HEIF coded as HEVC, JPEG 2000, raw images of Canon, sound with a lock."""

_EBML, _DOC_TYPE = b"\x1a\x45\xdf\xa3", b"\x42\x82"
"""Element ids of the header and of the type in it (RFC 8794, 11.2)."""

_TS_PACKETS = ((188, 0), (192, 4))
"""Sizes of packets, and where the first one begins: of ISO/IEC 13818-1, 2.4.3.2, and of Blu-ray, with a time before."""
_MIN_TS_PACKETS = 3

_COUSINS = {("audio/mp4", "video/mp4"), ("image/avif", "video/mp4")}
"""What is found and what `filetype` says of the same bytes where it looks at other brands of them than the first."""

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
    if head.startswith(_EBML):
        return {b"webm": WEBM, b"matroska": MKV}.get(_doc_type(head))
    if head.startswith(b"RIFF"):
        return {b"WEBP": WEBP, b"AVI ": AVI, b"WAVE": WAV}.get(head[8:12])
    if head.startswith(b"RF64"):
        return WAV if head[8:12] == b"WAVE" else None  # EBU Tech 3306
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _iso_media(head)
    if _ts_start(head) is not None:
        return TS
    return MP3 if head.startswith(b"ID3") or _is_mpeg_audio(head) else None


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
        raise TypeMismatchError(f"{filename!r} was declared as {plain[:100]!r}; its bytes are {found.content_type}")


def of_claims(filename: str, declared: str | None) -> MediaType | None:
    """Return the type that bytes are said to be of by those who have not looked at them, or None where they do not say.

    Raises:
        UnsupportedTypeError: The declared type is none of the allowed ones.
        TypeMismatchError: The extension is that of another type.
    """
    plain = (declared or "").partition(";")[0].strip().lower()
    if plain in _UNDECLARED:
        extension = extension_of(filename)
        return next((kind for kind in ALLOWED if extension in kind.extensions), None)
    named = next((kind for kind in ALLOWED if plain == kind.content_type or plain in kind.aliases), None)
    if named is None:
        names = ", ".join(kind.content_type for kind in ALLOWED)
        raise UnsupportedTypeError(f"{filename!r} is declared as {plain[:100]!r}; the allowed types are: {names}")
    check_name(named, filename=filename, declared=None)
    return named


def of_content_type(content_type: str) -> MediaType:
    """Return the allowed type of that name, as items have it."""
    return next(kind for kind in ALLOWED if kind.content_type == content_type)


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


def check_other_opinion(head: bytes, found: MediaType, *, filename: str) -> None:
    """Refuse bytes which the package `filetype` takes for something of another kind.

    Raises:
        TypeMismatchError: It does.
    """
    import filetype  # takes longer than the rest of this module

    # What precedes the packets of Blu-ray is a time, and may be any bytes.
    start = _ts_start(head) or 0 if found is TS else 0
    other = filetype.guess_mime(head[start:])
    if other is None or other.partition("/")[0] == found.content_type.partition("/")[0]:
        return
    if (found.content_type, other) not in _COUSINS:
        raise TypeMismatchError(f"{filename!r} begins as {found.content_type}, but looks like {other}")


def _may_be_called(found: MediaType, other: MediaType) -> bool:
    """Tell whether writers of a type commonly use the name of the other: of the same container, but sound is no video.

    So `.mp4` may be QuickTime, and may hold nothing but sound; `.m4a` may not hold pictures.
    """
    return found.parser == other.parser and not (found.kind is _VIDEO and other.kind is _AUDIO)


def _iso_media(head: bytes) -> MediaType | None:
    if head[4:8] != b"ftyp":
        return MOV  # QuickTime before there were brands
    # The major brand decides; one that is not known leaves it to those that it goes with.
    major = head[8:12]
    if major in _BRANDS:
        return _BRANDS[major]
    others = [head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4]), len(head)), 4)]
    if any(brand in _OTHER_BRANDS for brand in (major, *others)):
        return None
    if major in _HEIF_BRANDS:
        return AVIF if AVIF in map(_BRANDS.get, others) else None
    return next((_BRANDS[brand] for brand in others if brand in _BRANDS), None)


def _doc_type(head: bytes) -> bytes:
    """Return the type that the header of an EBML file names, or nothing."""
    size, at = _ebml_size(head, len(_EBML))
    end = min(at + size, len(head))
    while at < end:
        width = 9 - head[at].bit_length()  # of the id: leading zeros and the bit that ends them
        element, (size, start) = head[at : at + width], _ebml_size(head, at + width)
        if element == _DOC_TYPE:
            return head[start : start + size].rstrip(b"\0")
        at = start + size
    return b""


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """Return the size that is written at a place, and where it ends (RFC 8794, 4): as wide as the first bit tells."""
    first = head[at] if at < len(head) else 0
    width = 9 - first.bit_length()
    return int.from_bytes(head[at : at + width]) & ~(1 << 7 * width), at + width


def _ts_start(head: bytes) -> int | None:
    """Return where the first packet of an MPEG transport stream begins, or None where the bytes are none."""
    for size, start in _TS_PACKETS:
        syncs = head[start::size]
        if len(syncs) >= _MIN_TS_PACKETS and not syncs.strip(b"\x47"):
            return start
    return None


def _is_mpeg_audio(head: bytes) -> bool:
    """Tell whether there is a frame header of MPEG audio layer III (ISO/IEC 11172-3, 2.4.2.3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    version, bitrate, sample_rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and bitrate not in (0, 15) and sample_rate != 3
