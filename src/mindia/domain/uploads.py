"""Uploads that clients make by themselves, as users see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import attrs


@attrs.frozen(kw_only=True)
class UploadPart:
    """A part of an upload, and where it goes: by PUT, as it is.

    Attributes:
        number: From 1 on.
        start: The first byte of it in the file.
        size: How many bytes it has, exactly.
        url: Where it goes; None once it is there, or the upload has ended. Whoever has it may put the part.
        is_received: Whether it is there.
    """

    number: int
    start: int
    size: int
    url: str | None = attrs.field(repr=False)
    is_received: bool


@attrs.frozen(kw_only=True)
class Upload:
    """A file on its way from a client, past the host, to where the bytes are kept.

    It comes in one piece, by a form with `url` and `fields`, or in `parts`.

    Attributes:
        id: UUIDv7. The host keeps it, to complete or abort the upload later.
        tenant_id: Whose it is.
        filename: Cleaned.
        content_type: As it was declared, or None.
        max_bytes: How many bytes it may have.
        file_size: How many it will have; None where that was not said.
        url: Where the form goes, by POST as `multipart/form-data`; None where it comes in parts, or the upload has
            ended. Whoever has url and fields may put the file.
        fields: Of the form, in their order, each as it is; the field `file` comes last.
        parts: All of them, in their order; none where it comes in one piece.
        expires_at: Until when bytes are taken, and the upload can be completed, in UTC.
        received_bytes: How many bytes are there, as far as whole parts, or the whole, are.
        is_open: Whether it can still be completed.
        staged_id: What was staged of it; None where it was not completed.
    """

    id: UUID
    tenant_id: UUID
    filename: str
    content_type: str | None
    max_bytes: int
    file_size: int | None
    url: str | None = attrs.field(repr=False)
    fields: Mapping[str, str] = attrs.field(factory=dict, repr=False, hash=False)
    parts: tuple[UploadPart, ...] = attrs.field(default=(), repr=False)
    expires_at: datetime
    received_bytes: int = 0
    is_open: bool = True
    staged_id: UUID | None = None
