"""New media rows of staged bytes, with all that is written in one statement with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import attrs
from psycopg.types.json import Jsonb

from mindia.db.session import Session, Statement
from mindia.domain.media import Media, MediaKind, Staged
from mindia.repositories._details import columns_of, details_of
from mindia.repositories._new_media import ADDED, FOLLOW_UP, MEDIA, NEW, NewItem
from mindia.repositories._text import indexable
from mindia.repositories.events import type_parameters
from mindia.repositories.media import media_of

_MAX_INDEXED_BODY = 700_000
"""Together with title, description and metadata at most 1,048,575 bytes: the limit of a tsvector."""
_CHARS_AT_ONCE = 1_000_000
"""Of documents that are written together."""

_STAGED: LiteralString = f"""
{NEW}, staged as materialized (
    select t.tenant_id, t.s3_bucket, n.*
    from new n cross join lateral mindia.take_staged(%(tenant_id)s::uuid, n.id, %(binds)s) t
), quota as materialized (
    select mindia.use_quota(tenant_id, count(*), sum(file_size)::bigint) from staged group by tenant_id
){MEDIA}
"""
_COMMON: LiteralString = """
id, tenant_id, filename, original_filename, s3_key, content_type, file_size, sha256, metadata, description, details,
expires_at
"""
_INSERT: dict[MediaKind, LiteralString] = {
    MediaKind.IMAGE: f"""
        {_STAGED} insert into mindia.images ({_COMMON}, s3_url, width, height)
        select {_COMMON}, 's3://' || s3_bucket || '/' || s3_key, width, height from staged, quota
    """,
    MediaKind.VIDEO: f"""
        {_STAGED} insert into mindia.videos ({_COMMON}, duration, width, height)
        select {_COMMON}, duration, width, height from staged, quota
    """,
    MediaKind.AUDIO: f"""
        {_STAGED} insert into mindia.audios ({_COMMON}, duration, bitrate, sample_rate, channels)
        select {_COMMON}, duration, bitrate, sample_rate, channels from staged, quota
    """,
    MediaKind.DOCUMENT: f"""
        {_STAGED} insert into mindia.documents ({_COMMON}, page_count)
        select {_COMMON}, page_count from staged, quota
    """,
}
_DOCUMENT: LiteralString = """
, document as (
    insert into mindia.search_documents (tenant_id, entity_id, entity_type, language, title, body, metadata, tsv)
    select %(tenant_id)s::uuid, id, %(kind)s::mindia.entity_type, language, title, body, metadata,
           setweight(to_tsvector(language::regconfig, title), 'A')
           || setweight(to_tsvector(language::regconfig, indexed_description), 'B')
           || setweight(to_tsvector(language::regconfig, words), 'C')
           || setweight(to_tsvector(language::regconfig, coalesce(indexed_body, body)), 'D')
    from added
)
"""


@attrs.frozen(kw_only=True)
class NewMedia(NewItem):
    """What is written for a new item of staged bytes.

    Attributes:
        staged: The bytes.
        s3_key: Where they are.
        language: Text search configuration.
    """

    staged: Staged
    s3_key: str
    language: str


def add_all(
    session: Session, news: Sequence[NewMedia], *, meanwhile: Callable[[], None] | None = None
) -> list[Media | None]:
    """Write items of staged bytes, all at once; None for each whose staged row is gone.

    `meanwhile` is called while the server is at work, before anything is committed; what it raises undoes all.
    """
    groups = [*_groups(news)]
    binds = len(groups) == 1 and session.hand_over_binding()
    written = session.batch([_statement(group, binds=binds) for group in groups], meanwhile=meanwhile)
    added = {item.id: item for rows in written for item in rows}
    return [added.pop(new.staged.id, None) for new in news]  # the same bytes make one item, once


def _groups(news: Sequence[NewMedia]) -> Iterator[list[NewMedia]]:
    """Yield what is written by one statement: items of one kind, and of documents no more than memory has room for."""
    alike: dict[MediaKind, list[NewMedia]] = {}
    chars: Counter[MediaKind] = Counter()
    for new in news:
        kind = new.staged.facts.kind
        chars[kind] += len(_body_of(new))
        if chars[kind] > _CHARS_AT_ONCE and kind in alike:
            yield alike.pop(kind)
            chars[kind] = len(_body_of(new))
        alike.setdefault(kind, []).append(new)
    yield from alike.values()


def _body_of(new: NewMedia) -> str:
    return getattr(new.staged.facts, "text", "")


def _statement(news: Sequence[NewMedia], *, binds: bool) -> Statement[Media]:
    """Return what writes items of one kind."""
    kind = news[0].staged.facts.kind
    tenant_id = news[0].staged.tenant_id
    by_id: dict[UUID, NewMedia] = {}
    for new in news:
        by_id.setdefault(new.staged.id, new)
    own = {media_id: _own_columns(new) for media_id, new in by_id.items()}
    make = media_of(tenant_id)

    def item(media_id: UUID, uploaded_at: datetime, updated_at: datetime) -> Media:
        new = by_id[media_id]
        return make(
            kind=kind,
            id=media_id,
            **own[media_id],
            sha256=bytes.fromhex(new.staged.sha256),
            metadata=new.texts.metadata,
            description=new.texts.description,
            expires_at=new.expires_at,
            uploaded_at=uploaded_at,
            updated_at=updated_at,
        )

    return Statement(
        _INSERT[kind] + ADDED + _DOCUMENT + FOLLOW_UP[kind],
        {
            "items": Jsonb([own[media_id] | _row_of_staged(new) for media_id, new in by_id.items()]),
            "tenant_id": tenant_id,
            "kind": kind,
            "binds": binds,
            **type_parameters(news[0].event.type),
        },
        item,
    )


def _own_columns(new: NewMedia) -> dict[str, Any]:
    """Return what is of the bytes alone, and is in the row as it is in the item."""
    staged = new.staged
    return {
        "filename": staged.filename,
        "original_filename": staged.original_filename,
        "content_type": staged.content_type,
        "file_size": staged.file_size,
        "s3_key": new.s3_key,
        "details": details_of(staged.facts),
        **columns_of(staged.facts),
    }


def _row_of_staged(new: NewMedia) -> dict[str, object]:
    """Return what else a new item of staged bytes has, as JSON."""
    body = _body_of(new)
    indexed = indexable(body, max_bytes=_MAX_INDEXED_BODY)
    return {
        "sha256": rf"\x{new.staged.sha256}",
        "language": new.language,
        "body": body,
        **({} if indexed == body else {"indexed_body": indexed}),
        **new.row(new.staged.id),
    }
