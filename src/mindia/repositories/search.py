"""Searching: the statement, put together from parts for each leg, each way to compare vectors, each way to filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, LiteralString, cast
from uuid import UUID

import attrs

from mindia.db._cursor import BinaryVector
from mindia.db.session import Session
from mindia.domain.media import Image, Media
from mindia.domain.search import NearDuplicate, Passage, SearchResult, SearchStrategy
from mindia.repositories._highlights import END, START, highlights_of
from mindia.repositories.media import COLUMNS, media_of
from mindia.repositories.media_find import Selection, checked, listed, named_first, parameters_of

# Both legs name at most `depth` items; an item may be in one or in both. What they name is materialized, so that the
# policy of the tables lets it be looked up by its id, and `offset 0` makes sure of that: a plan for any tenant would
# read all of the tenant's.
_QUERY: LiteralString = "websearch_to_tsquery(%(language)s::regconfig, %(words)s)"

_EXCLUDED: LiteralString = """
excluded as materialized (
    select x.entity_id as excluded_id
    from mindia.search_words(
        %(tenant_id)s, websearch_to_tsquery(%(language)s::regconfig, %(excluded)s), null::mindia.entity_type[]
    ) x
),
"""
_WORDS: LiteralString = """
words as materialized (
    select w.entity_id as word_id, w.text_score,
           row_number() over (order by w.text_score desc, w.entity_id) as text_rank
    from (
        select f.entity_id, f.text_score from mindia.search_words(
            %(tenant_id)s, websearch_to_tsquery(%(language)s::regconfig, %(words)s),
            %(kinds)s::mindia.entity_type[]
        ) f
        order by f.text_score desc, f.entity_id offset 0
    ) w
"""
_WORDS_END: LiteralString = """
    order by text_rank limit %(depth)s
),
"""
# Which of several passages is the nearest is looked up for what is shown: arrays of distance and passage, of which the
# smallest would tell, take twice as long to make and to sort as the distances themselves. These come from a subquery of
# its own: where rows with their vectors are grouped, they spill to the disk.
_GROUPED: LiteralString = """
    select e.entity_id as near_id, min(e.distance) as distance,
           case when min(e.passage) = max(e.passage) then min(e.passage) end as passage, count(*) as vectors
    from (
"""
_DISTANCE: LiteralString = """
        select e.entity_id, e.passage, e.embedding operator({vector}.<=>) %(vector)s::{vector}.vector as distance
"""
_OF_TENANT: LiteralString = """
        from mindia.embeddings e
        where e.tenant_id = %(tenant_id)s and e.space_id = %(space)s
"""
_BEST: LiteralString = (
    """
    select e.entity_id as near_id, min(e.distance) as distance, null::int as passage, null::bigint as vectors
    from (
"""
    + _DISTANCE
)
_EXACT: LiteralString = _BEST + _OF_TENANT
_EXACT_FILTERED: LiteralString = (
    _BEST
    + """
        from listed cross join lateral (
        select * from mindia.embeddings i
        where i.tenant_id = %(tenant_id)s and i.entity_id = listed_id and i.space_id = %(space)s offset 0
    ) e
    where true
"""
)
_NEAREST: LiteralString = "nearest as materialized (select x.*, 0 as part from ("
_NEAREST_EXACT: LiteralString = _NEAREST + _EXACT
_NEAREST_FILTERED: LiteralString = _NEAREST + _EXACT_FILTERED
# Grouping all takes a third of the time where there is nothing to group.
_NEAREST_ONE_EACH: LiteralString = _NEAREST + _GROUPED + _DISTANCE + _OF_TENANT
_ONE_EACH: LiteralString = """
        order by distance, e.entity_id limit %(depth)s
    ) e group by e.entity_id order by distance, near_id
"""
_HEAD: LiteralString = "with head as materialized ("
_NEAREST_END: LiteralString = " limit %(depth)s) x), "
_OF_KINDS: LiteralString = " and e.entity_type = any(%(kinds)s::mindia.entity_type[])"
_LISTED: LiteralString = " and e.entity_id in (select listed_id from listed)"
_NOT_EXCLUDED: LiteralString = " and e.entity_id not in (select excluded_id from excluded)"
_EACH_ONCE: LiteralString = " offset 0) e group by e.entity_id order by distance, near_id"

_BY_INDEX: LiteralString = (
    """
    select n.near_id, n.distance, n.passage, n.vectors from (
"""
    + _GROUPED
    + """
        select * from mindia.nearest_by_index(
            %(tenant_id)s, %(space)s::smallint, %(vector)s::{vector}.vector, %(kinds)s::mindia.entity_type[],
            %(rows)s::int, %(breadth)s::int
        ) e
        where true
"""
)
_BY_INDEX_END: LiteralString = ") e group by e.entity_id order by distance, near_id offset 0) n"

_CHECKED_WORD: LiteralString = """
    where exists (
        select from mindia.media m where m.tenant_id = %(tenant_id)s and m.id = w.entity_id
"""
_CHECKED_NEAR: LiteralString = """
    where exists (
        select from mindia.media m where m.tenant_id = %(tenant_id)s and m.id = n.near_id
"""

_NO_VECTORS: LiteralString = """
nearest as materialized (
    select null::uuid as near_id, null::float8 as distance, null::int as passage, null::bigint as vectors,
           0 as part limit 0
),
"""

_SELECTED: LiteralString = """
select t.word_count, t.near_count, t.named_count, t.vector_count, t.tenth, r.*
from totals t left join (
    select f.score, f.text_rank, f.text_score::float8, f.vector_rank, f.similarity,
"""
_FUSED: LiteralString = (
    """
vectors as materialized (
    select near_id, 1 - distance as similarity, passage,
           row_number() over (order by part, distance, near_id) as vector_rank
    from nearest where 1 - distance >= %(threshold)s
), fused as materialized (
    select coalesce(word_id, near_id) as fused_id, text_rank, text_score, vector_rank, similarity, passage,
           (coalesce(%(text_weight)s::float8 / (60 + text_rank), 0)
            + coalesce(%(vector_weight)s::float8 / (60 + vector_rank), 0))::float8 as score
    from words full join vectors on word_id = near_id
), totals as materialized (
    select (select count(*) from words) as word_count, (select count(*) from nearest) as near_count,
           (select sum(vectors)::bigint from nearest) as named_count,
           (select count(*) from vectors) as vector_count,
           (select distance from nearest order by part, distance offset 9 limit 1) as tenth
)
"""
    + _SELECTED
)
# With nothing to fuse, a search among few vectors takes the server two thirds of the time.
_ALONE: LiteralString = (
    """
ranked as materialized (
    select near_id, 1 - distance as similarity, distance, passage, vectors,
           row_number() over (order by part, distance, near_id) as vector_rank
    from nearest
), fused as (
    select near_id as fused_id, null::bigint as text_rank, null::real as text_score, vector_rank, similarity, passage,
           %(vector_weight)s::float8 / (60 + vector_rank) as score
    from ranked where similarity >= %(threshold)s
), totals as materialized (
    select 0::bigint as word_count, count(*) as near_count, sum(vectors)::bigint as named_count,
           count(*) filter (where similarity >= %(threshold)s) as vector_count,
           min(distance) filter (where vector_rank = 10) as tenth
    from ranked
)
"""
    + _SELECTED
)
_PASSAGE: LiteralString = " p.passage, p.description as passage_text, p.locator, "
_NO_PASSAGE: LiteralString = " null::int, null::text, null::jsonb, "
_HIGHLIGHTS: LiteralString = f"""
    h.title, h.description as said, h.body,
    {COLUMNS}
"""
_SHOWN: LiteralString = f"""
    left join lateral (
        select ts_headline(d.language::regconfig, translate(d.title, '{START}{END}', '  '), {_QUERY},
                           'HighlightAll=true,StartSel={START},StopSel={END}') as title,
               ts_headline(d.language::regconfig, translate(left(i.description, 20000), '{START}{END}', '  '), {_QUERY},
                           'MaxWords=40,MinWords=15,StartSel={START},StopSel={END}') as description,
               ts_headline(d.language::regconfig, translate(left(d.body, 20000), '{START}{END}', '  '), {_QUERY},
                           'MaxWords=40,MinWords=15,StartSel={START},StopSel={END}') as body
        from mindia.search_documents d
        join mindia.media i on i.tenant_id = %(tenant_id)s and i.id = d.entity_id
        where d.tenant_id = %(tenant_id)s and d.entity_id = f.fused_id and f.text_rank is not null offset 0
    ) h on true
"""
_NO_HIGHLIGHTS: LiteralString = f" null::text, null::text, null::text, {COLUMNS}"

# In their order, in which they are looked up until there are enough.
_CHOSEN: LiteralString = """
    from (
        select * from fused u
        where least(u.text_rank, u.vector_rank) > %(floor)s
          and (%(place)s::float8 is null or u.score < %(place)s::float8
               or (u.score = %(place)s::float8 and u.fused_id > %(place_id)s::uuid))
        order by u.score desc, u.fused_id offset 0
    ) f
"""
_OF_PASSAGE: LiteralString = """
    left join lateral (
        select b.* from (
            select i.passage, i.description, i.locator from mindia.embeddings i
            where i.tenant_id = %(tenant_id)s and i.entity_id = f.fused_id and i.space_id = %(space)s
              and f.similarity is not null and f.passage is distinct from 0
              and i.passage = coalesce(f.passage, i.passage)
            order by i.embedding operator({vector}.<=>) %(vector)s::{vector}.vector, i.passage limit 1
        ) b
        where b.passage > 0
    ) p on true
"""
_MEDIA: LiteralString = """
    cross join lateral (
        select * from mindia.media i where i.tenant_id = %(tenant_id)s and i.id = f.fused_id offset 0
    ) m
    order by f.score desc, f.fused_id limit %(limit)s
) r on true
order by r.score desc, r.id
"""
_RESULTS: dict[tuple[bool, bool], LiteralString] = {
    (False, False): _FUSED + _NO_PASSAGE + _NO_HIGHLIGHTS + _CHOSEN + _MEDIA,
    (False, True): _FUSED + _NO_PASSAGE + _HIGHLIGHTS + _CHOSEN + _SHOWN + _MEDIA,
    (True, False): _FUSED + _PASSAGE + _NO_HIGHLIGHTS + _CHOSEN + _OF_PASSAGE + _MEDIA,
    (True, True): _FUSED + _PASSAGE + _HIGHLIGHTS + _CHOSEN + _SHOWN + _OF_PASSAGE + _MEDIA,
}
"""By whether there is a leg by vector, and whether words are shown."""

_RESULTS_ALONE: dict[bool, LiteralString] = {
    False: _ALONE + _NO_PASSAGE + _NO_HIGHLIGHTS + _CHOSEN + _MEDIA,
    True: _ALONE + _PASSAGE + _NO_HIGHLIGHTS + _CHOSEN + _OF_PASSAGE + _MEDIA,
}
"""The same without a leg by word."""

_VECTOR_OF = """
select e.embedding::text from mindia.embeddings e
where e.tenant_id = %s and e.entity_id = %s and e.space_id = %s order by e.passage limit 1
"""


# Hashes are compared by functions that are not leakproof: all of the tenant's are, and no more.
_NEAR_DUPLICATES = f"""
with alike as materialized (
    select i.id as alike_id,
           bit_count(('x' || (i.details ->> 'perceptual_hash'))::bit(64) # %(bits)s::bit(64)) as distance
    from mindia.images i
    where i.tenant_id = %(tenant_id)s and i.id <> %(id)s and i.details ? 'perceptual_hash'
)
select a.distance::int, {COLUMNS}
from alike a cross join lateral (
    select * from mindia.media i where i.tenant_id = %(tenant_id)s and i.id = a.alike_id offset 0
) m
where a.distance <= %(max_distance)s
order by a.distance, m.id limit %(limit)s
"""


@attrs.frozen(kw_only=True)
class Question:
    """A search, as the statement takes it.

    Attributes:
        words: In the syntax of `websearch_to_tsquery`, or None for no leg by word.
        excluded: Words that an item must not have, in the same syntax, or None.
        language: Text search configuration.
        vector: The embedded query, or None for no leg by vector.
        space: The space that it is in.
        threshold: Smallest similarity of a result by vector.
        kinds: Only media of these kinds, or None.
        selection: What else an item must fit, or None.
        strategy: How vectors are compared.
        rows: How many the index names.
        breadth: How far the index is searched.
        head: How many items the index has named on the first page, where vectors are compared one by one for a later
            page: these stay the first.
        depth: How many candidates each leg names.
        floor: Items with a rank up to this in a leg were on pages before.
        place: Score of the last item of the page before, and its id; or None.
        text_weight: Of the leg by word.
        vector_weight: Of the leg by vector.
        limit: How many results.
        highlight: Whether the words are looked for in the texts.
        has_passages: Whether items may have several vectors.
        is_small: Whether few rows are read, so that a plan for any tenant will do.
    """

    words: str | None
    excluded: str | None
    language: str
    vector: BinaryVector | None
    space: int | None
    threshold: float
    kinds: Sequence[str] | None
    selection: Selection | None
    strategy: SearchStrategy
    rows: int
    breadth: int
    head: int
    depth: int
    floor: int
    place: tuple[float, UUID] | None
    text_weight: float
    vector_weight: float
    limit: int
    highlight: bool
    has_passages: bool
    is_small: bool


@attrs.frozen
class Found:
    """What a search has found.

    Attributes:
        results: The best.
        word_count: How many candidates the leg by word has named.
        near_count: How many the other one has named.
        named_count: Of how many vectors these are, where that is known.
        vector_count: How many of those are similar enough.
        tenth: The distance of the tenth nearest, or None.
    """

    results: list[SearchResult]
    word_count: int
    near_count: int
    named_count: int | None
    vector_count: int
    tenth: float | None


def search(session: Session, tenant_id: UUID, question: Question) -> Found:
    """Find items by word and by vector, fused by reciprocal rank."""
    parameters = {
        name: value
        for name, value in attrs.asdict(question, recurse=False).items()
        if name not in ("selection", "strategy", "place", "highlight")
    }
    parameters["tenant_id"] = tenant_id
    parameters["place"], parameters["place_id"] = question.place or (None, None)
    before: LiteralString = ""
    ids: LiteralString = ""
    conditions: LiteralString = ""
    if question.selection is not None:
        parameters |= parameters_of(question.selection)
        before, ids, conditions = (
            named_first(question.selection),
            listed(question.selection),
            checked(question.selection),
        )
    make = media_of(tenant_id)
    statement: LiteralString = _statement(question, before=before, ids=ids, conditions=conditions)
    if question.is_small:
        session.plan_once()
    rows = session.all(statement, parameters, row=lambda *columns: columns)
    word_count, near_count, named_count, vector_count, tenth = rows[0][:5]
    results = [_result(make, *row[5:]) for row in rows if row[5] is not None]
    return Found(results, word_count, near_count, named_count, vector_count, tenth)


def vector_of(session: Session, tenant_id: UUID, *, media_id: UUID, space: int) -> str | None:
    """Read the vector of an item, in the text form of pgvector."""
    return session.one(_VECTOR_OF, (tenant_id, media_id, space), row=str)


def near_duplicates(session: Session, image: Image, *, max_distance: int, limit: int) -> list[NearDuplicate]:
    """Find images whose perceptual hashes are like that of one."""
    if image.perceptual_hash is None:
        return []
    make = media_of(image.tenant_id)

    def row(distance: int, *media: object) -> NearDuplicate:
        return NearDuplicate(media=cast("Image", make(*media)), distance=distance)

    parameters = {
        "tenant_id": image.tenant_id,
        "id": image.id,
        "bits": f"{int(image.perceptual_hash, 16):064b}",
        "max_distance": max_distance,
        "limit": limit,
    }
    return session.all(_NEAR_DUPLICATES, parameters, row=row)


def _statement(
    question: Question, *, before: LiteralString, ids: LiteralString, conditions: LiteralString
) -> LiteralString:
    """Put the statement together.

    Args:
        question: The search.
        before: What comes before the ids of the items that fit, from its `with` on, if anything does.
        ids: The query of these, or nothing where all fit.
        conditions: The same as conditions on an item.
    """
    query: LiteralString = "with "
    if question.strategy is SearchStrategy.INDEX and not question.head:
        ids = ""
    elif ids:
        query = before + ", listed as materialized (" if before else "with listed as materialized ("
        query += ids + "), "
        conditions = ""
    if question.excluded is not None:
        query += _EXCLUDED
    if question.words is None:
        query += _nearest(question, ids=ids, conditions=conditions)
        return query + _RESULTS_ALONE[question.vector is not None]
    query += _words(ids=ids, conditions=conditions) + _nearest(question, ids=ids, conditions=conditions)
    return query + _RESULTS[question.vector is not None, question.highlight]


def _words(*, ids: LiteralString, conditions: LiteralString) -> LiteralString:
    query = _WORDS
    if ids:
        query += " where w.entity_id in (select listed_id from listed)"
    elif conditions:
        query += _CHECKED_WORD + conditions + " offset 0)"
    return query + _WORDS_END


def _nearest(question: Question, *, ids: LiteralString, conditions: LiteralString) -> LiteralString:
    if question.vector is None:
        return _NO_VECTORS
    by_index: LiteralString = _by_index(question, ids=ids, conditions=conditions)
    if question.strategy is SearchStrategy.INDEX:
        return _NEAREST + by_index + _NEAREST_END
    is_filtered = question.strategy is SearchStrategy.EXACT_FILTERED
    narrowed: LiteralString = _LISTED if ids and not is_filtered else ""
    if question.kinds is not None:
        narrowed += _OF_KINDS
    if question.excluded is not None:
        narrowed += _NOT_EXCLUDED
    if not question.head and not is_filtered and not question.has_passages:
        return _NEAREST_ONE_EACH + narrowed + _ONE_EACH + _NEAREST_END
    if not question.head:
        return (_NEAREST_FILTERED if is_filtered else _NEAREST_EXACT) + narrowed + _EACH_ONCE + _NEAREST_END
    query: LiteralString = "nearest as materialized (" + _HEAD + by_index + " limit %(head)s)"
    query += " select x.*, 0 as part from head x where true union all select x.*, 1 from ("
    query += _EXACT_FILTERED if is_filtered else _EXACT
    query += narrowed
    query += " and e.entity_id not in (select near_id from head)"
    return query + _EACH_ONCE + _NEAREST_END


def _by_index(question: Question, *, ids: LiteralString, conditions: LiteralString) -> LiteralString:
    query = _BY_INDEX
    if ids:
        query += _LISTED
    if question.excluded is not None:
        query += _NOT_EXCLUDED
    query += _BY_INDEX_END
    if conditions:
        query += _CHECKED_NEAR + conditions + " offset 0)"
    return query + " order by n.distance, n.near_id"


def _result(
    make: Callable[..., Media],
    score: float,
    text_rank: int | None,
    text_score: float | None,
    vector_rank: int | None,
    similarity: float | None,
    passage: int | None,
    passage_text: str | None,
    locator: dict[str, Any] | None,
    title: str | None,
    description: str | None,
    body: str | None,
    *media: object,
) -> SearchResult:
    return SearchResult(
        media=make(*media),  # the columns of COLUMNS
        score=score,
        text_rank=text_rank,
        text_score=text_score,
        vector_rank=vector_rank,
        similarity=similarity,
        passage=None if passage is None or locator is None else _passage(passage, passage_text or "", locator),
        highlights=highlights_of(title=title, description=description, body=body) if title is not None else (),
    )


def _passage(number: int, text: str, locator: dict[str, Any]) -> Passage:
    return Passage(
        number=number,
        text=text,
        page=locator.get("page"),
        start_s=locator.get("start_s"),
        end_s=locator.get("end_s"),
    )
