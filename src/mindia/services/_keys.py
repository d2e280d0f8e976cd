"""Where the bytes of an item are within its tenant's bucket."""

from __future__ import annotations

from uuid import UUID


def original_key(media_id: UUID) -> str:
    """Return the key of the bytes as they were handed in."""
    return f"originals/{media_id}"


def derived_prefix(media_id: UUID) -> str:
    """Return the prefix of all that was made of them."""
    return f"derived/{media_id}/"
