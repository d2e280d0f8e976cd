"""What surrounds every embedder: batches that are halved where they fail, vectors that are checked, a cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.embedding.base import DIMENSIONS, Embedder, checked_rows
from mindia.errors import MissingExtraError, ProviderError, ProviderUnavailableError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

BATCH_SIZE = 32
_MAX_BATCH_CHARS = 200_000
_MAX_CACHED = 1_024
"""Of queries, and as many of documents: some 6 MB."""
_NOT_OF_A_TEXT = (401, 403, 404)
_HOPELESS = 3
"""After so many failures in a row, and no success, it is the server that fails, not a text."""

_Key = tuple[UUID, str, bytes]
_Cache = OrderedDict[_Key, "NDArray[float32]"]


class Vectors:
    """Vectors of texts, checked and in the stored form. Thread-safe.

    What was embedded a moment ago is not embedded again: by its content, and for each tenant by itself, so that how
    long something takes tells nobody what others have.
    """

    def __init__(self) -> None:
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._queries: _Cache = OrderedDict()
        self._documents: _Cache = OrderedDict()

    def queries(self, embedder: Embedder, texts: Sequence[str], *, tenant_id: UUID) -> NDArray[float32]:
        """Return an array of shape (len(texts), 768) for texts that ask, each row of length 1.

        What the embedder raises passes through.

        Raises:
            EmbeddingError: It returned something that is no vector.
        """
        import numpy as np

        rows = []
        for found in self._found(embedder, texts, tenant_id=tenant_id, is_query=True, use_cache=True):
            if isinstance(found, Exception):
                raise found
            rows.append(found)
        return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), dtype=np.float32)

    def documents(
        self, embedder: Embedder, texts: Sequence[str], *, tenant_id: UUID, use_cache: bool = True
    ) -> list[NDArray[float32] | Exception]:
        """Return for each text that is to be found 768 values of length 1, or why it has none.

        After an outage of the embedder's server it is not asked for the texts that are left.

        Args:
            embedder: What makes them.
            texts: The texts.
            tenant_id: Whose they are.
            use_cache: Whether what was embedded a moment ago is taken again.
        """
        return self._found(embedder, texts, tenant_id=tenant_id, is_query=False, use_cache=use_cache)

    def _found(
        self, embedder: Embedder, texts: Sequence[str], *, tenant_id: UUID, is_query: bool, use_cache: bool
    ) -> list[NDArray[float32] | Exception]:
        if self._process != os.getpid():
            self._start_afresh()  # the lock may be held by a thread that is not in this process
        cache = self._queries if is_query else self._documents
        keys = {text: (tenant_id, embedder.model_name, _digest(text)) for text in texts}
        found: dict[str, NDArray[float32] | Exception] = {}
        if use_cache:
            with self._lock:
                for text, key in keys.items():
                    if key in cache:
                        cache.move_to_end(key)
                        found[text] = cache[key]
        outage: Exception | None = None
        for batch in _batches(embedder, [text for text in keys if text not in found]):
            if outage is not None:
                found.update(dict.fromkeys(batch, outage))
                continue
            try:
                made = _Halving(embedder, embedder.embed_queries if is_query else embedder.embed_documents).embed(batch)
            except Exception as error:  # noqa: BLE001 - of the whole batch, and of those behind it
                outage = error
                found.update(dict.fromkeys(batch, error))
                continue
            found.update(zip(batch, made, strict=True))
            with self._lock:
                for text, vector in zip(batch, made, strict=True):
                    if not isinstance(vector, Exception):
                        cache[keys[text]] = vector
                while len(cache) > _MAX_CACHED:
                    cache.popitem(last=False)
        return [found[text] for text in texts]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _batches(embedder: Embedder, texts: Sequence[str]) -> Iterator[list[str]]:
    size = getattr(embedder, "batch_size", BATCH_SIZE)
    most = size if isinstance(size, int) and size > 0 else BATCH_SIZE
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == most or sum(map(len, batch)) + len(text) > _MAX_BATCH_CHARS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@attrs.define
class _Halving:
    """Embeds a batch; where that fails, each half by itself, until the texts are found that cannot be embedded."""

    embedder: Embedder
    make: Callable[[Sequence[str]], NDArray[float32]]
    has_succeeded: bool = False
    failures: int = 0

    def embed(self, texts: Sequence[str]) -> list[NDArray[float32] | Exception]:
        try:
            rows = checked_rows(self.make(texts), embedder=self.embedder, count=len(texts))
        except Exception as error:  # whatever an embedder of the host's raises: one text must not spoil the others
            if self._is_of_all(error):
                raise
            self.failures += 1
            if len(texts) == 1:
                return [error]
            half = len(texts) // 2
            return self.embed(texts[:half]) + self.embed(texts[half:])
        self.has_succeeded = True
        return list(rows)

    def _is_of_all(self, error: Exception) -> bool:
        """Tell whether no text of the batch is to blame, so that halving it would not help."""
        if isinstance(error, ProviderUnavailableError):
            return error.is_outage or (not self.has_succeeded and self.failures >= _HOPELESS)
        return isinstance(error, MissingExtraError) or (
            isinstance(error, ProviderError) and (error.status is None or error.status in _NOT_OF_A_TEXT)
        )
