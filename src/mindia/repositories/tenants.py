"""Tenants."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session
from mindia.domain.tenants import MediaLimits, Tenant, TenantStatus

_COLUMNS: LiteralString = "id, name, s3_bucket, s3_region, status::text, limits, created_at, updated_at"

_CREATE = f"""
insert into mindia.tenants (id, name, s3_bucket, s3_region) values (%s, %s, %s, %s)
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.tenants where id = %s"

_LIST = f"""
select {_COLUMNS} from mindia.tenants
where status <> 'deleted' and (%(after)s::uuid is null or id > %(after)s)
order by id limit %(limit)s
"""

_RENAME = f"""
update mindia.tenants set name = %s, updated_at = now() where id = %s and status <> 'deleted' returning {_COLUMNS}
"""

_SET_LIMITS = f"""
update mindia.tenants set limits = %s::jsonb, updated_at = now()
where id = %s and status <> 'deleted' returning {_COLUMNS}
"""

_SET_STATUS = f"""
update mindia.tenants set status = %s::mindia.tenant_status, updated_at = now()
where id = %s and status <> 'deleted' returning {_COLUMNS}
"""

_SET_REGION = "update mindia.tenants set s3_region = %s, updated_at = now() where id = %s and s3_region = %s"


_HAS_LANGUAGE = "select exists (select from pg_catalog.pg_ts_config where cfgname = %s)"


def create(session: Session, *, id: UUID, name: str, s3_bucket: str, s3_region: str) -> Tenant:  # noqa: A002 - the column
    """Write a tenant."""
    created = session.one(_CREATE, (id, name, s3_bucket, s3_region), row=_tenant)
    assert created is not None
    return created


def get(session: Session, tenant_id: UUID) -> Tenant | None:
    """Read a tenant, whatever its status."""
    return session.one(_GET, (tenant_id,), row=_tenant)


def page(session: Session, *, after: UUID | None, limit: int) -> list[Tenant]:
    """Read tenants in the order of their making."""
    return session.all(_LIST, {"after": after, "limit": limit}, row=_tenant)


def rename(session: Session, tenant_id: UUID, name: str) -> Tenant | None:
    """Change the name of a tenant that is not deleted."""
    return session.one(_RENAME, (name, tenant_id), row=_tenant)


def set_limits(session: Session, tenant_id: UUID, limits: MediaLimits) -> Tenant | None:
    """Change the limits of a tenant that is not deleted."""
    given = {name: value for name, value in attrs.asdict(limits).items() if value is not None}
    return session.one(_SET_LIMITS, (Jsonb(given), tenant_id), row=_tenant)


def has_language(session: Session, name: str) -> bool:
    """Tell whether there is a text search configuration of that name."""
    return bool(session.one(_HAS_LANGUAGE, (name,), row=bool))


def set_status(session: Session, tenant_id: UUID, status: TenantStatus) -> Tenant | None:
    """Change the status of a tenant that is not deleted."""
    return session.one(_SET_STATUS, (status, tenant_id), row=_tenant)


def set_region(session: Session, tenant_id: UUID, *, old: str, new: str) -> None:
    """Change the region of a tenant's bucket, where it is still the old one."""
    session.execute(_SET_REGION, (new, tenant_id, old))


def _tenant(
    id: UUID,  # noqa: A002 - the column
    name: str,
    s3_bucket: str,
    s3_region: str,
    status: str,
    limits: dict[str, Any],
    created_at: datetime,
    updated_at: datetime,
) -> Tenant:
    return Tenant(
        id=id,
        name=name,
        s3_bucket=s3_bucket,
        s3_region=s3_region,
        status=TenantStatus(status),
        limits=MediaLimits(**limits),
        created_at=created_at,
        updated_at=updated_at,
    )
