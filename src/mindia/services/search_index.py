"""Search: `library.index`, and `library.search` for short."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from mindia._handles import Handle
from mindia.db.session import Session
from mindia.domain.media import Media, MediaKind
from mindia.domain.search import SearchResults
from mindia.embedding.base import stored_vectors
from mindia.errors import InvalidError, NotFoundError, TransactionConflictError
from mindia.repositories import media as media_repository
from mindia.repositories import search as repository
from mindia.services._named import named
from mindia.services.context import TenantContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import float32
    from numpy.typing import NDArray

MAX_QUERY_BYTES = 16 * 1024
MAX_LIMIT = 100
_MIN_DEPTH = 50
_MAX_TRIES = 5


class SearchIndex(Handle):
    """Finds the media of one tenant. Thread-safe, unless it is that of a transaction."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    def search(self, query: str, *, kind: MediaKind | str | None = None, limit: int = 20) -> SearchResults:
        """Find items by their words and by their vectors, both fused.

        Args:
            query: What is looked for, at most 16 KiB. By word, all words must be there; `"in quotes"` is a phrase,
                `-word` excludes, `or` is or. By vector, the text as it is.
            kind: Only this kind.
            limit: How many results, 1 to 100.

        Raises:
            InvalidError: An argument is out of range.
            TenantInactiveError: The tenant is suspended or deleted.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidError(f"limit must be 1 to {MAX_LIMIT}, not {limit}")
        size = len(query.encode("utf-8", "replace"))
        if size > MAX_QUERY_BYTES:
            raise InvalidError(f"the query has {size} bytes; the limit is {MAX_QUERY_BYTES}")
        plain = query.encode("utf-8", "replace").decode().replace("\0", " ").strip()
        if not plain:
            raise InvalidError(f"the query has no words: {query!r}")
        context = self._context
        embedder = context.embedder
        question = repository.Question(
            query=plain,
            language=context.settings.language,
            vector=_as_text(stored_vectors(embedder.embed_queries([plain]), embedder=embedder, count=1))[0],
            model_name=embedder.model_name,
            threshold=embedder.similarity_threshold,
            kind=None if kind is None else named(kind, MediaKind, argument="kind"),
            limit=limit,
            depth=max(_MIN_DEPTH, limit),
        )
        found = context.as_viewer.run(
            lambda session: repository.search(session, context.tenant_id, question), single=True
        )
        return SearchResults(query=query, items=tuple(found))

    def embed(self, media_id: UUID) -> None:
        """Describe an item, embed the description and store the vector; in place of an earlier one.

        The task `generate_embedding` does this in the background.

        Raises:
            NotFoundError: There is no such item.
            EmbeddingError: The embedder returned something that is not a vector.
        """
        for _ in range(_MAX_TRIES):
            if self._embed(media_id):
                return
        raise TransactionConflictError(f"the media item {media_id} was changed again and again while it was embedded")

    def _embed(self, media_id: UUID) -> bool:
        """Embed an item; False where it was changed meanwhile."""
        context = self._context

        def read(session: Session) -> tuple[Media, repository.Texts] | None:
            # In this order: texts that are changed in between are younger than the version, and so noticed.
            texts = repository.texts(session, context.tenant_id, media_id)
            media = media_repository.get(session, context.tenant_id, media_id)
            return None if media is None or texts is None else (media, texts)

        found = context.as_member.run(read)
        if found is None:
            raise NotFoundError(f"there is no media item {media_id}")
        media, texts = found
        description = context.describer.describe(
            media,
            text=" ".join(filter(None, (media.description, texts.body))),
            open_media=lambda: context.storage.open(context.bucket(), media.s3_key),
        )
        embedder = context.embedder
        vector = _as_text(stored_vectors(embedder.embed_documents([description]), embedder=embedder, count=1))[0]

        def write(session: Session) -> bool:
            space = repository.space_id(
                session,
                context.tenant_id,
                model_name=embedder.model_name,
                native_dimensions=embedder.native_dimensions,
            )
            return repository.put_vector(
                session,
                media,
                space=space,
                description=description,
                vector=vector,
                model_name=embedder.model_name,
                version=texts.updated_at,
            )

        return context.as_member.run(write)


def _as_text(vectors: NDArray[float32]) -> Sequence[str]:
    from pgvector import Vector

    return [Vector(vector).to_text() for vector in vectors]
