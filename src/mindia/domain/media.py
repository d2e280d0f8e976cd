"""Media items, as users see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import overload
from uuid import UUID

import attrs

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Metadata = Mapping[str, JsonValue]


class MediaKind(StrEnum):
    """The four kinds of media."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"


class ProcessingStatus(StrEnum):
    """How far the streaming form of a video has come."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class _Media:
    """What all kinds have in common.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose it is.
        filename: Cleaned: no path, no control characters, at most 255 characters.
        original_filename: As it was handed in, at most 255 characters.
        content_type: MIME type, found from the bytes.
        file_size: In bytes.
        sha256: Hash of the bytes, as 64 hexadecimal digits.
        s3_key: Where the bytes are within the tenant's bucket.
        metadata: The host's own values.
        uploaded_at: When the row was written, in UTC.
        updated_at: When the row was last changed, in UTC.
        expires_at: From when on it is not found any more, or None.
    """

    id: UUID
    tenant_id: UUID
    filename: str
    original_filename: str
    content_type: str
    file_size: int
    sha256: str
    s3_key: str = attrs.field(repr=False)
    metadata: Metadata = attrs.field(factory=dict, hash=False)
    uploaded_at: datetime
    updated_at: datetime = attrs.field(repr=False)
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Image(_Media):
    """A still or animated picture.

    Attributes:
        width: In pixels, as displayed.
        height: In pixels, as displayed.
    """

    width: int
    height: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.IMAGE`."""
        return MediaKind.IMAGE


@attrs.frozen(kw_only=True)
class Video(_Media):
    """A moving picture.

    Attributes:
        duration: In seconds.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        processing_status: How far the streaming form has come.
        hls_master_key: Where the master playlist is within the tenant's bucket, or None.
    """

    duration: float
    width: int
    height: int
    processing_status: ProcessingStatus
    hls_master_key: str | None = None

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.VIDEO`."""
        return MediaKind.VIDEO


@attrs.frozen(kw_only=True)
class Audio(_Media):
    """Sound.

    Attributes:
        duration: In seconds.
        bitrate: In bits per second.
        sample_rate: In samples per second.
        channels: 1 is mono, 2 stereo.
    """

    duration: float
    bitrate: int
    sample_rate: int
    channels: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.AUDIO`."""
        return MediaKind.AUDIO


@attrs.frozen(kw_only=True)
class Document(_Media):
    """Pages.

    Attributes:
        page_count: Number of pages.
    """

    page_count: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.DOCUMENT`."""
        return MediaKind.DOCUMENT


Media = Image | Video | Audio | Document


@attrs.frozen(kw_only=True)
class ImageFacts:
    """What the parser says of an image. See `Image` for units."""

    width: int
    height: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.IMAGE`."""
        return MediaKind.IMAGE


@attrs.frozen(kw_only=True)
class VideoFacts:
    """What the parser says of a video. See `Video` for units."""

    duration: float
    width: int
    height: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.VIDEO`."""
        return MediaKind.VIDEO


@attrs.frozen(kw_only=True)
class AudioFacts:
    """What the parser says of an audio file. See `Audio` for units."""

    duration: float
    bitrate: int
    sample_rate: int
    channels: int

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.AUDIO`."""
        return MediaKind.AUDIO


@attrs.frozen(kw_only=True)
class DocumentFacts:
    """What the parser says of a document. See `Document` for units.

    Attributes:
        page_count: Number of pages.
        text: Its text, cut at the limit of the settings.
    """

    page_count: int
    text: str = attrs.field(default="", repr=False)

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.DOCUMENT`."""
        return MediaKind.DOCUMENT


Facts = ImageFacts | VideoFacts | AudioFacts | DocumentFacts


@attrs.frozen(kw_only=True)
class Staged:
    """Bytes that are stored and probed, but not yet part of the library: `MediaStore.add` makes an item of them.

    Attributes:
        id: The id that the item will have.
        tenant_id: Whose it is.
        filename: Cleaned.
        original_filename: As it was handed in.
        content_type: MIME type, found from the bytes.
        file_size: In bytes.
        sha256: Hash of the bytes, as 64 hexadecimal digits.
        facts: What the parser says.
    """

    id: UUID
    tenant_id: UUID
    filename: str
    original_filename: str
    content_type: str
    file_size: int
    sha256: str
    facts: Facts

    @property
    def kind(self) -> MediaKind:
        """Which kind of media it is."""
        return self.facts.kind


@attrs.frozen
class MediaPage(Sequence[Media]):
    """One page of a listing, newest first.

    Attributes:
        items: The media of this page.
        next: Where the next page begins, for `MediaStore.find(after=…)`, or None where this is the last.
    """

    items: tuple[Media, ...]
    next: str | None = None

    @overload
    def __getitem__(self, index: int) -> Media: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Media, ...]: ...
    def __getitem__(self, index: int | slice) -> Media | tuple[Media, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Media]:
        return iter(self.items)
