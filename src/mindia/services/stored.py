"""Bytes that can be read: of an item, or of what was made of one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import attrs

from mindia.domain.derivatives import Derivative
from mindia.domain.media import Media
from mindia.domain.transformations import ImageFormat
from mindia.errors import InvalidError

_EXTENSIONS = {form.content_type: form.extension for form in ImageFormat}


@attrs.frozen(kw_only=True)
class StoredFile:
    """An object in the store, with what whoever reads it wants to know.

    Attributes:
        media: The item that it is of, or was made of.
        operations: What was done with that, or None for the item itself.
        filename: Its name.
        content_type: MIME type.
        file_size: In bytes.
        sha256: Hash of the bytes.
        s3_key: Where it is.
        stored_at: When it was recorded, in UTC.
    """

    media: Media
    operations: str | None
    filename: str
    content_type: str
    file_size: int
    sha256: str
    s3_key: str
    stored_at: datetime

    @property
    def id(self) -> UUID:
        """The id of the item."""
        return self.media.id

    @classmethod
    def of_item(cls, item: Media) -> StoredFile:
        """Return that of an item."""
        return cls(
            media=item,
            operations=None,
            filename=item.filename,
            content_type=item.content_type,
            file_size=item.file_size,
            sha256=item.sha256,
            s3_key=item.s3_key,
            stored_at=item.uploaded_at,
        )

    @classmethod
    def of_derivative(cls, item: Media, derivative: Derivative) -> StoredFile:
        """Return that of what was made of an item.

        Raises:
            InvalidError: That is several objects.
        """
        if derivative.s3_prefix is not None or derivative.sha256 is None:
            raise InvalidError(f"what was made by {derivative.operations!r} is several objects, not one that is read")
        stem = item.filename.rpartition(".")[0] or item.filename
        extension = _EXTENSIONS.get(derivative.content_type, "bin")
        return cls(
            media=item,
            operations=derivative.operations,
            filename=f"{stem}.{extension}",
            content_type=derivative.content_type,
            file_size=derivative.file_size,
            sha256=derivative.sha256,
            s3_key=derivative.s3_key,
            stored_at=derivative.created_at,
        )
