"""Tenants and their users."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs

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
