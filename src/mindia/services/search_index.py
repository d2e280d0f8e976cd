"""Search: `library.index`, and `library.search` for short."""

from __future__ import annotations

from mindia.domain.media import MediaKind
from mindia.domain.search import SearchResults
from mindia.embedding.base import stored_vectors
from mindia.errors import InvalidError
from mindia.repositories import search as repository
from mindia.repositories._vectors import as_text
from mindia.services._named import named
from mindia.services.embedding_index import EmbeddingIndex

MAX_QUERY_BYTES = 16 * 1024
MAX_LIMIT = 100
_MIN_DEPTH = 50


class SearchIndex(EmbeddingIndex):
    """Finds the media of one tenant. Thread-safe, unless it is that of a transaction."""

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
            vector=as_text(stored_vectors(embedder.embed_queries([plain]), embedder=embedder, count=1))[0],
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
