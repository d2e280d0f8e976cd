"""Vectors of the media of one tenant: making and keeping them."""

from __future__ import annotations

from uuid import UUID

from mindia._handles import Handle
from mindia.db.session import Session
from mindia.domain.media import Media
from mindia.embedding.base import stored_vectors
from mindia.errors import NotFoundError, TransactionConflictError
from mindia.repositories import embeddings as repository
from mindia.repositories import media as media_repository
from mindia.repositories._vectors import as_text
from mindia.services.context import TenantContext

_MAX_TRIES = 5


class EmbeddingIndex(Handle):
    """Makes the vectors of one tenant's media. Thread-safe, unless it is that of a transaction."""

    def __init__(self, context: TenantContext) -> None:
        self._context = context

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
        vector = as_text(stored_vectors(embedder.embed_documents([description]), embedder=embedder, count=1))[0]

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
