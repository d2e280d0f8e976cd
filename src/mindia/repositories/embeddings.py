"""Texts of items and the vectors of them: what is read to make vectors, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session, Statement
from mindia.repositories._text import indexable, storable

MAX_INDEXED_BODY = 700_000
"""Together with title, description and metadata at most 1,048,575 bytes: the limit of a tsvector."""

_TEXTS = """
select entity_id, body, generated, generated_by, updated_at from mindia.search_documents
where tenant_id = %(tenant_id)s and entity_id = any(%(ids)s::uuid[])
"""

_THERE = """
select entity_id, passage, description from mindia.embeddings
where tenant_id = %(tenant_id)s and entity_id = any(%(ids)s::uuid[]) and space_id = %(space_id)s
"""

# The locks keep the texts as they are, and the space from being retired, until the vectors are committed.
_PUT = """
with document as materialized (
    select tenant_id, entity_id, entity_type from mindia.search_documents
    where tenant_id = %(tenant_id)s and entity_id = %(entity_id)s and updated_at = %(version)s for share
), space as materialized (
    select id, model_name from mindia.embedding_spaces
    where tenant_id = %(tenant_id)s and id = %(space_id)s and status <> 'retired' for share
), gone as (
    delete from mindia.embeddings e using document d, space s
    where e.tenant_id = %(tenant_id)s and e.tenant_id = d.tenant_id and e.entity_id = d.entity_id and e.space_id = s.id
      and not (e.passage = any(%(kept)s::int[]))
), put as (
    insert into mindia.embeddings
        (tenant_id, entity_id, entity_type, space_id, passage, locator, description, embedding, model_name)
    select d.tenant_id, d.entity_id, d.entity_type, s.id, v.passage, v.locator, v.description,
           v.embedding::{vector}.vector, s.model_name
    from document d cross join space s cross join unnest(
        %(passages)s::int[], %(locators)s::jsonb[], %(descriptions)s::text[], %(vectors)s::text[]
    ) as v (passage, locator, description, embedding)
    on conflict on constraint embeddings_passage_key
    do update set locator = excluded.locator, description = excluded.description, embedding = excluded.embedding,
        created_at = now()
)
select true from document cross join space
"""

# The weight D is all that is the item's own or a model's: A to C are what persons and hosts say.
INDEXED: LiteralString = """
tsv = ts_filter(d.tsv, '{a,b,c}') || setweight(to_tsvector(d.language::regconfig, %(indexed)s), 'D')
"""

_SET_GENERATED: LiteralString = f"""
update mindia.search_documents d
set generated = %(generated)s, generated_by = %(generated_by)s, {INDEXED}
where d.tenant_id = %(tenant_id)s and d.entity_id = %(entity_id)s and d.updated_at = %(version)s
returning true
"""

_COUNTS = """
select s.id, count(*) filter (where e.passage = 0)::int, count(e.id)::int
from mindia.embedding_spaces s
left join mindia.embeddings e on e.tenant_id = s.tenant_id and e.space_id = s.id and e.tenant_id = %(tenant_id)s
where s.tenant_id = %(tenant_id)s group by s.id
"""

_MISSING: LiteralString = """
from mindia.search_documents d
where d.tenant_id = %(tenant_id)s and not exists (
    select from mindia.embeddings e
    where e.tenant_id = %(tenant_id)s and e.entity_id = d.entity_id and e.space_id = %(space_id)s and e.passage = 0
      and (%(since)s::timestamptz is null or e.created_at >= %(since)s::timestamptz)
)
"""
_COUNT_MISSING: LiteralString = "select count(*)::int " + _MISSING
_NEXT_MISSING: LiteralString = (
    "select d.entity_id "
    + _MISSING
    + """
    and d.entity_id > %(after)s
    order by d.entity_id limit %(limit)s
"""
)
# What was added meanwhile and has no vector anywhere is embedded by its own task: searches lose nothing by going on.
_LEFT: LiteralString = (
    """
select count(*) filter (where d.entity_id = any(%(failed)s::uuid[]))::int,
       count(*) filter (where d.entity_id <> all(%(failed)s::uuid[]))::int
"""
    + _MISSING
    + """
    and d.entity_id <> all(%(gone)s::uuid[])
    and (d.entity_id = any(%(failed)s::uuid[]) or exists (
        select from mindia.embeddings e
        join mindia.embedding_spaces s on s.tenant_id = e.tenant_id and s.id = e.space_id
        where e.tenant_id = %(tenant_id)s and s.tenant_id = %(tenant_id)s and s.status = 'active'
          and e.entity_id = d.entity_id and e.passage = 0
    ))
"""
)
# The binary form is the numbers themselves. What has expired is left out.
_VECTORS: LiteralString = """
select each.entity_id, {vector}.vector_send(each.embedding)
from (
    select distinct on (e.entity_id) e.entity_id, e.embedding
    from mindia.embeddings e
    join mindia.media m on m.tenant_id = e.tenant_id and m.id = e.entity_id
    where e.tenant_id = %(tenant_id)s and m.tenant_id = %(tenant_id)s and e.space_id = %(space_id)s
      and e.entity_id > %(after)s and (%(ids)s::uuid[] is null or e.entity_id = any (%(ids)s::uuid[]))
    order by e.entity_id, e.passage
    limit %(limit)s
) each
order by each.entity_id
"""
_COUNT_ITEMS = "select count(*)::int from mindia.search_documents where tenant_id = %s"


@attrs.frozen
class Texts:
    """What there is to say about an item.

    Attributes:
        entity_id: The item.
        body: Its own text.
        generated: What a model has said of it.
        generated_by: Which model, or None.
        updated_at: When what is said about it was changed.
    """

    entity_id: UUID
    body: str
    generated: str
    generated_by: str | None
    updated_at: datetime


@attrs.frozen(kw_only=True)
class NewVector:
    """A vector that is to be written.

    Attributes:
        passage: 0 for the item as a whole.
        locator: Where the passage is, or None.
        description: The text that was embedded.
        vector: In the text form of pgvector.
    """

    passage: int
    locator: dict[str, object] | None
    description: str
    vector: str


@attrs.frozen
class Left:
    """What keeps searches from going to a space.

    Attributes:
        failed: How many items have no vector in it since they could not be embedded.
        behind: How many others have one in the space that is searched, and none in it.
    """

    failed: int
    behind: int


@attrs.frozen
class SpaceCount:
    """How many items and vectors are in a space."""

    space_id: int
    items: int
    vectors: int


def texts(session: Session, tenant_id: UUID, entity_ids: Sequence[UUID]) -> dict[UUID, Texts]:
    """Read the texts of items; those that are gone are left out."""
    found = session.all(_TEXTS, {"tenant_id": tenant_id, "ids": list(entity_ids)}, row=Texts)
    return {each.entity_id: each for each in found}


def descriptions(
    session: Session, tenant_id: UUID, entity_ids: Sequence[UUID], *, space_id: int
) -> dict[tuple[UUID, int], str]:
    """Read which texts of items have vectors in a space, by item and number of the passage."""
    parameters = {"tenant_id": tenant_id, "ids": list(entity_ids), "space_id": space_id}
    rows = session.all(_THERE, parameters, row=lambda entity_id, passage, text: ((entity_id, passage), text))
    return dict(rows)


def put(
    tenant_id: UUID,
    entity_id: UUID,
    *,
    space_id: int,
    version: datetime,
    vectors: Sequence[NewVector],
    kept: Sequence[int],
) -> Statement[bool]:
    """Return what writes vectors of an item into a space, in place of earlier ones.

    It returns nothing where the texts of the item are of another version by now, or the space was retired.

    Args:
        tenant_id: Whose they are.
        entity_id: The item.
        space_id: The space.
        version: Of the texts that were embedded.
        vectors: What is written.
        kept: The numbers of all passages that there are now; vectors of others go.
    """
    return Statement(
        _PUT,
        {
            "tenant_id": tenant_id,
            "entity_id": entity_id,
            "space_id": space_id,
            "version": version,
            "kept": list(kept),
            "passages": [each.passage for each in vectors],
            "locators": [None if each.locator is None else Jsonb(each.locator) for each in vectors],
            "descriptions": [each.description for each in vectors],
            "vectors": [each.vector for each in vectors],
        },
        bool,
    )


def set_generated(
    tenant_id: UUID, entity_id: UUID, *, version: datetime, body: str, generated: str, generated_by: str
) -> Statement[bool]:
    """Return what keeps what a model has said of an item, and lets it be found by its words."""
    said = storable(generated)
    return Statement(
        _SET_GENERATED,
        {
            "tenant_id": tenant_id,
            "entity_id": entity_id,
            "version": version,
            "generated": said,
            "generated_by": generated_by,
            "indexed": indexed(body, said),
        },
        bool,
    )


def indexed(body: str, generated: str) -> str:
    """Return what is searched by word of a text of the item's own and of what a model has said."""
    return indexable(f"{generated}\n{body}", max_bytes=MAX_INDEXED_BODY)


def counts(session: Session, tenant_id: UUID) -> dict[int, SpaceCount]:
    """Count what is in each space."""
    return {each.space_id: each for each in session.all(_COUNTS, {"tenant_id": tenant_id}, row=SpaceCount)}


def count_items(session: Session, tenant_id: UUID) -> int:
    """Count the items of a tenant."""
    return session.one(_COUNT_ITEMS, (tenant_id,), row=int) or 0


def count_missing(session: Session, tenant_id: UUID, *, space_id: int, since: datetime | None = None) -> int:
    """Count the items that have no vector in a space, or none that is younger."""
    parameters = {"tenant_id": tenant_id, "space_id": space_id, "since": since}
    return session.one(_COUNT_MISSING, parameters, row=int) or 0


def left(session: Session, tenant_id: UUID, *, space_id: int, failed: Sequence[UUID], gone: Sequence[UUID]) -> Left:
    """Count what searches would miss if they went to a space.

    Args:
        session: Of the tenant.
        tenant_id: Whose it is.
        space_id: The space.
        failed: Items that could not be embedded.
        gone: Items that are left out.
    """
    parameters = {
        "tenant_id": tenant_id,
        "space_id": space_id,
        "since": None,
        "failed": list(failed),
        "gone": list(gone),
    }
    return session.one(_LEFT, parameters, row=Left) or Left(0, 0)


def missing(
    session: Session,
    tenant_id: UUID,
    *,
    space_id: int,
    since: datetime | None,
    after: UUID,
    limit: int,
) -> list[UUID]:
    """Read the next items that have no vector in a space, or none that is younger, in the order of their ids."""
    parameters: dict[str, Any] = {
        "tenant_id": tenant_id,
        "space_id": space_id,
        "since": since,
        "after": after,
        "limit": limit,
    }
    return session.all(_NEXT_MISSING, parameters, row=_itself)


def vectors(
    session: Session, tenant_id: UUID, *, space_id: int, ids: Sequence[UUID] | None, after: UUID, limit: int
) -> list[tuple[UUID, bytes]]:
    """Read the next vectors of a space, one an item, in the order of their ids.

    Returns:
        The item, and pgvector's binary form: 4 bytes, then each number, big-endian, in 4.
    """
    parameters: dict[str, Any] = {
        "tenant_id": tenant_id,
        "space_id": space_id,
        "ids": None if ids is None else list(ids),
        "after": after,
        "limit": limit,
    }
    return session.all(_VECTORS, parameters, row=lambda entity_id, vector: (entity_id, bytes(vector)))


def _itself(value: UUID) -> UUID:
    return value
