"""A tenant in an archive, and what came of writing or reading one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import attrs
from attrs import validators

from mindia.domain.derivatives import STREAM
from mindia.domain.media import (
    AudioFacts,
    DocumentFacts,
    Facts,
    ImageFacts,
    Media,
    MediaKind,
    VideoFacts,
)
from mindia.domain.operations import MAX_SIDE
from mindia.domain.tenants import MediaLimits, Quota, Tenant, UserRole
from mindia.domain.transformations import Transformation, check_preset_name

FACTS: dict[MediaKind, type[Facts]] = {
    MediaKind.IMAGE: ImageFacts,
    MediaKind.VIDEO: VideoFacts,
    MediaKind.AUDIO: AudioFacts,
    MediaKind.DOCUMENT: DocumentFacts,
}
MAX_TEXT_CHARS = 1_000_000
"""Of the text of a document; what is longer is cut. More than the index of words holds of it."""

_MAX_BIGINT = (1 << 63) - 1
_HASH = re.compile(r"[0-9a-f]{64}")


def _in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"a time without time zone: {value.isoformat()}")
    return value.astimezone(UTC)


def _length(least: int, most: int) -> Any:
    return [validators.min_len(least), validators.max_len(most)]


def _whole(*, least: int) -> Any:
    return [validators.ge(least), validators.le(_MAX_BIGINT)]


def _not_blank(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.strip():
        raise ValueError(f"{attribute.name} must not be blank")


def _is_settled(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value != STREAM and str(Transformation.parse(value).settled()) != value:
        raise ValueError(f"{attribute.name} leaves open what the picture is encoded as: {value[:80]!r}")


_is_hash = validators.matches_re(_HASH)
_is_side = validators.optional([validators.ge(1), validators.le(MAX_SIDE)])


@attrs.frozen(kw_only=True)
class ArchivedUser:
    """A user, with the hash of the password.

    Attributes:
        id: As in the installation that it was exported from.
        email: Its e-mail address.
        password_hash: As it is stored.
        role: What it may do.
        is_active: Whether it may log in.
        created_at: In UTC.
        updated_at: In UTC.
        last_login_at: In UTC, or None.
    """

    id: UUID
    email: str = attrs.field(validator=_length(1, 255))
    password_hash: str = attrs.field(repr=False, validator=_length(1, 255))
    role: UserRole
    is_active: bool
    created_at: datetime = attrs.field(converter=_in_utc)
    updated_at: datetime = attrs.field(converter=_in_utc)
    last_login_at: datetime | None = attrs.field(converter=attrs.converters.optional(_in_utc))


@attrs.frozen(kw_only=True)
class ArchivedMedia:
    """An item. See `mindia.domain.media` for what is not told here.

    Attributes:
        id: As in the installation that it was exported from.
        filename: Cleaned.
        original_filename: As it was handed in.
        content_type: MIME type.
        file_size: In bytes.
        sha256: Hash of the bytes, which names the object.
        shares_bytes: Whether it shares its bytes with others of that hash which say so, too.
        metadata: The host's own values.
        description: What a person says about it.
        facts: What the file tells, with the text of a document.
        uploaded_at: In UTC.
        updated_at: In UTC.
        expires_at: In UTC, or None.
    """

    id: UUID
    filename: str = attrs.field(validator=_length(1, 255))
    original_filename: str = attrs.field(validator=_length(1, 255))
    content_type: str = attrs.field(validator=_length(1, 100))
    file_size: int = attrs.field(validator=_whole(least=1))
    sha256: str = attrs.field(validator=_is_hash)
    shares_bytes: bool
    metadata: dict[str, Any] = attrs.field(hash=False)
    description: str
    facts: Facts
    uploaded_at: datetime = attrs.field(converter=_in_utc)
    updated_at: datetime = attrs.field(converter=_in_utc)
    expires_at: datetime | None = attrs.field(converter=attrs.converters.optional(_in_utc))

    @property
    def kind(self) -> MediaKind:
        """Which kind of media it is."""
        return self.facts.kind

    @classmethod
    def of(cls, media: Media, *, text: str, shares_bytes: bool) -> Self:
        """Return an item as it is archived.

        Args:
            media: The item.
            text: Of a document.
            shares_bytes: Whether it shares its bytes.
        """
        told = {name: getattr(media, name) for name in attrs.fields_dict(FACTS[media.kind]) if name != "text"}
        if media.kind is MediaKind.DOCUMENT:
            told["text"] = text[:MAX_TEXT_CHARS]
        return cls(
            id=media.id,
            filename=media.filename,
            original_filename=media.original_filename,
            content_type=media.content_type,
            file_size=media.file_size,
            sha256=media.sha256,
            shares_bytes=shares_bytes,
            metadata=dict(media.metadata),
            description=media.description,
            facts=FACTS[media.kind](**told),
            uploaded_at=media.uploaded_at,
            updated_at=media.updated_at,
            expires_at=media.expires_at,
        )


@attrs.frozen(kw_only=True)
class ArchivedPreset:
    """A preset.

    Attributes:
        name: Small letters, digits and hyphens.
        transformation: What it does, with the ids of watermarks as in the installation that it was exported from.
        created_at: In UTC.
        updated_at: In UTC.
    """

    name: str = attrs.field(validator=lambda *given: check_preset_name(given[2]))
    transformation: Transformation
    created_at: datetime = attrs.field(converter=_in_utc)
    updated_at: datetime = attrs.field(converter=_in_utc)


@attrs.frozen(kw_only=True)
class ArchivedFile:
    """A file of a stream.

    Attributes:
        name: Below the prefix of the stream: `master.m3u8`, `720p/segment_000.ts`.
        size: In bytes.
    """

    name: str = attrs.field(validator=_length(1, 150))
    size: int = attrs.field(validator=_whole(least=1))


@attrs.frozen(kw_only=True)
class ArchivedDerivative:
    """A picture that was made of an item, or a stream.

    Attributes:
        media_id: The item; the first one in the archive, where items share the bytes that it was made of.
        operations: What was done, with the ids of watermarks as in the installation that it was exported from; `hls`
            for a stream.
        file_size: In bytes, of all files together.
        sha256: Hash of the bytes, which names the object: that of the files of a stream one behind the other.
        files: Of a stream, in the order in which they are in the object; of a picture there are none.
        width: In pixels, or None.
        height: In pixels, or None.
        created_at: In UTC.
    """

    media_id: UUID
    operations: str = attrs.field(validator=_is_settled)
    file_size: int = attrs.field(validator=_whole(least=1))
    sha256: str = attrs.field(validator=_is_hash)
    files: tuple[ArchivedFile, ...]
    width: int | None = attrs.field(validator=_is_side)
    height: int | None = attrs.field(validator=_is_side)
    created_at: datetime = attrs.field(converter=_in_utc)

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream, and no picture."""
        return self.operations == STREAM


@attrs.frozen(kw_only=True)
class ArchivedTenant:
    """What is said of the tenant itself.

    Attributes:
        name: For people.
        region: That of its bucket.
        limits: Its own limits of media.
        quota: What it may have at most.
    """

    name: str = attrs.field(validator=[_not_blank, *_length(1, 255)])
    region: str = attrs.field(validator=_length(1, 50))
    limits: MediaLimits
    quota: Quota


@attrs.frozen(kw_only=True)
class Manifest:
    """What an archive says of itself.

    Attributes:
        format: What kind of file it is.
        version: Of the format.
        mindia: The version of Mindia that wrote it.
        tenant: The tenant itself.
        user_count: How many lines there are of users.
        media_count: How many lines there are of media.
        preset_count: How many lines there are of presets.
        derivative_count: How many lines there are of what was made of items.
        object_count: How many objects there are: one for all that has the same bytes.
        object_bytes: Their sizes together.
        users_sha256: Hash of the lines of users.
        media_sha256: Hash of the lines of media.
        presets_sha256: Hash of the lines of presets.
        derivatives_sha256: Hash of the lines of what was made of items.
    """

    format: str
    version: int
    mindia: str = attrs.field(validator=_length(1, 100))
    tenant: ArchivedTenant
    user_count: int = attrs.field(validator=_whole(least=0))
    media_count: int = attrs.field(validator=_whole(least=0))
    preset_count: int = attrs.field(validator=_whole(least=0))
    derivative_count: int = attrs.field(validator=_whole(least=0))
    object_count: int = attrs.field(validator=_whole(least=0))
    object_bytes: int = attrs.field(validator=_whole(least=0))
    users_sha256: str = attrs.field(validator=_is_hash)
    media_sha256: str = attrs.field(validator=_is_hash)
    presets_sha256: str = attrs.field(validator=_is_hash)
    derivatives_sha256: str = attrs.field(validator=_is_hash)


@attrs.frozen(kw_only=True)
class MissingDerivative:
    """A picture or a stream that is not in an archive, although the item is that it was made of.

    Attributes:
        media_id: The item; the first one, where items share the bytes that it was made of.
        operations: What was done, as in `Derivative.operations`.
        reason: Why, for people.
    """

    media_id: UUID
    operations: str
    reason: str


@attrs.frozen(kw_only=True)
class ExportReport:
    """What was written.

    Attributes:
        tenant_id: The tenant.
        path: The archive.
        user_count: How many users are in it.
        media_count: How many items.
        preset_count: How many presets.
        derivative_count: How many pictures that were made of items, and streams.
        object_count: How many objects: one for all that has the same bytes.
        object_bytes: Their sizes together.
        missing: Items that are not in it, since their bytes were not there any more: those that were deleted meanwhile.
            What was made of them is not in it either.
        missing_derivatives: Pictures and streams of the others that are not in it, since their bytes were not there, or
            were others. They can be made again.
    """

    tenant_id: UUID
    path: Path
    user_count: int
    media_count: int
    preset_count: int
    derivative_count: int
    object_count: int
    object_bytes: int
    missing: tuple[UUID, ...] = ()
    missing_derivatives: tuple[MissingDerivative, ...] = ()


@attrs.frozen(kw_only=True)
class ImportReport:
    """What was made of an archive.

    Attributes:
        tenant: The new tenant.
        user_count: How many users it has.
        media_count: How many items.
        preset_count: How many presets.
        derivative_count: How many pictures that were made of items, and streams.
        expired: Items of the archive that were left out, since their time has come.
        media_ids: By the id in the archive, that of the new item; empty where ids were kept.
        user_ids: By the id in the archive, that of the new user; empty where ids were kept.
    """

    tenant: Tenant
    user_count: int
    media_count: int
    preset_count: int
    derivative_count: int
    expired: tuple[UUID, ...] = ()
    media_ids: Mapping[UUID, UUID] = attrs.field(factory=dict, hash=False, repr=False)
    user_ids: Mapping[UUID, UUID] = attrs.field(factory=dict, hash=False, repr=False)
