"""API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.tenants import ApiKey, UserRole

_COLUMNS: LiteralString = """
k.id, k.tenant_id, k.name, k.prefix, k.role::text, k.created_by, k.created_at, k.expires_at, k.revoked_at,
k.last_used_at
"""

_CREATE = f"""
insert into mindia.api_keys as k (tenant_id, id, name, prefix, secret_hash, role, created_by, expires_at)
values (%(tenant_id)s, %(id)s, %(name)s, %(prefix)s, %(secret_hash)s, %(role)s::mindia.user_role, %(created_by)s,
        %(expires_at)s)
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.api_keys k where k.tenant_id = %s and k.id = %s"

_PAGE = f"""
select {_COLUMNS} from mindia.api_keys k
where k.tenant_id = %(tenant_id)s and (%(after)s::uuid is null or k.id > %(after)s)
order by k.id limit %(limit)s
"""

_REVOKE = f"""
update mindia.api_keys k set revoked_at = coalesce(k.revoked_at, now()) where k.tenant_id = %s and k.id = %s
returning {_COLUMNS}
"""

_FIND = f"""
select k.secret_hash,
       k.revoked_at is null and k.tenant_status = 'active' and (k.expires_at is null or k.expires_at > now()),
       k.expires_at - now(),
       k.last_used_at is null or k.last_used_at <= now() - interval '1 minute',
       {_COLUMNS}
from mindia.find_api_key(%s) k
"""

# Whoever holds the row, to revoke the key or to say the same, is not waited for.
_NOTE_USE = """
update mindia.api_keys set last_used_at = now() where tenant_id = %(tenant_id)s and id in (
    select id from mindia.api_keys
    where tenant_id = %(tenant_id)s and id = %(id)s
      and (last_used_at is null or last_used_at <= now() - interval '1 minute')
    for no key update skip locked
)
"""


@attrs.frozen
class FoundApiKey:
    """An API key as it is found by its prefix.

    Attributes:
        secret_hash: Of its token.
        is_valid: Whether it is neither revoked nor expired, and its tenant active.
        valid_for: How long it will be, if it expires.
        is_use_due: Whether its use has not been recorded for a minute.
        key: The key.
    """

    secret_hash: bytes = attrs.field(repr=False)
    is_valid: bool
    valid_for: timedelta | None
    is_use_due: bool
    key: ApiKey


def create(
    session: Session,
    tenant_id: UUID,
    *,
    id: UUID,  # noqa: A002 - the column
    name: str,
    prefix: str,
    secret_hash: bytes,
    role: UserRole,
    created_by: UUID | None,
    expires_at: datetime | None,
) -> ApiKey:
    """Write a key."""
    parameters = {
        "tenant_id": tenant_id,
        "id": id,
        "name": name,
        "prefix": prefix,
        "secret_hash": secret_hash,
        "role": role,
        "created_by": created_by,
        "expires_at": expires_at,
    }
    created = session.one(_CREATE, parameters, row=_key)
    assert created is not None
    return created


def get(session: Session, tenant_id: UUID, key_id: UUID) -> ApiKey | None:
    """Read a key."""
    return session.one(_GET, (tenant_id, key_id), row=_key)


def page(session: Session, tenant_id: UUID, *, after: UUID | None, limit: int) -> list[ApiKey]:
    """Read keys in the order of their making, revoked ones among them."""
    return session.all(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_key)


def revoke(session: Session, tenant_id: UUID, key_id: UUID) -> ApiKey | None:
    """Refuse a key from now on."""
    return session.one(_REVOKE, (tenant_id, key_id), row=_key)


def find(session: Session, prefix: str) -> FoundApiKey | None:
    """Read a key of whichever tenant by its prefix."""
    return session.one(
        _FIND,
        (prefix,),
        row=lambda secret_hash, is_valid, valid_for, is_use_due, *key: FoundApiKey(
            bytes(secret_hash), is_valid, valid_for, is_use_due, _key(*key)
        ),
    )


def note_use(session: Session, tenant_id: UUID, key_id: UUID) -> None:
    """Record that a key was used just now, unless that was done within the last minute."""
    session.execute(_NOTE_USE, {"tenant_id": tenant_id, "id": key_id})


def _key(
    id: UUID,  # noqa: A002 - the column
    tenant_id: UUID,
    name: str,
    prefix: str,
    role: str,
    created_by: UUID | None,
    created_at: datetime,
    expires_at: datetime | None,
    revoked_at: datetime | None,
    last_used_at: datetime | None,
) -> ApiKey:
    return ApiKey(
        id=id,
        tenant_id=tenant_id,
        name=name,
        prefix=prefix,
        role=UserRole(role),
        created_by=created_by,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
    )
