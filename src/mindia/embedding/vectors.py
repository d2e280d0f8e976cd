"""What surrounds every embedder: batches that are halved where they fail, vectors that are checked, a cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
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
_MAX_CACHED = 2_048
"""Some 6 MB."""
_NOT_OF_A_TEXT = (401, 403, 404)
_HOPELESS = 3
"""After so many failures in a row, and no success, it is the server that fails, not a text."""

_Key = tuple[UUID, str, bool, bytes]


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
        self._cached: OrderedDict[_Key, NDArray[float32]] = OrderedDict()

    def queries(self, embedder: Embedder, texts: Sequence[str], *, tenant_id: UUID) -> NDArray[float32]:
        """Return an array of shape (len(texts), 768) for texts that ask, each row of length 1.

        What the embedder raises passes through.

        Raises:
            EmbeddingError: It returned something that is no vector.
        """
        import numpy as np

        found = self._looked_up(
            embedder,
            texts,
            tenant_id=tenant_id,
            is_query=True,
            make=lambda missing: _in_batches(embedder, missing, embedder.embed_queries),
        )
        rows = [_vector(each) for each in found]
        return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), dtype=np.float32)

    def documents(
        self, embedder: Embedder, texts: Sequence[str], *, tenant_id: UUID, use_cache: bool = True
    ) -> list[NDArray[float32] | Exception]:
        """Return for each text that is to be found 768 values of length 1, or why it has none.

        Raises:
            ProviderUnavailableError: The server of the embedder is not there for any of them at the moment.
        """
        return self._looked_up(
            embedder,
            texts,
            tenant_id=tenant_id,
            is_query=False,
            use_cache=use_cache,
            make=lambda missing: _in_batches(embedder, missing, embedder.embed_documents),
        )

    def _looked_up(
        self,
        embedder: Embedder,
        texts: Sequence[str],
        *,
        tenant_id: UUID,
        is_query: bool,
        use_cache: bool = True,
        make: Callable[[Sequence[str]], list[NDArray[float32] | Exception]],
    ) -> list[NDArray[float32] | Exception]:
        if self._process != os.getpid():
            self._start_afresh()  # the lock may be held by a thread that is not in this process
        keys = {text: (tenant_id, embedder.model_name, is_query, _digest(text)) for text in texts}
        found: dict[str, NDArray[float32] | Exception] = {}
        with self._lock:
            for text, key in keys.items():
                if use_cache and key in self._cached:
                    self._cached.move_to_end(key)
                    found[text] = self._cached[key]
        missing = [text for text in keys if text not in found]
        if missing:
            made = make(missing)
            found.update(zip(missing, made, strict=True))
            with self._lock:
                for text, vector in zip(missing, made, strict=True):
                    if not isinstance(vector, Exception):
                        self._cached[keys[text]] = vector
                while len(self._cached) > _MAX_CACHED:
                    self._cached.popitem(last=False)
        return [found[text] for text in texts]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _vector(found: NDArray[float32] | Exception) -> NDArray[float32]:
    if isinstance(found, Exception):
        raise found
    return found


def _in_batches(
    embedder: Embedder, texts: Sequence[str], embed: Callable[[Sequence[str]], NDArray[float32]]
) -> list[NDArray[float32] | Exception]:
    size = getattr(embedder, "batch_size", BATCH_SIZE)
    most = size if isinstance(size, int) and size > 0 else BATCH_SIZE
    found: list[NDArray[float32] | Exception] = []
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == most or sum(map(len, batch)) + len(text) > _MAX_BATCH_CHARS):
            found += _Halving(embedder, embed).embed(batch)
            batch = []
        batch.append(text)
    return found + _Halving(embedder, embed).embed(batch)


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
            # Some servers answer 500 to a text that is too long.
            return error.status != 500 or (not self.has_succeeded and self.failures >= _HOPELESS)
        return isinstance(error, MissingExtraError) or (
            isinstance(error, ProviderError) and (error.status is None or error.status in _NOT_OF_A_TEXT)
        )
