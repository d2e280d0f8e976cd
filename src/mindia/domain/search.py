"""Search results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import overload
from uuid import UUID

import attrs

from mindia.domain._shown import Shown, size_of
from mindia.domain.filters import Filters
from mindia.domain.media import Image, Media, MediaKind


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


class SearchMode(StrEnum):
    """What a search goes by."""

    HYBRID = "hybrid"
    SEMANTIC = "semantic"
    TEXT = "text"


class SearchStrategy(StrEnum):
    """How vectors are compared.

    Attributes:
        NONE: Not at all.
        EXACT: Each of the tenant, one by one: every right answer is found.
        EXACT_FILTERED: Each of those that fit the filters, one by one.
        INDEX: By the tenant's own index, which finds nearly every right answer.
    """

    NONE = "none"
    EXACT = "exact"
    EXACT_FILTERED = "exact_filtered"
    INDEX = "index"


class SearchOptions(Filters, total=False):
    """What `Library.search` takes beside the query: see `SearchIndex.search`, which takes the same.

    Attributes:
        mode: What is searched by.
        limit: How many results.
        after: The place behind which.
        min_similarity: Smallest cosine similarity of a result by vector.
        text_weight: Of the leg by word.
        vector_weight: Of the leg by vector.
        highlight: Whether results show where the words are.
    """

    mode: SearchMode | str
    limit: int
    after: str | None
    min_similarity: float | None
    text_weight: float
    vector_weight: float
    highlight: bool


@attrs.frozen(kw_only=True)
class SearchPlan:
    """How a search was done, and why.

    Attributes:
        strategy: How vectors were compared in the end.
        reason: Why so, in words.
        vector_count: How many vectors the tenant has, as far as was counted; None where that did not matter.
        candidate_count: How many items fit the filters, as far as was counted; None where that did not matter.
        breadth: How far the index was searched, or None.
        was_repeated: Whether the index was asked first, and then all vectors were compared.
    """

    strategy: SearchStrategy
    reason: str
    vector_count: int | None = None
    candidate_count: int | None = None
    breadth: int | None = None
    was_repeated: bool = False


@attrs.frozen
class Span:
    """A part of a text.

    Attributes:
        start: Its first character.
        end: The one behind its last.
    """

    start: int
    end: int


@attrs.frozen(kw_only=True)
class Highlight:
    """A part of what is said about an item, with the words that matched. It is plain text: escape it for HTML.

    Attributes:
        field: `title`, `description` or `body`.
        text: The part.
        matches: Where in it the words are.
    """

    field: str
    text: str
    matches: tuple[Span, ...]


@attrs.frozen(kw_only=True)
class SearchResult:
    """One item that was found, with the parts of its score.

    Attributes:
        media: The item.
        score: Reciprocal rank fusion of both legs: the sum of weight / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR
            2009). It orders the results of one search; it is not comparable between searches.
        text_rank: Place among the results by word, from 1 on, or None where no word matched.
        text_score: PostgreSQL's `ts_rank_cd`, or None.
        vector_rank: Place among the results by vector, from 1 on, or None.
        similarity: Cosine similarity to the query, from -1 to 1, or None.
        passage: The part of the item that is nearest to the query; None where that is the item as a whole.
        highlights: Where its words are, if it was found by word and `highlight` was asked for.
    """

    media: Media
    score: float
    text_rank: int | None = None
    text_score: float | None = None
    vector_rank: int | None = None
    similarity: float | None = None
    passage: Passage | None = None
    highlights: tuple[Highlight, ...] = ()


@attrs.frozen(kw_only=True)
class NearDuplicate:
    """An image that looks like another one.

    Attributes:
        media: The image.
        distance: In how many of 64 bits their perceptual hashes differ: 0 for the same picture in another size or
            quality, up to some 8 for one that was changed a little.
    """

    media: Image
    distance: int


@attrs.frozen(kw_only=True, repr=False)
class SearchResults(Shown, Sequence[SearchResult]):
    """The results of one search, best first.

    Attributes:
        query: What was asked; empty where it was no text.
        items: The results.
        plan: How they were found.
        next: Names the place behind the last result, for `after` of the same search; None at the end.
        corrected: The words that were searched by, where those of the query are in no text; else None.
        warnings: What is not as it should be.
    """

    query: str
    items: tuple[SearchResult, ...]
    plan: SearchPlan
    next: str | None = None
    corrected: str | None = None
    warnings: tuple[str, ...] = ()

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

    def __repr__(self) -> str:
        lines = [f"<SearchResults of {self.query!r}: {len(self)} result(s){', more follow' if self.next else ''}>"]
        lines += [f"  {result.score:.4f}  {result.media.filename!r}" for result in self.items]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from mindia.notebook import html

        best = max((result.score for result in self.items), default=0.0)
        tiles = (
            html.Tile(
                title=result.media.filename,
                kind=str(result.media.kind),
                facts=(size_of(result.media), *([] if result.passage is None else [result.passage.text[:200]])),
                picture=self._preview(result.media),
                share=result.score / best if best else 0.0,
                score=f"score {result.score:.4f}"
                + ("" if result.similarity is None else f", similarity {result.similarity:.2f}"),
            )
            for result in self.items
        )
        notes = [*([] if self.corrected is None else [f"searched by {self.corrected!r}"]), *self.warnings]
        heading = f"{len(self)} result(s)" + (f" of {self.query!r}" if self.query else "")
        return html.gallery(heading, tiles, count=len(self), notes=notes)
