"""What was made of items: rows of derived objects.

They hang on the bytes, not on the item: `source_id` is the id in the key of the original. Who records one holds the row
of an item that has the bytes; a delete waits for that, and removes what hangs on the bytes in a statement of its own,
which sees what was recorded meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.derivatives import Derivative
from mindia.domain.media import Media, MediaKind

_COLUMNS: LiteralString = """
d.id, d.source_id, d.operations, d.s3_key, d.s3_prefix, d.content_type, d.file_size, d.file_count,
encode(d.sha256, 'hex'), d.width, d.height, d.created_at
"""

_GET = f"""
select {_COLUMNS} from mindia.derivatives d
where d.tenant_id = %(tenant_id)s and d.source_id = %(source_id)s and d.operations = %(operations)s
"""

_LIST = f"""
select {_COLUMNS} from mindia.derivatives d
where d.tenant_id = %(tenant_id)s and d.source_id = any(%(source_ids)s::uuid[]) order by d.created_at, d.id
"""

_PAGE = f"""
select {_COLUMNS} from mindia.derivatives d
where d.tenant_id = %(tenant_id)s and d.id > %(after)s::uuid order by d.id limit %(limit)s
"""

# The item stays until the transaction ends, and so does the staged row for others than us.
_LOCK_ITEM: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "select s3_key from mindia.images where tenant_id = %s and id = %s for key share",
    MediaKind.VIDEO: "select s3_key from mindia.videos where tenant_id = %s and id = %s for key share",
    MediaKind.AUDIO: "select s3_key from mindia.audios where tenant_id = %s and id = %s for key share",
    MediaKind.DOCUMENT: "select s3_key from mindia.documents where tenant_id = %s and id = %s for key share",
}
_LOCK_TO_REPLACE: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: "select s3_key from mindia.images where tenant_id = %s and id = %s for no key update",
    MediaKind.VIDEO: "select s3_key from mindia.videos where tenant_id = %s and id = %s for no key update",
    MediaKind.AUDIO: "select s3_key from mindia.audios where tenant_id = %s and id = %s for no key update",
    MediaKind.DOCUMENT: "select s3_key from mindia.documents where tenant_id = %s and id = %s for no key update",
}

_RECORD = f"""
with staged as materialized (
    select tenant_id, id from mindia.staged_objects where tenant_id = %(tenant_id)s and id = %(id)s for update
), d as (
    insert into mindia.derivatives
        (tenant_id, id, source_id, operations, s3_key, s3_prefix, content_type, file_size, file_count, sha256, width,
         height, created_at)
    select tenant_id, id, %(source_id)s::uuid, %(operations)s, %(s3_key)s, %(s3_prefix)s, %(content_type)s,
           %(file_size)s::bigint, %(file_count)s::int, decode(%(sha256)s, 'hex'), %(width)s::int, %(height)s::int,
           coalesce(%(created_at)s::timestamptz, now())
    from staged
    on conflict on constraint derivatives_operations_key do nothing
    returning *
), taken as (
    delete from mindia.staged_objects s using d
    where s.tenant_id = %(tenant_id)s and s.tenant_id = d.tenant_id and s.id = d.id
)
select {_COLUMNS} from d
"""

# Single objects by their keys, so that nothing is listed for them.
_GONE: LiteralString = """
), objects as (
    insert into mindia.deleted_objects (tenant_id, id, s3_bucket, s3_keys, s3_prefixes)
    select t.id, gone.id, t.s3_bucket, case when gone.s3_prefix is null then array[gone.s3_key] else '{}' end,
           case when gone.s3_prefix is null then '{}' else array[gone.s3_prefix] end
    from gone join mindia.tenants t on t.id = %(tenant_id)s
)
select id from gone
"""
_REMOVE = f"""
with gone as (
    delete from mindia.derivatives
    where tenant_id = %(tenant_id)s and source_id = %(source_id)s
      and operations = any(%(operations)s::text[])
    returning id, s3_key, s3_prefix
{_GONE}
"""
_REMOVE_BY_ID = f"""
with gone as (
    delete from mindia.derivatives where tenant_id = %(tenant_id)s and id = any(%(ids)s::uuid[])
    returning id, s3_key, s3_prefix
{_GONE}
"""

_IS_THERE = "select true from mindia.derivatives where tenant_id = %s and id = %s"

# The item that the bytes came with, as a rule; behind `union all` nothing is read where that is there.
_ITEM_OF = """
select id from (
    select id from mindia.media m where m.tenant_id = %(tenant_id)s and m.id = %(source_id)s
    union all
    select id from mindia.media m where m.tenant_id = %(tenant_id)s and m.s3_key = %(s3_key)s
) found limit 1
"""

_FORGET = "delete from mindia.derivatives where tenant_id = %s and source_id = any(%s::uuid[])"

_USAGE = "select count(*), coalesce(sum(file_size), 0)::bigint from mindia.derivatives where tenant_id = %s"


@attrs.frozen(kw_only=True)
class NewDerivative:
    """What is written for something that was made of an item. See `Derivative` for what is not told here.

    Attributes:
        id: That of its place, which is on record as staged.
        media: The item.
        operations: What was done with its bytes; of one text there is one derivative.
        created_at: When it was made; now by default.
    """

    id: UUID
    media: Media
    operations: str
    s3_key: str
    s3_prefix: str | None = None
    content_type: str
    file_size: int
    file_count: int = 1
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    created_at: datetime | None = None


@attrs.frozen
class DerivedUsage:
    """How many derivatives a tenant has, and how many bytes these have."""

    count: int
    total_bytes: int


def source_of(s3_key: str) -> UUID | None:
    """Return what names the bytes under the key of an original."""
    area, _, rest = s3_key.partition("/")
    try:
        return UUID(rest) if area == "originals" else None
    except ValueError:
        return None


def get(session: Session, media: Media, operations: str) -> Derivative | None:
    """Read what was made of an item by some operations."""
    parameters = {"tenant_id": media.tenant_id, "source_id": source_of(media.s3_key), "operations": operations}
    return session.one(_GET, parameters, row=_row_of(media.tenant_id, [media]))


def of_items(session: Session, tenant_id: UUID, media: Sequence[Media]) -> list[Derivative]:
    """Read what was made of items, the oldest first."""
    sources = [source_of(item.s3_key) for item in media]
    return session.all(_LIST, {"tenant_id": tenant_id, "source_ids": sources}, row=_row_of(tenant_id, media))


def page(session: Session, tenant_id: UUID, *, after: UUID, limit: int) -> list[Derivative]:
    """Read what was made of all items, in the order of the ids, behind one of these."""
    return session.all(_PAGE, {"tenant_id": tenant_id, "after": after, "limit": limit}, row=_row_of(tenant_id))


def record(session: Session, new: NewDerivative) -> Derivative | None:
    """Write what was made of an item, and take it off the record of what is staged.

    Returns:
        None where there is one already by the same operations, the item is gone, or what was staged was swept. Then
        what is staged stays so.
    """
    if session.one(_LOCK_ITEM[new.media.kind], (new.media.tenant_id, new.media.id), row=str) is None:
        return None
    return _write(session, new)


def replace(session: Session, new: NewDerivative, *, instead_of: str | None = None) -> Derivative | None:
    """Write what was made of an item in place of what was made before by the same operations, if anything was.

    The bytes of the older one are put on record for removal.

    Args:
        session: To write with.
        new: What is written.
        instead_of: Other operations, what was made by which goes, too.

    Returns:
        None where the item is gone, or what was staged was swept. Then the older one stays, if the caller rolls back.
    """
    media = new.media
    # Others that would replace it wait.
    if session.one(_LOCK_TO_REPLACE[media.kind], (media.tenant_id, media.id), row=str) is None:
        return None
    if session.repeated and (made := get(session, media, new.operations)) is not None and made.id == new.id:
        return made
    remove(session, media, [new.operations, instead_of or new.operations])
    return _write(session, new)


def remove(session: Session, media: Media, operations: Sequence[str]) -> int:
    """Remove what was made of an item by any of some operations, put its bytes on record for removal, and count."""
    parameters = {
        "tenant_id": media.tenant_id,
        "source_id": source_of(media.s3_key),
        "operations": list(operations),
    }
    return len(session.all(_REMOVE, parameters, row=_itself))


def remove_by_id(session: Session, tenant_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
    """Remove derivatives, put their bytes on record for removal, and return which were there."""
    return set(session.all(_REMOVE_BY_ID, {"tenant_id": tenant_id, "ids": list(ids)}, row=_itself))


def item_of(session: Session, tenant_id: UUID, derivative: Derivative) -> UUID | None:
    """Return the id of an item that has the bytes that something was made of, or None where all have expired."""
    parameters = {
        "tenant_id": tenant_id,
        "source_id": derivative.source_id,
        "s3_key": f"originals/{derivative.source_id}",
    }
    return session.one(_ITEM_OF, parameters, row=_itself)


def is_there(session: Session, tenant_id: UUID, derivative_id: UUID) -> bool:
    """Tell whether a derivative is on record."""
    return session.one(_IS_THERE, (tenant_id, derivative_id), row=bool) is not None


def forget(session: Session, tenant_id: UUID, sources: Sequence[UUID]) -> None:
    """Remove the rows of all that was made of bytes, whose removal is on record with that of their original.

    To be called behind the statement that has deleted the items: it sees what was recorded while that one waited.
    """
    session.execute(_FORGET, (tenant_id, list(sources)))


def usage(session: Session, tenant_id: UUID) -> DerivedUsage:
    """Count what a tenant has."""
    found = session.one(_USAGE, (tenant_id,), row=DerivedUsage)
    assert found is not None
    return found


def _write(session: Session, new: NewDerivative) -> Derivative | None:
    parameters = attrs.asdict(new, filter=lambda attribute, _: attribute.name != "media")
    parameters |= {"tenant_id": new.media.tenant_id, "source_id": source_of(new.media.s3_key)}
    return session.one(_RECORD, parameters, row=_row_of(new.media.tenant_id, [new.media]))


def _itself(value: UUID) -> UUID:
    return value


def _row_of(tenant_id: UUID, media: Sequence[Media] = ()) -> Callable[..., Derivative]:
    asked_for = {source_of(item.s3_key): item.id for item in reversed(media)}

    def row(
        id: UUID,  # noqa: A002 - the column
        source_id: UUID,
        operations: str,
        s3_key: str,
        s3_prefix: str | None,
        content_type: str,
        file_size: int,
        file_count: int,
        sha256: str | None,
        width: int | None,
        height: int | None,
        created_at: datetime,
    ) -> Derivative:
        return Derivative(
            id=id,
            tenant_id=tenant_id,
            source_id=source_id,
            operations=operations,
            s3_key=s3_key,
            s3_prefix=s3_prefix,
            content_type=content_type,
            file_size=file_size,
            file_count=file_count,
            sha256=sha256,
            width=width,
            height=height,
            created_at=created_at,
            media_id=asked_for.get(source_id),
        )

    return row
