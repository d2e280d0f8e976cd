"""Tenants and their users."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs

from mindia.domain.media import MediaKind
from mindia.errors import InvalidError


class TenantStatus(StrEnum):
    """Anything but active is refused everywhere."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class UserRole(StrEnum):
    """What a user may do: everything, media and search, or only read."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


def _positive(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and (not isinstance(value, int | float) or not 0 < value < math.inf):
        raise InvalidError(f"{attribute.name} must be a number greater than 0, not {value!r}")


def _word(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and (not isinstance(value, str) or not value.isidentifier()):
        raise InvalidError(f"{attribute.name} must be the name of a text search configuration, not {value!r}")


@attrs.frozen(kw_only=True)
class MediaLimits:
    """Limits of one tenant, in place of those of `Settings`, which have the same names; None leaves those in force.

    Attributes:
        max_image_bytes: Size limit of an image.
        max_video_bytes: Size limit of a video.
        max_audio_bytes: Size limit of an audio file.
        max_document_bytes: Size limit of a document.
        max_image_pixels: Limit of an image's width times its height.
        max_video_pixels: Limit of the width times the height of a frame of a video.
        max_video_seconds: How long a video may play.
        max_audio_seconds: How long an audio file may play.
        max_document_pages: How many pages a document may have.
        language: The text search configuration of PostgreSQL for what is added from now on, and for queries: `german`.
    """

    max_image_bytes: int | None = attrs.field(default=None, validator=_positive)
    max_video_bytes: int | None = attrs.field(default=None, validator=_positive)
    max_audio_bytes: int | None = attrs.field(default=None, validator=_positive)
    max_document_bytes: int | None = attrs.field(default=None, validator=_positive)
    max_image_pixels: int | None = attrs.field(default=None, validator=_positive)
    max_video_pixels: int | None = attrs.field(default=None, validator=_positive)
    max_video_seconds: float | None = attrs.field(default=None, validator=_positive)
    max_audio_seconds: float | None = attrs.field(default=None, validator=_positive)
    max_document_pages: int | None = attrs.field(default=None, validator=_positive)
    language: str | None = attrs.field(default=None, validator=_word)


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63):
        raise InvalidError(f"{attribute.name} must be a number of at least 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Quota:
    """What a tenant may have at most; None for as much as it likes. An item counts with its size, shared bytes or not.

    Attributes:
        max_items: How many items.
        max_total_bytes: The sizes of all of them.
    """

    max_items: int | None = attrs.field(default=None, validator=_not_negative)
    max_total_bytes: int | None = attrs.field(default=None, validator=_not_negative)


@attrs.frozen(kw_only=True)
class TypeUsage:
    """What a tenant has of one type.

    Attributes:
        kind: Of the items.
        content_type: Their MIME type.
        item_count: How many there are.
        total_bytes: Their sizes together.
    """

    kind: MediaKind
    content_type: str
    item_count: int
    total_bytes: int


@attrs.frozen(kw_only=True)
class Usage:
    """What a tenant has. Items that have expired count until maintenance has removed them.

    Attributes:
        by_type: By kind and MIME type.
        quota: What it may have at most.
        derivative_count: How much was made of the items: pictures, streaming forms. It does not count against the
            quota, since it can be made again.
        derivative_bytes: How many bytes that are.
    """

    by_type: tuple[TypeUsage, ...]
    quota: Quota
    derivative_count: int = 0
    derivative_bytes: int = 0

    @property
    def item_count(self) -> int:
        """How many items there are."""
        return sum(each.item_count for each in self.by_type)

    @property
    def total_bytes(self) -> int:
        """The sizes of all items together."""
        return sum(each.total_bytes for each in self.by_type)

    def of_kind(self, kind: MediaKind) -> tuple[TypeUsage, ...]:
        """Return what there is of one kind."""
        return tuple(each for each in self.by_type if each.kind is kind)


@attrs.frozen(kw_only=True)
class Tenant:
    """An organisation that uses Mindia.

    Attributes:
        id: UUIDv7, made by the client.
        name: For people, at most 255 characters; not unique.
        s3_bucket: Its bucket, or its folder in a local store; unique.
        s3_region: The region of the bucket; `local` for a local store.
        status: Only an active tenant is served.
        limits: Its own limits of media.
        created_at: In UTC.
        updated_at: In UTC.
    """

    id: UUID
    name: str
    s3_bucket: str
    s3_region: str
    status: TenantStatus
    limits: MediaLimits = MediaLimits()
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class User:
    """A person of a tenant. The hash of the password is not part of it.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose user it is.
        email: Unique within the tenant, without regard to case.
        role: What the user may do.
        is_active: An inactive user is refused.
        created_at: In UTC.
        updated_at: In UTC.
        last_login_at: In UTC, or None.
    """

    id: UUID
    tenant_id: UUID
    email: str
    role: UserRole
    is_active: bool
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None = None


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key of a tenant's for programs. The secret is not part of it.

    Attributes:
        id: UUIDv7, made by the client.
        tenant_id: Whose key it is.
        name: For people.
        prefix: What the token begins with after `mindia_`, by which it is looked up and recognised.
        role: What may be done with it, as for a user.
        created_by: The user or API key on whose behalf it was issued, or None.
        created_at: In UTC.
        expires_at: From when on it is refused, in UTC, or None.
        revoked_at: When it was revoked, in UTC, or None.
        last_used_at: In UTC, to a minute, or None.
    """

    id: UUID
    tenant_id: UUID
    name: str
    prefix: str
    role: UserRole
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@attrs.frozen(kw_only=True)
class IssuedApiKey:
    """A new API key with its token, which is not kept: whoever loses it needs another key.

    Attributes:
        key: The key.
        token: What its holder sends. Never shown by `repr`.
    """

    key: ApiKey
    token: str = attrs.field(repr=lambda _: "'***'")
