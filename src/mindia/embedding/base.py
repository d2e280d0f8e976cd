"""The port of embedders, and the rules for what they return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mindia.errors import EmbeddingError, InvalidError

if TYPE_CHECKING:
    from numpy import float32, float64
    from numpy.typing import NDArray

DIMENSIONS = 768
"""Length of a stored vector. Shorter ones are padded with zeros, which leaves cosine similarity as it is."""

MAX_MODEL_NAME = 100
_SMALLEST_NORM = 1e-30
"""What is shorter has no direction."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Thread-safe.

    It may have two attributes more: `batch_size`, how many texts it is given at once (32 by default), and
    `is_matryoshka`, whether the beginning of a vector is a vector by itself, so that one longer than 768 may be cut.

    Attributes:
        model_name: Names the space that the vectors live in, at most 100 characters: vectors of two models are never
            compared. Changes whenever the vectors would.
        native_dimensions: Length of the vectors; more than 768 only where the model is Matryoshka.
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


@runtime_checkable
class ImageEmbedder(Embedder, Protocol):
    """An embedder whose vectors of pictures can be compared with those of texts, as CLIP's can."""

    def embed_images(self, images: Sequence[bytes]) -> NDArray[float32]:
        """Return an array of shape (len(images), native_dimensions) for pictures, each a file of JPEG."""
        ...


def checked_model_name(name: str) -> str:
    """Return a name of a model, if it can be kept.

    Raises:
        InvalidError: It is empty, too long, or has characters that cannot be shown.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_MODEL_NAME or not name.isprintable():
        raise InvalidError(f"the name of a model has 1 to {MAX_MODEL_NAME} printable characters, not {name!r:.150}")
    return name


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

    rows = checked_rows(vectors, embedder=embedder, count=count)
    for row in rows:
        if isinstance(row, EmbeddingError):
            raise row
    return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), dtype=np.float32)  # type: ignore[arg-type]  # no errors


def checked_rows(
    vectors: NDArray[float32], *, embedder: Embedder, count: int
) -> list[NDArray[float32] | EmbeddingError]:
    """Check what an embedder returned, each vector by itself: one that cannot be used is no fault of the others.

    Args:
        vectors: What it returned.
        embedder: For its name and dimensions.
        count: How many texts it was given.

    Returns:
        For each text 768 values of length 1, or what is wrong with its vector.

    Raises:
        EmbeddingError: The shape is wrong.
    """
    import numpy as np

    name, native = embedder.model_name, embedder.native_dimensions
    try:
        with np.errstate(over="ignore"):  # what is too large is not finite then
            array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"{name} returned what is no array of numbers: {error}") from error
    if native > DIMENSIONS and not getattr(embedder, "is_matryoshka", False):
        raise EmbeddingError(
            f"{name} makes {native} dimensions; {DIMENSIONS} are stored at most: where the beginning of its vectors is "
            "a vector by itself, say matryoshka=True; else use another model, or ask this one for fewer"
        )
    if array.shape != (count, native):
        raise EmbeddingError(f"{name} returned the shape {array.shape}, not {(count, native)}")
    array = array[:, :DIMENSIONS].astype(np.float64)  # the squares of large values are beyond single precision
    rows: list[NDArray[float32] | EmbeddingError] = []
    for row in array:
        norm = np.linalg.norm(row)
        if not np.isfinite(norm):
            rows.append(EmbeddingError(f"{name} returned values that are not finite"))
        elif not norm > _SMALLEST_NORM:
            rows.append(EmbeddingError(f"{name} returned a vector of zeros"))
        else:
            rows.append(padded(row / norm))
    return rows


def padded(vector: NDArray[float64]) -> NDArray[float32]:
    """Return a vector in the stored form, of 768 dimensions, of which those that its model has not are zero."""
    import numpy as np

    found = np.zeros(DIMENSIONS, dtype=np.float32)
    found[: len(vector)] = vector
    return found
