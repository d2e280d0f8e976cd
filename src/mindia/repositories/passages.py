"""Passages of items: pages, spans of a transcript, frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session, Statement
from mindia.domain.media import MediaKind
from mindia.repositories._text import storable
from mindia.repositories.embeddings import INDEXED, indexed

_READ = """
select entity_id, passage, source, page, start_s, end_s, text from mindia.passages
where tenant_id = %(tenant_id)s and entity_id = any(%(ids)s::uuid[]) order by entity_id, passage
"""

_PUT = """
with document as materialized (
    select tenant_id, entity_id from mindia.search_documents
    where tenant_id = %(tenant_id)s and entity_id = %(entity_id)s and updated_at = %(version)s for share
), gone as (
    delete from mindia.passages p using document d
    where p.tenant_id = %(tenant_id)s and p.tenant_id = d.tenant_id and p.entity_id = d.entity_id
      and p.source = %(source)s and not (p.passage = any(%(passages)s::int[]))
), put as (
    insert into mindia.passages (tenant_id, entity_id, passage, source, page, start_s, end_s, text)
    select d.tenant_id, d.entity_id, v.passage, %(source)s, v.page, v.start_s, v.end_s, v.text
    from document d cross join unnest(
        %(passages)s::int[], %(pages)s::int[], %(starts)s::float8[], %(ends)s::float8[], %(texts)s::text[]
    ) as v (passage, page, start_s, end_s, text)
    on conflict on constraint passages_pkey
    do update set page = excluded.page, start_s = excluded.start_s, end_s = excluded.end_s, text = excluded.text
)
select true from document
"""

_LOCK = """
select generated, updated_at from mindia.search_documents where tenant_id = %s and entity_id = %s for update
"""

_SET_BODY: LiteralString = f"""
with document as (
    update mindia.search_documents d set body = %(body)s, updated_at = greatest(now(), d.updated_at + interval '1 us'),
        {INDEXED}
    where d.tenant_id = %(tenant_id)s and d.entity_id = %(entity_id)s
    returning d.updated_at
), task as (
    insert into mindia.tasks (id, tenant_id, task_type, kind, payload, initiated_by, trace_context)
    select %(task_id)s::uuid, %(tenant_id)s::uuid, 'generate_embedding', 'generate_embedding', %(task)s::jsonb,
           %(initiated_by)s::uuid, %(trace_context)s::jsonb
    from document
    where not exists (
        select from mindia.tasks
        where tenant_id = %(tenant_id)s and kind = 'generate_embedding' and status = 'pending'
          and payload ->> 'entity_id' = %(entity_id)s::text
    )
)
select updated_at from document
"""


@attrs.frozen
class StoredPassage:
    """A passage as it is stored.

    Attributes:
        entity_id: The item.
        passage: Its number within the item.
        source: `page`, `transcript` or `frame`.
        page: The page, from 1 on, or None.
        start_s: Where it begins, in seconds, or None.
        end_s: Where it ends, or None.
        text: Its words.
    """

    entity_id: UUID
    passage: int
    source: str
    page: int | None
    start_s: float | None
    end_s: float | None
    text: str


@attrs.frozen
class _Locked:
    generated: str
    updated_at: datetime


def passages(session: Session, tenant_id: UUID, entity_ids: Sequence[UUID]) -> list[StoredPassage]:
    """Read the passages of items, in their order."""
    return session.all(_READ, {"tenant_id": tenant_id, "ids": list(entity_ids)}, row=StoredPassage)


def put(
    tenant_id: UUID, entity_id: UUID, *, version: datetime, source: str, passages: Sequence[StoredPassage]
) -> Statement[bool]:
    """Return what writes the passages of an item that are of one source, in place of those of before."""
    return Statement(
        _PUT,
        {
            "tenant_id": tenant_id,
            "entity_id": entity_id,
            "version": version,
            "source": source,
            "passages": [each.passage for each in passages],
            "pages": [each.page for each in passages],
            "starts": [each.start_s for each in passages],
            "ends": [each.end_s for each in passages],
            "texts": [storable(each.text) for each in passages],
        },
        bool,
    )


def set_transcript(
    session: Session,
    tenant_id: UUID,
    entity_id: UUID,
    *,
    kind: MediaKind,
    passages: Sequence[StoredPassage],
    task_id: UUID,
    initiated_by: UUID | None,
    trace_context: str | None,
) -> bool:
    """Write what is said in a recording, and have it embedded; False where the item is gone."""
    locked = session.one(_LOCK, (tenant_id, entity_id), row=_Locked)
    if locked is None:
        return False
    body = "\n".join(each.text for each in passages)
    version = session.one(
        _SET_BODY,
        {
            "tenant_id": tenant_id,
            "entity_id": entity_id,
            "body": body,
            "indexed": indexed(body, locked.generated),
            "task_id": task_id,
            "task": Jsonb({"entity_id": str(entity_id), "entity_type": kind}),
            "initiated_by": initiated_by,
            "trace_context": trace_context,
        },
        row=_itself,
    )
    assert version is not None, "a locked row is there"
    session.batch([put(tenant_id, entity_id, version=version, source="transcript", passages=passages)])
    return True


def _itself(value: datetime) -> datetime:
    return value
