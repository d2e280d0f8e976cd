"""Media items, as users see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import overload
from uuid import UUID

import attrs

from mindia.domain._shown import Shown, facts, size_of
from mindia.errors import InvalidError

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Metadata = Mapping[str, JsonValue]

_LINES = 20
"""Of the items of a page that are printed."""


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


class Disposition(StrEnum):
    """What a browser does with an item that it is given by URL."""

    INLINE = "inline"
    ATTACHMENT = "attachment"


class OnDuplicate(StrEnum):
    """What `add` does with bytes that the tenant has an item of already.

    `store` stores them again. `return` returns the oldest such item as it is, and makes none. `link` makes an item that
    shares the stored bytes; they stay until the last of those that share them is deleted. `error` refuses.
    """

    STORE = "store"
    RETURN = "return"
    LINK = "link"
    ERROR = "error"


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
        description: What a person says about it.
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
    description: str = ""
    uploaded_at: datetime
    updated_at: datetime = attrs.field(repr=False)
    expires_at: datetime | None = None

    def _repr_html_(self) -> str:
        from mindia.notebook import html

        return html.table(self.filename, facts(self))


def _degrees(limit: float) -> Callable[[object, attrs.Attribute[float], float], None]:
    def check(_: object, attribute: attrs.Attribute[float], value: float) -> None:
        if not -limit <= value <= limit:
            raise InvalidError(f"{attribute.name} must be between {-limit:g} and {limit:g} degrees, not {value!r}")

    return check


def _finite(_: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise InvalidError(f"{attribute.name} must be a number of metres, not {value!r}")


@attrs.frozen(kw_only=True)
class Location:
    """A place on the earth, in the coordinates of WGS 84.

    Attributes:
        latitude: In degrees, -90 to 90; north is positive.
        longitude: In degrees, -180 to 180; east is positive.
        altitude: In metres above the sea, or None.
    """

    latitude: float = attrs.field(validator=_degrees(90))
    longitude: float = attrs.field(validator=_degrees(180))
    altitude: float | None = attrs.field(default=None, validator=_finite)


@attrs.frozen(kw_only=True)
class Image(_Media):
    """A still or animated picture.

    Attributes:
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        taken_at: When the camera took it, or None. Without a time zone it is what the camera's own clock showed.
        camera: Make and model of the camera, at most 200 characters, or None.
        location: Where it was taken, or None; kept with `Settings.keep_location` only.
        perceptual_hash: 64 bits in hexadecimal digits, few of which differ between pictures that look alike; None for
            one without any structure.
    """

    width: int
    height: int
    taken_at: datetime | None = None
    camera: str | None = None
    location: Location | None = None
    perceptual_hash: str | None = attrs.field(default=None, eq=False, repr=False)

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
        title: Of its tags, at most 500 characters, or None.
        artist: Of its tags, at most 500 characters, or None.
        album: Of its tags, at most 500 characters, or None.
    """

    duration: float
    bitrate: int
    sample_rate: int
    channels: int
    title: str | None = None
    artist: str | None = None
    album: str | None = None

    @property
    def kind(self) -> MediaKind:
        """`MediaKind.AUDIO`."""
        return MediaKind.AUDIO


@attrs.frozen(kw_only=True)
class Document(_Media):
    """Pages.

    Attributes:
        page_count: Number of pages.
        title: Of its properties, at most 500 characters, or None.
    """

    page_count: int
    title: str | None = None

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
    taken_at: datetime | None = None
    camera: str | None = None
    location: Location | None = None
    perceptual_hash: str | None = attrs.field(default=None, eq=False, repr=False)

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
    title: str | None = None
    artist: str | None = None
    album: str | None = None

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
        title: Of its properties, at most 500 characters, or None.
    """

    page_count: int
    text: str = attrs.field(default="", repr=False)
    title: str | None = None

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


@attrs.frozen(kw_only=True)
class Candidate:
    """Bytes that are about to be stored, as the scan hook of the host sees them.

    Attributes:
        tenant_id: Whose they would be.
        filename: Cleaned.
        content_type: MIME type, confirmed by the parser.
        file_size: In bytes.
        sha256: Hash of the bytes, as 64 hexadecimal digits.
        facts: What the parser says.
    """

    tenant_id: UUID
    filename: str
    content_type: str
    file_size: int
    sha256: str
    facts: Facts

    @property
    def kind(self) -> MediaKind:
        """Which kind of media it is."""
        return self.facts.kind


@attrs.frozen(repr=False)
class MediaPage(Shown, Sequence[Media]):
    """One page of a listing.

    Attributes:
        items: The media of this page.
        next: Where the next page begins, for `MediaStore.find(after=…)`, or None where this is the last.
        previous: Where the page before ends, for `MediaStore.find(before=…)`, or None where this is the first.
    """

    items: tuple[Media, ...]
    next: str | None = None
    previous: str | None = None

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

    def __repr__(self) -> str:
        lines = [f"<MediaPage: {len(self)} item(s){', more follow' if self.next else ''}>"]
        lines += [f"  {item.filename!r}  {item.content_type}  {size_of(item)}" for item in self.items[:_LINES]]
        return "\n".join(lines if len(self) <= _LINES else [*lines, f"  ... {len(self) - _LINES} more"])

    def _repr_html_(self) -> str:
        from mindia.notebook import html

        tiles = (
            html.Tile(
                title=item.filename,
                kind=str(item.kind),
                facts=(item.content_type, size_of(item)),
                picture=self._preview(item),
            )
            for item in self.items
        )
        return html.gallery(f"{len(self)} item(s)", tiles, count=len(self))
