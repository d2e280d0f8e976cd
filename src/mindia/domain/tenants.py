"""Tenants and their users."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import attrs


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


@attrs.frozen(kw_only=True)
class Tenant:
    """An organisation that uses Mindia.

    Attributes:
        id: UUIDv7, made by the client.
        name: For people, at most 255 characters; not unique.
        s3_bucket: Its bucket, or its folder in a local store; unique.
        s3_region: The region of the bucket; `local` for a local store.
        status: Only an active tenant is served.
        created_at: In UTC.
        updated_at: In UTC.
    """

    id: UUID
    name: str
    s3_bucket: str
    s3_region: str
    status: TenantStatus
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
