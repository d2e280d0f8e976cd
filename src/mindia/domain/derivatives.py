"""What was made of an item: `library.media.derive`, thumbnails, streaming forms."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs

STREAM = "hls"
"""What is said of a stream in place of operations."""


@attrs.frozen(kw_only=True)
class Derivative:
    """An object that was made of the bytes of an item, or several that belong together.

    Items that share their bytes share what was made of them.

    Attributes:
        id: UUIDv7.
        tenant_id: Whose it is.
        source_id: Names the bytes that it was made of: the id of the item that they were added with.
        operations: What was done with them, in the form of a text.
        s3_key: Where it is within the tenant's bucket; of several objects, where to begin.
        s3_prefix: Where all of its objects are; None where it is a single one.
        content_type: MIME type of what is under `s3_key`.
        file_size: In bytes, of all objects together.
        file_count: How many objects there are.
        sha256: Hash of the bytes as 64 hexadecimal digits; None where there are several objects.
        width: In pixels, or None.
        height: In pixels, or None.
        created_at: In UTC.
        media_id: The item that it was asked for; None where it was looked for without one.
    """

    id: UUID
    tenant_id: UUID
    source_id: UUID
    operations: str
    s3_key: str = attrs.field(repr=False)
    s3_prefix: str | None = attrs.field(default=None, repr=False)
    content_type: str
    file_size: int
    file_count: int = 1
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    created_at: datetime
    media_id: UUID | None = attrs.field(default=None, eq=False)


@attrs.frozen(kw_only=True)
class PurgeDerivatives:
    """Payload of the task that removes pictures that were made of items.

    Attributes:
        media_id: Of which item, or None for all.
    """

    media_id: UUID | None = None


@attrs.frozen(kw_only=True)
class RegenerateDerivatives:
    """Payload of the task that makes pictures anew that were made of items.

    Attributes:
        media_id: Of which item, or None for all.
    """

    media_id: UUID | None = None
