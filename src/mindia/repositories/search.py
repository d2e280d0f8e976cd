"""Searching."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.media import Media, MediaKind
from mindia.domain.search import SearchResult
from mindia.repositories.media import COLUMNS, media_of

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


def search(session: Session, tenant_id: UUID, question: Question) -> list[SearchResult]:
    """Find items by word and by vector, fused by reciprocal rank."""
    make = media_of(tenant_id)
    return session.all(
        _SEARCH, attrs.asdict(question) | {"tenant_id": tenant_id}, row=lambda *columns: _result(make, *columns)
    )


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
