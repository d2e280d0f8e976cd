"""What is on record about stored bytes: staged ones without a row, and deleted ones that are still there."""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.repositories._text import storable

# The removal of a deleted tenant waits for the youngest lease: no new one is given, and none is made younger.
_UNLESS_DELETED: LiteralString = """
not exists (select from mindia.tenants where id = %(tenant_id)s and status = 'deleted')
"""

_LEASE = f"""
insert into mindia.staged_objects (tenant_id, id, s3_bucket, source_id)
select %(tenant_id)s::uuid, staged.id, %(s3_bucket)s, %(source_id)s::uuid from unnest(%(ids)s::uuid[]) as staged (id)
where {_UNLESS_DELETED}
on conflict on constraint staged_objects_pkey do update set leased_at = now()
"""

_RENEW = f"""
update mindia.staged_objects set leased_at = now() where tenant_id = %(tenant_id)s and id = %(id)s and {_UNLESS_DELETED}
"""

# Materialized, so that the limit holds whatever the plan.
_TAKE_STAGED = """
with old as materialized (
    select tenant_id, id from mindia.staged_objects where leased_at < now() - %s::interval
    order by leased_at limit %s for update skip locked
)
delete from mindia.staged_objects s using old
where s.tenant_id = old.tenant_id and s.id = old.id
returning s.tenant_id, s.id, s.s3_bucket, s.source_id
"""

_TAKE_ONE_STAGED = """
delete from mindia.staged_objects where tenant_id = %(tenant_id)s and id in (
    select id from mindia.staged_objects where tenant_id = %(tenant_id)s and id = %(id)s for update skip locked
) returning tenant_id, id, s3_bucket, source_id
"""

_IS_STAGED = "select true from mindia.staged_objects where tenant_id = %s and id = %s"

_IS_SHARED = "select true from mindia.shared_objects where tenant_id = %s and s3_key = %s"

_DUE = """
select tenant_id, id, s3_bucket, s3_keys, s3_prefixes from mindia.deleted_objects
where next_attempt_at <= now() order by next_attempt_at limit %s for update skip locked
"""

_DONE = "delete from mindia.deleted_objects where tenant_id = %s and id = %s"

_POSTPONE = """
update mindia.deleted_objects
set attempts = attempts + 1, last_error = %s,
    next_attempt_at = now() + least(interval '1 hour', interval '10 seconds' * power(2, least(attempts, 20)))
where tenant_id = %s and id = %s
"""

_PUT_OFF = """
insert into mindia.deleted_objects
    (tenant_id, id, s3_bucket, s3_keys, s3_prefixes, attempts, last_error, next_attempt_at)
values (%s, %s, %s, %s, %s, 1, %s, now() + interval '10 seconds')
on conflict on constraint deleted_objects_pkey do nothing
"""


_COUNT_STAGED = "select count(*) from mindia.staged_objects where leased_at < now() - %s::interval"

_LOOK_AT_STAGED = """
select tenant_id, id, s3_bucket, source_id from mindia.staged_objects where leased_at < now() - %s::interval
order by leased_at limit %s
"""

_COUNT_DUE = "select count(*) from mindia.deleted_objects where next_attempt_at <= now()"

_LOOK_AT_DUE = """
select tenant_id, id, s3_bucket, s3_keys, s3_prefixes from mindia.deleted_objects
where next_attempt_at <= now() order by next_attempt_at limit %s
"""

_GIVE_UP = f"""
insert into mindia.staged_objects (tenant_id, id, s3_bucket, leased_at)
select %(tenant_id)s::uuid, lost.id, %(s3_bucket)s, '-infinity' from unnest(%(ids)s::uuid[]) as lost (id)
where {_UNLESS_DELETED}
on conflict on constraint staged_objects_pkey do nothing
"""

_DELETE_LATER = f"""
insert into mindia.deleted_objects (tenant_id, id, s3_bucket, s3_keys, s3_prefixes)
select %(tenant_id)s::uuid, %(id)s::uuid, %(s3_bucket)s, %(s3_keys)s::text[], '{{}}'
where {_UNLESS_DELETED}
on conflict on constraint deleted_objects_pkey do nothing
"""


@attrs.frozen
class StagedObject:
    """A key that bytes may stand under although no media row points at them; a prefix where it is of a derivative."""

    tenant_id: UUID
    id: UUID
    s3_bucket: str
    source_id: UUID | None


@attrs.frozen
class DeletedObject:
    """Bytes that are to be removed."""

    tenant_id: UUID
    id: UUID
    s3_bucket: str
    s3_keys: list[str] = attrs.field(hash=False)
    s3_prefixes: list[str] = attrs.field(hash=False)


def lease(session: Session, tenant_id: UUID, ids: list[UUID], *, s3_bucket: str, source_id: UUID | None = None) -> bool:
    """Put keys on record before bytes are written under them; False where the tenant is deleted.

    Args:
        session: Where.
        tenant_id: Whose they will be.
        ids: Of the items or derivatives.
        s3_bucket: The tenant's bucket.
        source_id: What derivatives are made of.
    """
    parameters = {"tenant_id": tenant_id, "s3_bucket": s3_bucket, "ids": ids, "source_id": source_id}
    return session.execute(_LEASE, parameters) > 0


def renew(session: Session, tenant_id: UUID, staged_id: UUID) -> bool:
    """Start the grace period of a staged object anew; False where it was swept, or the tenant is deleted."""
    return session.execute(_RENEW, {"tenant_id": tenant_id, "id": staged_id}) > 0


def take_staged(session: Session, *, older_than: timedelta, limit: int) -> list[StagedObject]:
    """Take old staged objects off the record, except those that an open transaction has taken."""
    return session.all(_TAKE_STAGED, (older_than, limit), row=StagedObject)


def take_one_staged(session: Session, tenant_id: UUID, staged_id: UUID) -> StagedObject | None:
    """Take one staged object off the record, unless an open transaction has taken it."""
    return session.one(_TAKE_ONE_STAGED, {"tenant_id": tenant_id, "id": staged_id}, row=StagedObject)


def is_staged(session: Session, tenant_id: UUID, staged_id: UUID) -> bool:
    """Tell whether a staged object is on record."""
    return session.one(_IS_STAGED, (tenant_id, staged_id), row=bool) is not None


def is_shared(session: Session, tenant_id: UUID, s3_key: str) -> bool:
    """Tell whether items share an object, or have shared it while one of them is left."""
    return session.one(_IS_SHARED, (tenant_id, s3_key), row=bool) is not None


def put_off_staged(
    session: Session, staged: StagedObject, *, s3_keys: list[str], s3_prefixes: list[str], error: str
) -> None:
    """Put the bytes of a staged object on record for removal later, since removing them has failed."""
    session.execute(_PUT_OFF, (staged.tenant_id, staged.id, staged.s3_bucket, s3_keys, s3_prefixes, storable(error)))


def count_staged(session: Session, *, older_than: timedelta) -> int:
    """Count old staged objects, those among them that an open transaction has taken."""
    return session.one(_COUNT_STAGED, (older_than,), row=int) or 0


def look_at_staged(session: Session, *, older_than: timedelta, limit: int) -> list[StagedObject]:
    """Read which staged objects are old, the oldest first."""
    return session.all(_LOOK_AT_STAGED, (older_than, limit), row=StagedObject)


def give_up(session: Session, tenant_id: UUID, ids: list[UUID], *, s3_bucket: str) -> None:
    """Put bytes that are on no record there as staged long ago, so that the sweep removes them, and nobody else."""
    session.execute(_GIVE_UP, {"tenant_id": tenant_id, "s3_bucket": s3_bucket, "ids": ids})


def delete_later(session: Session, tenant_id: UUID, record_id: UUID, s3_keys: list[str], *, s3_bucket: str) -> None:
    """Put objects that no row points at on record for removal."""
    session.execute(
        _DELETE_LATER, {"tenant_id": tenant_id, "id": record_id, "s3_bucket": s3_bucket, "s3_keys": s3_keys}
    )


def count_due(session: Session) -> int:
    """Count the deleted objects whose bytes are due for removal."""
    return session.one(_COUNT_DUE, row=int) or 0


def look_at_due(session: Session, *, limit: int) -> list[DeletedObject]:
    """Read which deleted objects are due, the first to be due first."""
    return session.all(_LOOK_AT_DUE, (limit,), row=DeletedObject)


def lock_deleted(session: Session, *, limit: int) -> list[DeletedObject]:
    """Lock deleted objects whose bytes are due for removal."""
    return session.all(_DUE, (limit,), row=DeletedObject)


def forget_deleted(session: Session, deleted: DeletedObject) -> None:
    """Take a deleted object off the record: its bytes are gone."""
    session.execute(_DONE, (deleted.tenant_id, deleted.id))


def postpone_deleted(session: Session, deleted: DeletedObject, *, error: str) -> None:
    """Try again later, waiting longer each time, up to an hour."""
    session.execute(_POSTPONE, (storable(error), deleted.tenant_id, deleted.id))
