"""Words of a tenant's media, to find what a misspelt one stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

import attrs

from mindia.db.session import Session

_MAX_WORDS = 16

# In their order, so that two that learn the same words at once do not wait for each other in a circle.
_LEARN: LiteralString = """
insert into mindia.search_vocabulary (tenant_id, word)
select distinct %(tenant_id)s::uuid, said.word
from unnest(%(ids)s::uuid[]) as named (named_id)
cross join lateral (
    select d.title, d.generated, d.metadata, left(d.body, 50000) as body from mindia.search_documents d
    where d.tenant_id = %(tenant_id)s and d.entity_id = named_id offset 0
) d
cross join lateral (
    select m.description from mindia.media m where m.tenant_id = %(tenant_id)s and m.id = named_id offset 0
) m
cross join lateral unnest(tsvector_to_array(
    to_tsvector('simple', concat_ws(' ', d.title, m.description, d.generated, d.body))
    || jsonb_to_tsvector('simple', d.metadata, '["string"]')
)) as said (word)
where length(said.word) between 3 and 40 and said.word !~ '[^[:alpha:]]'
order by said.word
on conflict on constraint search_vocabulary_pkey do nothing
"""

# A word that is misspelt begins or ends like the one that it stands for, or nearly always.
_LOOK_UP: LiteralString = """
select asked.word,
       exists (select from mindia.search_vocabulary v where v.tenant_id = %(tenant_id)s and v.word = asked.word),
       array(
           select v.word from mindia.search_vocabulary v
           where v.tenant_id = %(tenant_id)s and v.word >= left(asked.word, 2)
             and v.word < left(asked.word, 2) || chr(1114111)
             and length(v.word) between length(asked.word) - 2 and length(asked.word) + 2
           limit 2000
       ) || array(
           select v.word from mindia.search_vocabulary v
           where v.tenant_id = %(tenant_id)s and v.reversed >= left(reverse(asked.word), 2)
             and v.reversed < left(reverse(asked.word), 2) || chr(1114111)
             and length(v.word) between length(asked.word) - 2 and length(asked.word) + 2
           limit 2000
       )
"""
# Also of those that differ at both ends; every word of the tenant's is compared.
_BY_TRIGRAMS: LiteralString = """
       || array(
           select alike.word from (
               select v.word, {trigrams}.similarity(v.word, asked.word) as similarity
               from mindia.search_vocabulary v
               where v.tenant_id = %(tenant_id)s
                 and length(v.word) between length(asked.word) - 2 and length(asked.word) + 2
           ) alike
           where alike.similarity >= 0.2 order by alike.similarity desc, alike.word limit 100
       )
"""
_ASKED: LiteralString = """
from unnest(%(words)s::text[]) as asked (word)
where to_tsvector(%(language)s::regconfig, asked.word) <> ''
"""
_LOOK_UPS: dict[bool, LiteralString] = {True: _LOOK_UP + _BY_TRIGRAMS + _ASKED, False: _LOOK_UP + _ASKED}
"""By whether pg_trgm is there."""


@attrs.frozen
class LookUp:
    """A word of a query.

    Attributes:
        word: The word.
        is_known: Whether a text has it.
        similar: Words that it may stand for.
    """

    word: str
    is_known: bool
    similar: list[str]


def learn(session: Session, tenant_id: UUID, media_ids: Sequence[UUID]) -> None:
    """Take on the words of items."""
    session.execute(_LEARN, {"tenant_id": tenant_id, "ids": list(media_ids)})


def look_up(session: Session, tenant_id: UUID, text: str, *, language: str) -> list[LookUp]:
    """Look up the words of a text that are long enough to be told from others."""
    words = [word for word in dict.fromkeys(re.findall(r"\w+", text.lower())) if len(word) >= 4][:_MAX_WORDS]
    query = _LOOK_UPS[session.has_trigrams]
    return session.all(query, {"tenant_id": tenant_id, "words": words, "language": language}, row=LookUp)
