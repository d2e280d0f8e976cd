"""The port of embedders, and the rules for what they return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mindia.errors import EmbeddingError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

DIMENSIONS = 768
"""Length of a stored vector. Shorter ones are padded with zeros, which leaves cosine similarity as it is."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Thread-safe.

    Attributes:
        model_name: Names the space that the vectors live in, at most 100 characters: vectors of two models are never
            compared. Changes whenever the vectors would.
        native_dimensions: Length of the vectors, at most 768.
        similarity_threshold: Cosine similarity below which a result is no result; a property of the model.
    """

    @property
    def model_name(self) -> str: ...  # noqa: D102 - above
    @property
    def native_dimensions(self) -> int: ...  # noqa: D102 - above
    @property
    def similarity_threshold(self) -> float: ...  # noqa: D102 - above

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions) for texts that are to be found."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions) for texts that ask."""
        ...


def stored_vectors(vectors: NDArray[float32], *, embedder: Embedder, count: int) -> NDArray[float32]:
    """Check what an embedder returned and bring it into the stored form.

    Args:
        vectors: What it returned.
        embedder: For its name and dimensions.
        count: How many texts it was given.

    Returns:
        Shape (count, 768), each row of length 1.

    Raises:
        EmbeddingError: Wrong shape, values that are not finite, or a vector of zeros.
    """
    import numpy as np

    array = np.asarray(vectors, dtype=np.float32)
    native = embedder.native_dimensions
    if native > DIMENSIONS:
        raise EmbeddingError(f"{embedder.model_name} makes {native} dimensions; {DIMENSIONS} are stored at most")
    if array.shape != (count, native):
        raise EmbeddingError(f"{embedder.model_name} returned the shape {array.shape}, not {(count, native)}")
    if not np.isfinite(array).all():
        raise EmbeddingError(f"{embedder.model_name} returned values that are not finite")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not norms.all():
        raise EmbeddingError(f"{embedder.model_name} returned a vector of zeros")
    return np.pad(array / norms, ((0, 0), (0, DIMENSIONS - native)))
