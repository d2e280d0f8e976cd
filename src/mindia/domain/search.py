"""Search results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import overload
from uuid import UUID

import attrs

from mindia.domain.media import Media, MediaKind


class SpaceStatus(StrEnum):
    """Whether the vectors of a space are being made, searched, or left over."""

    BUILDING = "building"
    ACTIVE = "active"
    RETIRED = "retired"


@attrs.frozen(kw_only=True)
class EmbeddingSpace:
    """What one model makes of a tenant's media; vectors of different spaces are never compared.

    Attributes:
        tenant_id: Whose it is.
        id: Its number within the tenant.
        model_name: The model.
        native_dimensions: Length of the model's own vectors; shorter ones than 768 are padded with zeros.
        status: Whether it is searched.
        created_at: In UTC.
    """

    tenant_id: UUID
    id: int
    model_name: str
    native_dimensions: int
    status: SpaceStatus
    created_at: datetime


@attrs.frozen(kw_only=True)
class Embedding:
    """A vector of an item or of one of its passages.

    Attributes:
        entity_id: The media item.
        entity_type: Its kind.
        tenant_id: Whose it is.
        space_id: The space that the vector is in.
        passage: 0 for the item as a whole or its first passage.
        description: The text that was embedded.
        model_name: The model that made it.
        created_at: In UTC.
    """

    entity_id: UUID
    entity_type: MediaKind
    tenant_id: UUID
    space_id: int
    passage: int
    description: str
    model_name: str
    created_at: datetime


@attrs.frozen(kw_only=True)
class Passage:
    """The part of an item that matched: of a long document, a transcript or a video.

    Attributes:
        number: Its number within the item, from 0 on.
        text: Its words.
        page: The page of a document, from 1 on, or None.
        start_s: Where it begins in a recording, in seconds, or None.
        end_s: Where it ends, or None.
    """

    number: int
    text: str
    page: int | None = None
    start_s: float | None = None
    end_s: float | None = None


@attrs.frozen(kw_only=True)
class SearchResult:
    """One item that was found, with the parts of its score.

    Attributes:
        media: The item.
        score: Reciprocal rank fusion of both legs: the sum of 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR
            2009). It orders the results of one search; it is not comparable between searches.
        text_rank: Place among the results by word, from 1 on, or None where no word matched.
        text_score: PostgreSQL's `ts_rank_cd`, or None.
        vector_rank: Place among the results by vector, from 1 on, or None.
        similarity: Cosine similarity to the query, from -1 to 1, or None.
    """

    media: Media
    score: float
    text_rank: int | None
    text_score: float | None
    vector_rank: int | None
    similarity: float | None


@attrs.frozen(kw_only=True)
class SearchResults(Sequence[SearchResult]):
    """The results of one search, best first.

    Attributes:
        query: What was asked.
        items: The results.
    """

    query: str
    items: tuple[SearchResult, ...]

    @overload
    def __getitem__(self, index: int) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SearchResult, ...]: ...
    def __getitem__(self, index: int | slice) -> SearchResult | tuple[SearchResult, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[SearchResult]:
        return iter(self.items)
