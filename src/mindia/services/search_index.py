"""Search: `library.index`, and `library.search` for short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack
from uuid import UUID

import attrs

from mindia.db.session import Session
from mindia.domain.filters import Filters
from mindia.domain.media import Image, Media
from mindia.domain.search import NearDuplicate, SearchMode, SearchResults
from mindia.embedding.base import Embedder, ImageEmbedder, stored_vectors
from mindia.errors import InvalidError, NotFoundError, SpaceMismatchError
from mindia.repositories import media as media_repository
from mindia.repositories import search as repository
from mindia.services import searching
from mindia.services._named import named, shown
from mindia.services.embedding_index import EmbeddingIndex
from mindia.services.previews import MediaPreviews
from mindia.services.search_query import (
    Narrowed,
    Words,
    check_limit,
    checked_number,
    checked_vector,
    fingerprint,
    narrowed,
    words_of,
)
from mindia.services.searching import Asked
from mindia.services.sources import Source, opened
from mindia.services.spaces import SearchSpace

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import ArrayLike, NDArray

_MAX_WEIGHT = 1_000.0
_MAX_SIDE = 512
_MAX_IMAGE_BYTES = 100_000_000


class SearchIndex(EmbeddingIndex):
    """Finds the media of one tenant. Thread-safe, unless it is that of a transaction."""

    def search(
        self,
        query: str,
        *,
        mode: SearchMode | str = SearchMode.HYBRID,
        limit: int = 20,
        after: str | None = None,
        min_similarity: float | None = None,
        text_weight: float = 1.0,
        vector_weight: float = 1.0,
        highlight: bool = False,
        **filters: Unpack[Filters],
    ) -> SearchResults:
        """Find items by their words and by their vectors, both fused.

        Args:
            query: What is looked for, at most 16 KiB. By word, all words must be there; `"in quotes"` is a phrase, `or`
                is or; where none of the words is in any text, misspelt ones are corrected. By vector, the text as a
                whole. What stands behind a minus sign, `-word` or `-"some words"`, must not be in the item's texts.
            mode: `hybrid`, `semantic` for vectors alone, or `text` for words alone.
            limit: How many results, 1 to 100.
            after: `SearchResults.next` of the page before this one, for the same search.
            min_similarity: Smallest cosine similarity of a result by vector, from -1 to 1, instead of the embedder's.
            text_weight: What a place in the leg by word counts, from 0 to 1000.
            vector_weight: What a place in the leg by vector counts.
            highlight: Whether results show where the words are in their texts, which takes a moment for each.
            filters: What results must fit besides, see `mindia.domain.filters.Filters`.

        Raises:
            InvalidError: An argument is out of range.
            SpaceMismatchError: Vectors alone are asked for, and they are of another model than the embedder.
            ProviderUnavailableError: The embedder's server is away; by words alone, `mode="text"`, it goes on.
            TenantInactiveError: The tenant is suspended or deleted.
        """
        check_limit(limit)
        wanted = named(mode, SearchMode, argument="mode")
        words = words_of(query)
        weights = (
            checked_number("text_weight", text_weight, 0, _MAX_WEIGHT),
            checked_number("vector_weight", vector_weight, 0, _MAX_WEIGHT),
        )
        if not any(weights):
            raise InvalidError("text_weight and vector_weight are both 0: one of them must be more")
        fitting = narrowed(filters)
        if min_similarity is not None:
            checked_number("min_similarity", min_similarity, -1, 1)
        mark = fingerprint(words.full, wanted, min_similarity, weights, fitting)
        language = self._language()

        def ask(words: Words) -> SearchResults:
            asked = self._asked(words, wanted, weights, fitting, min_similarity)
            asked = attrs.evolve(asked, limit=limit, after=after, highlight=highlight, mark=mark, text=query)
            found = searching.search(self._context, asked, language=language)
            return found.shown_with(MediaPreviews(self._context))

        results = ask(words)
        if wanted is SearchMode.SEMANTIC or any(result.text_rank is not None for result in results):
            return results
        better = searching.respelt(self._context, words, language=language) if words.positive else None
        if better is None:
            return results
        found = ask(words_of(better))
        if any(result.text_rank is not None for result in found):
            return attrs.evolve(found, corrected=better).shown_with(MediaPreviews(self._context))
        return results

    def similar(
        self,
        media: Media | UUID,
        *,
        limit: int = 20,
        after: str | None = None,
        min_similarity: float | None = None,
        **filters: Unpack[Filters],
    ) -> SearchResults:
        """Find the items that are most like one of the library, by vector.

        Args:
            media: The item, which is not among the results, or its id.
            limit: As for `search`.
            after: As for `search`.
            min_similarity: As for `search`.
            filters: As for `search`.

        Raises:
            InvalidError: An argument is out of range.
            NotFoundError: There is no such item, or it has not been embedded yet.
        """
        import numpy as np

        media_id = media if isinstance(media, UUID) else media.id
        space = self._space()
        text = None
        if space.space_id is not None:
            number, context = space.space_id, self._context
            text = context.as_viewer.run(
                lambda session: repository.vector_of(session, context.tenant_id, media_id=media_id, space=number),
                single=True,
            )
        if text is None:
            raise NotFoundError(
                f"there is no media item {media_id}, or it has no vector yet: see library.index.embed()"
            )
        vector = np.fromstring(text[1:-1], dtype=np.float32, sep=",")
        without = [*(filters.get("without_ids") or ()), media_id]
        return self._by_vector(
            vector, space, {**filters, "without_ids": without}, limit=limit, after=after, min_similarity=min_similarity
        )

    def similar_to_vector(
        self,
        vector: ArrayLike,
        *,
        limit: int = 20,
        after: str | None = None,
        min_similarity: float | None = None,
        **filters: Unpack[Filters],
    ) -> SearchResults:
        """Find the items that are nearest to a vector of the embedder's model.

        Args:
            vector: As many numbers as the model makes, or 768.
            limit: As for `search`.
            after: As for `search`.
            min_similarity: As for `search`.
            filters: As for `search`.

        Raises:
            InvalidError: An argument is out of range, or the vector has another length, or is none.
        """
        space = self._space()
        native = (space.embedder or self._context.embedder).native_dimensions
        checked = checked_vector(vector, native_dimensions=native)
        return self._by_vector(checked, space, filters, limit=limit, after=after, min_similarity=min_similarity)

    def similar_to_image(
        self,
        image: Source,
        *,
        limit: int = 20,
        after: str | None = None,
        min_similarity: float | None = None,
        **filters: Unpack[Filters],
    ) -> SearchResults:
        """Find the items that are most like a picture, with an embedder that puts pictures beside texts.

        Args:
            image: A path, bytes, or a file that is open for reading bytes. It is not stored.
            limit: As for `search`.
            after: As for `search`.
            min_similarity: As for `search`.
            filters: As for `search`.

        Raises:
            InvalidError: An argument is out of range, or the embedder is no `ImageEmbedder`.
            UnsupportedTypeError: It is no picture.
            CorruptMediaError: It cannot be decoded.
        """
        check_limit(limit)
        space = self._space()
        embedder = space.embedder
        if not isinstance(embedder, ImageEmbedder):
            name = type(self._context.embedder if embedder is None else embedder).__name__
            raise InvalidError(f"{name} makes no vectors of pictures: use an embedder that has embed_images()")
        return self._by_vector(
            self._vector_of_image(image, embedder),
            space,
            filters,
            limit=limit,
            after=after,
            min_similarity=min_similarity,
        )

    def near_duplicates(
        self, image: Image | UUID, *, max_distance: int = 8, limit: int = 20
    ) -> tuple[NearDuplicate, ...]:
        """Find the images that look like one of the library: other sizes, other formats, slight changes.

        Every image is compared, which takes about a second for a million. What means the same without looking the same
        is found by `similar`.

        Args:
            image: The image, or its id.
            max_distance: In how many of 64 bits the hashes may differ, 0 to 64.
            limit: How many, 1 to 100; those that look most alike first.

        Raises:
            InvalidError: An argument is out of range.
            NotFoundError: There is no such image.
        """
        check_limit(limit)
        if not isinstance(max_distance, int) or isinstance(max_distance, bool) or not 0 <= max_distance <= 64:
            raise InvalidError(f"max_distance must be 0 to 64, not {shown(max_distance)}")
        context = self._context
        image_id = image if isinstance(image, UUID) else image.id

        def work(session: Session) -> list[NearDuplicate] | None:
            found = media_repository.get(session, context.tenant_id, image_id)
            if not isinstance(found, Image):
                return None
            return repository.near_duplicates(session, found, max_distance=max_distance, limit=limit)

        duplicates = context.as_viewer.run(work)
        if duplicates is None:
            raise NotFoundError(f"there is no image {image_id}")
        return tuple(duplicates)

    def _vector_of_image(self, image: Source, embedder: ImageEmbedder) -> NDArray[float32]:
        import io

        with opened(image) as file:
            content = file.read(_MAX_IMAGE_BYTES + 1)
        if len(content) > _MAX_IMAGE_BYTES:
            raise InvalidError(f"the picture has more than {_MAX_IMAGE_BYTES} bytes")
        (shot,) = self._context.prober.pictures(
            io.BytesIO(content),
            size=len(content),
            filename="picture",
            max_side=_MAX_SIDE,
            times=None,
            settings=self._context.settings,
        )
        (vector,) = stored_vectors(embedder.embed_images([shot.content]), embedder=embedder, count=1)
        found: NDArray[float32] = vector
        return found

    def _by_vector(
        self,
        vector: NDArray[float32],
        space: SearchSpace,
        filters: Filters,
        *,
        limit: int,
        after: str | None,
        min_similarity: float | None,
    ) -> SearchResults:
        check_limit(limit)
        if min_similarity is not None:
            checked_number("min_similarity", min_similarity, -1, 1)
        fitting = narrowed(filters)
        asked = Asked(
            words=None,
            excluded=None,
            vector=vector,
            space=space.space_id,
            threshold=_threshold(space.embedder or self._context.embedder, min_similarity),
            narrowed=fitting,
            text_weight=0.0,
            vector_weight=1.0,
            limit=limit,
            after=after,
            highlight=False,
            mark=fingerprint(vector.tobytes().hex(), min_similarity, fitting),
            text="",
            warnings=() if space.warning is None else (space.warning,),
        )
        found = searching.search(self._context, asked, language=self._language())
        return found.shown_with(MediaPreviews(self._context))

    def _asked(
        self,
        words: Words,
        mode: SearchMode,
        weights: tuple[float, float],
        fitting: Narrowed,
        min_similarity: float | None,
    ) -> Asked:
        context = self._context
        space = SearchSpace(space_id=None, embedder=None, warning=None)
        vector = None
        if mode is not SearchMode.TEXT:
            space = self._space()
            if space.embedder is None and mode is SearchMode.SEMANTIC:
                raise SpaceMismatchError(space.warning or "there is no embedder for the vectors of this tenant")
            # What has not been said is near nothing.
            if space.embedder is not None and space.space_id is not None and words.positive:
                vector = context.vectors.queries(space.embedder, [words.positive], tenant_id=context.tenant_id)[0]
        return Asked(
            words=None if mode is SearchMode.SEMANTIC else words,
            excluded=words.excluded,
            vector=vector,
            space=space.space_id,
            threshold=_threshold(space.embedder or context.embedder, min_similarity),
            narrowed=fitting,
            text_weight=weights[0],
            vector_weight=weights[1],
            limit=1,
            after=None,
            highlight=False,
            mark="",
            text="",
            warnings=() if space.warning is None else (space.warning,),
        )

    def _space(self) -> SearchSpace:
        return self._context.spaces.for_search(self._context.tenant_id, self._context.as_viewer)

    def _language(self) -> str:
        return self._context.tenant().settings.language


def _threshold(embedder: Embedder, given: float | None) -> float:
    return float(embedder.similarity_threshold if given is None else given)
