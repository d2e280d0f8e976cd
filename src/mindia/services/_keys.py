"""Where the bytes of an item are within its tenant's bucket."""

from __future__ import annotations

from uuid import UUID

_OURS = ("originals", "derived", "uploads")


def original_key(media_id: UUID) -> str:
    """Return the key of the bytes as they were handed in."""
    return f"originals/{media_id}"


def derived_prefix(media_id: UUID) -> str:
    """Return the prefix of all that was made of them."""
    return f"derived/{media_id}/"


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
    named = rest.partition("/")[0]
    if area not in _OURS or len(named) != 36:  # of the many ways in which an id can be written, ours is one
        return None
    try:
        found = UUID(named)
    except ValueError:
        return None
    return found if str(found) == named else None
