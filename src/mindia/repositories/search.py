"""Search texts, spaces and vectors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.media import Media, MediaKind
from mindia.domain.search import SearchResult
from mindia.repositories.media import COLUMNS, media_of

_TEXTS = """
select body, updated_at from mindia.search_documents where tenant_id = %s and entity_id = %s
"""

_MAKE_SPACE = """
insert into mindia.embedding_spaces (tenant_id, id, model_name, native_dimensions)
select %(tenant_id)s::uuid, coalesce(max(id), 0) + 1, %(model_name)s, %(native_dimensions)s::int
from mindia.embedding_spaces where tenant_id = %(tenant_id)s
on conflict do nothing
"""

_SPACE = "select id from mindia.embedding_spaces where tenant_id = %s and model_name = %s"

# The lock keeps the texts as they are until the vector is committed.
_PUT = """
insert into mindia.embeddings (tenant_id, entity_id, entity_type, space_id, description, embedding, model_name)
select d.tenant_id, d.entity_id, d.entity_type, %(space)s, %(description)s, %(vector)s::{vector}.vector, %(model_name)s
from mindia.search_documents d
where d.tenant_id = %(tenant_id)s and d.entity_id = %(entity_id)s and d.updated_at = %(version)s
for share
on conflict on constraint embeddings_passage_key
do update set description = excluded.description, embedding = excluded.embedding, created_at = now()
"""

# Both legs name at most `depth` items; an item may be in one or in both. What they name is materialized, so that the
# policy of the tables lets it be looked up by its id, and `offset 0` makes sure of that: a plan for any tenant would
# read all of the tenant's.
_SEARCH: LiteralString = f"""
with words as materialized (
    select d.entity_id as word_id, d.text_score,
           row_number() over (order by d.text_score desc, d.entity_id) as text_rank
    from mindia.search_words(
        %(tenant_id)s, websearch_to_tsquery(%(language)s::regconfig, %(query)s), %(kind)s::mindia.entity_type
    ) d
    order by text_rank limit %(depth)s
), nearest as materialized (
    select e.entity_id, min(e.embedding operator({{vector}}.<=>) %(vector)s::{{vector}}.vector) as distance
    from mindia.embeddings e
    join mindia.embedding_spaces s on s.tenant_id = e.tenant_id and s.id = e.space_id
    where e.tenant_id = %(tenant_id)s and s.tenant_id = %(tenant_id)s and s.model_name = %(model_name)s
      and (%(kind)s::mindia.entity_type is null or e.entity_type = %(kind)s::mindia.entity_type)
    group by e.entity_id order by distance, e.entity_id limit %(depth)s
), vectors as materialized (
    select entity_id as vector_id, 1 - distance as similarity,
           row_number() over (order by distance, entity_id) as vector_rank
    from nearest where 1 - distance >= %(threshold)s
), fused as materialized (
    select coalesce(word_id, vector_id) as fused_id, text_rank, text_score, vector_rank, similarity,
           (coalesce(1.0 / (60 + text_rank), 0) + coalesce(1.0 / (60 + vector_rank), 0))::float8 as score
    from words full join vectors on word_id = vector_id
)
select score, text_rank, text_score::float8, vector_rank, similarity, {COLUMNS}
from fused cross join lateral (
    select * from mindia.media i where i.tenant_id = %(tenant_id)s and i.id = fused_id offset 0
) m
order by score desc, m.id limit %(limit)s
"""


@attrs.frozen(kw_only=True)
class Question:
    """A search, as the statement takes it.

    Attributes:
        query: Words.
        language: Text search configuration.
        vector: The embedded query, in the text form of pgvector.
        model_name: The space that it is in.
        threshold: Smallest similarity of a result by vector.
        kind: Only media of this kind.
        limit: How many results.
        depth: How many candidates each leg names.
    """

    query: str
    language: str
    vector: str
    model_name: str
    threshold: float
    kind: MediaKind | None
    limit: int
    depth: int


@attrs.frozen
class Texts:
    """The text of an item's own, and when what is said about the item was changed."""

    body: str
    updated_at: datetime


def search(session: Session, tenant_id: UUID, question: Question) -> list[SearchResult]:
    """Find items by word and by vector, fused by reciprocal rank."""
    make = media_of(tenant_id)
    return session.all(
        _SEARCH, attrs.asdict(question) | {"tenant_id": tenant_id}, row=lambda *columns: _result(make, *columns)
    )


def texts(session: Session, tenant_id: UUID, entity_id: UUID) -> Texts | None:
    """Read the texts of an item."""
    return session.one(_TEXTS, (tenant_id, entity_id), row=Texts)


def space_id(session: Session, tenant_id: UUID, *, model_name: str, native_dimensions: int) -> int:
    """Return the number of a model's space, which is made where it is missing."""
    parameters = {"tenant_id": tenant_id, "model_name": model_name, "native_dimensions": native_dimensions}
    while True:
        found = session.one(_SPACE, (tenant_id, model_name), row=int)
        if found is not None:
            return found
        # Nothing is written where another session takes the same number; the next round sees which model has it.
        session.execute(_MAKE_SPACE, parameters)


def put_vector(
    session: Session, media: Media, *, space: int, description: str, vector: str, model_name: str, version: datetime
) -> bool:
    """Write the vector of an item in place of an earlier one; False where its texts are of another version by now."""
    parameters = {
        "tenant_id": media.tenant_id,
        "entity_id": media.id,
        "space": space,
        "description": description,
        "vector": vector,
        "model_name": model_name,
        "version": version,
    }
    return session.execute(_PUT, parameters) > 0


def _result(
    make: Callable[..., Media],
    score: float,
    text_rank: int | None,
    text_score: float | None,
    vector_rank: int | None,
    similarity: float | None,
    *media: object,
) -> SearchResult:
    return SearchResult(
        media=make(*media),  # the columns of COLUMNS
        score=score,
        text_rank=text_rank,
        text_score=text_score,
        vector_rank=vector_rank,
        similarity=similarity,
    )
