"""Where the bytes of an item are within its tenant's bucket."""

from __future__ import annotations

from uuid import UUID

_OURS = ("originals", "derived", "uploads")
_TYPES = {
    "m3u8": "application/vnd.apple.mpegurl",
    "ts": "video/mp2t",
    "m4s": "video/iso.segment",
    "mp4": "video/mp4",
    "vtt": "text/vtt",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
}


def original_key(media_id: UUID) -> str:
    """Return the key of the bytes as they were handed in."""
    return f"originals/{media_id}"


def derived_prefix(source_id: UUID) -> str:
    """Return the prefix of all that was made of bytes."""
    return f"derived/{source_id}/"


def derivative_prefix(source_id: UUID, derivative_id: UUID) -> str:
    """Return the prefix of one thing that was made of bytes."""
    return f"{derived_prefix(source_id)}{derivative_id}/"


def upload_prefix(upload_id: UUID) -> str:
    """Return the prefix of what a client has uploaded and nobody has looked at yet."""
    return f"uploads/{upload_id}/"


def upload_key(upload_id: UUID) -> str:
    """Return the key of an upload that comes in one piece, or is put together by the object store."""
    return f"{upload_prefix(upload_id)}whole"


def upload_part_key(upload_id: UUID, number: int) -> str:
    """Return the key of a part of an upload, where we put it together ourselves."""
    return f"{upload_prefix(upload_id)}part-{number:05}"


def id_in(key: str) -> UUID | None:
    """Return the id in a key that is one of ours, or None."""
    area, _, rest = key.partition("/")
    return _id(rest.partition("/")[0]) if area in _OURS else None


def type_of_derived(key: str) -> str:
    """Return the MIME type of an object that was made of others, by the end of its key."""
    return _TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def derivative_id_in(key: str) -> UUID | None:
    """Return the id of what was made of bytes in a key of its objects, or None."""
    area, *_, named = key.split("/", 3)[:3]
    return _id(named) if area == "derived" else None


def transcode_key(source_id: UUID, *, again: bool = False) -> str:
    """Return the key of the task that encodes a video: there is one at a time for the same bytes."""
    return f"video_transcode {source_id}{' again' if again else ''}"


def source_in_transcode_key(key: str) -> UUID | None:
    """Return what names the bytes in the key of such a task, or None."""
    kind, _, rest = key.partition(" ")
    return _id(rest.removesuffix(" again")) if kind == "video_transcode" else None


def _id(named: str) -> UUID | None:
    if len(named) != 36:  # of the many ways in which an id can be written, ours is one
        return None
    try:
        found = UUID(named)
    except ValueError:
        return None
    return found if str(found) == named else None
