"""Operations that tenants have given a name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.transformations import Preset, Transformation

_COLUMNS: LiteralString = "p.name, p.operations, p.created_at, p.updated_at"

_CREATE = f"""
insert into mindia.presets as p (tenant_id, name, operations) values (%(tenant_id)s, %(name)s, %(operations)s)
returning {_COLUMNS}
"""

_GET = f"select {_COLUMNS} from mindia.presets p where p.tenant_id = %s and p.name = %s"

_ALL = f"select {_COLUMNS} from mindia.presets p where p.tenant_id = %s order by p.name"

# In one order for all, so that two that change presets wait for each other rather than collide.
_LOCK = "select name from mindia.presets where tenant_id = %s order by name for update"

_UPDATE = f"""
update mindia.presets p set operations = %(operations)s, updated_at = now()
where p.tenant_id = %(tenant_id)s and p.name = %(name)s
returning {_COLUMNS}
"""

_DELETE = "delete from mindia.presets where tenant_id = %s and name = %s"


def create(session: Session, tenant_id: UUID, name: str, transformation: Transformation) -> Preset:
    """Write a preset."""
    parameters = {"tenant_id": tenant_id, "name": name, "operations": str(transformation)}
    created = session.one(_CREATE, parameters, row=_row_of(tenant_id))
    assert created is not None
    return created


def get(session: Session, tenant_id: UUID, name: str) -> Preset | None:
    """Read a preset."""
    return session.one(_GET, (tenant_id, name), row=_row_of(tenant_id))


def all_of(session: Session, tenant_id: UUID) -> list[Preset]:
    """Read all presets, by their names."""
    return session.all(_ALL, (tenant_id,), row=_row_of(tenant_id))


def lock(session: Session, tenant_id: UUID) -> None:
    """Hold up others that change presets of the tenant until the transaction ends."""
    session.all(_LOCK, (tenant_id,), row=str)


def update(session: Session, tenant_id: UUID, name: str, transformation: Transformation) -> Preset | None:
    """Change what a preset does."""
    parameters = {"tenant_id": tenant_id, "name": name, "operations": str(transformation)}
    return session.one(_UPDATE, parameters, row=_row_of(tenant_id))


def delete(session: Session, tenant_id: UUID, name: str) -> bool:
    """Remove a preset, and tell whether it was there."""
    return bool(session.execute(_DELETE, (tenant_id, name)))


def _row_of(tenant_id: UUID) -> Callable[..., Preset]:
    def row(name: str, operations: str, created_at: datetime, updated_at: datetime) -> Preset:
        return Preset(
            tenant_id=tenant_id,
            name=name,
            transformation=Transformation.parse(operations),
            created_at=created_at,
            updated_at=updated_at,
        )

    return row
