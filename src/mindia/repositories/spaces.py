"""Spaces of a tenant: what each model makes of its media, and which of them is searched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from mindia.db.session import Session
from mindia.domain.search import EmbeddingSpace, SpaceStatus

_COLUMNS: LiteralString = "s.tenant_id, s.id, s.model_name, s.native_dimensions, s.status::text, s.created_at"

_ALL = f"select {_COLUMNS} from mindia.embedding_spaces s where s.tenant_id = %s order by s.id"

_ACTIVE = f"select {_COLUMNS} from mindia.embedding_spaces s where s.tenant_id = %s and s.status = 'active'"

_OF_MODEL = f"select {_COLUMNS} from mindia.embedding_spaces s where s.tenant_id = %s and s.model_name = %s"

_MAKE = """
insert into mindia.embedding_spaces (tenant_id, id, model_name, native_dimensions, status)
select %(tenant_id)s::uuid, coalesce(max(id), 0) + 1, %(model_name)s, %(native_dimensions)s::int,
       case when bool_or(status = 'active') then 'building' else 'active' end::mindia.space_status
from mindia.embedding_spaces where tenant_id = %(tenant_id)s
on conflict do nothing
"""

_REVIVE = """
update mindia.embedding_spaces set status = 'building', retired_at = null
where tenant_id = %s and id = %s and status = 'retired'
"""

# In this order, each for itself: no more than one may be active at any time.
_RETIRE = """
update mindia.embedding_spaces set status = 'retired', retired_at = now()
where tenant_id = %s and id <> %s and status = 'active'
"""
_ACTIVATE = """
update mindia.embedding_spaces set status = 'active', retired_at = null
where tenant_id = %s and id = %s and status <> 'active'
"""

_LOCK = "select id from mindia.embedding_spaces where tenant_id = %s order by id for update"

_NOW = "select clock_timestamp()"

_RETIRED = """
select tenant_id, id from mindia.embedding_spaces
where status = 'retired' and retired_at < now() - %(older_than)s::interval
order by retired_at limit %(limit)s
"""

# The lock keeps the space from being taken up again while it is removed.
_PRUNE = """
with space as materialized (
    select tenant_id, id from mindia.embedding_spaces
    where tenant_id = %(tenant_id)s and id = %(id)s and status = 'retired' for update skip locked
)
delete from mindia.embeddings where tenant_id = %(tenant_id)s and id = any(array(
    select e.id from mindia.embeddings e join space s on s.tenant_id = e.tenant_id and s.id = e.space_id
    where e.tenant_id = %(tenant_id)s limit %(limit)s
))
"""

_FORGET = """
delete from mindia.embedding_spaces s
where s.tenant_id = %(tenant_id)s and s.id = %(id)s and s.status = 'retired' and not exists (
    select from mindia.embeddings e where e.tenant_id = %(tenant_id)s and e.space_id = s.id
)
"""


def all_spaces(session: Session, tenant_id: UUID) -> list[EmbeddingSpace]:
    """Read the spaces of a tenant, the oldest first."""
    return session.all(_ALL, (tenant_id,), row=_space)


def active_space(session: Session, tenant_id: UUID) -> EmbeddingSpace | None:
    """Read the space that is searched."""
    return session.one(_ACTIVE, (tenant_id,), row=_space)


def space_of(session: Session, tenant_id: UUID, *, model_name: str, native_dimensions: int) -> EmbeddingSpace:
    """Return the space of a model, which is made where it is missing: the first one of a tenant is searched at once."""
    parameters = {"tenant_id": tenant_id, "model_name": model_name, "native_dimensions": native_dimensions}
    while True:
        found = session.one(_OF_MODEL, (tenant_id, model_name), row=_space)
        if found is not None:
            return found
        # Nothing is written where another session takes the same number; the next round sees which model has it.
        session.execute(_MAKE, parameters)


def revive(session: Session, tenant_id: UUID, space_id: int) -> bool:
    """Go on building a space that was retired; False where it was not."""
    return session.execute(_REVIVE, (tenant_id, space_id)) > 0


def lock_spaces(session: Session, tenant_id: UUID) -> Sequence[int]:
    """Hold up others that switch spaces of the tenant, and return which there are."""
    return session.all(_LOCK, (tenant_id,), row=int)


def activate(session: Session, tenant_id: UUID, space_id: int) -> None:
    """Have searches go to a space from now on, and retire the one before."""
    session.execute(_RETIRE, (tenant_id, space_id))
    session.execute(_ACTIVATE, (tenant_id, space_id))


def now(session: Session) -> datetime:
    """Return the time, by the clock of the database."""
    found = session.one(_NOW, row=_itself)
    assert found is not None
    return found


def retired(session: Session, *, older_than: timedelta, limit: int) -> list[tuple[UUID, int]]:
    """Read which spaces were retired so long ago that nobody searches them any more."""
    parameters = {"older_than": older_than, "limit": limit}
    return session.all(_RETIRED, parameters, row=lambda tenant_id, space_id: (tenant_id, space_id))


def prune(session: Session, tenant_id: UUID, space_id: int, *, limit: int) -> int:
    """Remove vectors of a retired space, and return how many; with the last of them the space goes."""
    parameters = {"tenant_id": tenant_id, "id": space_id, "limit": limit}
    removed = session.execute(_PRUNE, parameters)
    if removed < limit:
        session.execute(_FORGET, parameters)
    return removed


def _itself(value: datetime) -> datetime:
    return value


def _space(
    tenant_id: UUID,
    id: int,  # noqa: A002 - the column
    model_name: str,
    native_dimensions: int,
    status: str,
    created_at: datetime,
) -> EmbeddingSpace:
    return EmbeddingSpace(
        tenant_id=tenant_id,
        id=id,
        model_name=model_name,
        native_dimensions=native_dimensions,
        status=SpaceStatus(status),
        created_at=created_at,
    )
