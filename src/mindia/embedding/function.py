"""An embedder made of the host's own functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mindia.embedding.base import checked_model_name
from mindia.errors import InvalidError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import ArrayLike, NDArray


class FunctionEmbedder:
    """Calls a function with a list of texts, which returns a vector for each: a list of lists, or an array.

    Args:
        function: Is called with texts, from several threads at once.
        model_name: Names the vectors, at most 100 characters. Changes whenever they would.
        dimensions: The length of the vectors.
        queries: Is called with texts that ask, where the model tells the two apart; `function` by default.
        similarity_threshold: Cosine similarity below which a result is no result; a property of the model.
        matryoshka: Whether the beginning of a vector is a vector by itself, so that one longer than 768 may be cut.
        batch_size: How many texts it is given at once.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        function: Callable[[list[str]], ArrayLike],
        *,
        model_name: str,
        dimensions: int,
        queries: Callable[[list[str]], ArrayLike] | None = None,
        similarity_threshold: float = 0.2,
        matryoshka: bool = False,
        batch_size: int = 32,
    ) -> None:
        if not callable(function) or not (queries is None or callable(queries)):
            raise InvalidError("function and queries must be functions of a list of texts")
        if dimensions < 1 or batch_size < 1:
            raise InvalidError("dimensions and batch_size must be at least 1")
        self._function = function
        self._queries = function if queries is None else queries
        self.model_name = checked_model_name(model_name)
        self.native_dimensions = dimensions
        self.similarity_threshold = similarity_threshold
        self.is_matryoshka = matryoshka
        self.batch_size = batch_size

    def __repr__(self) -> str:
        return f"<FunctionEmbedder {self.model_name!r}>"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return what the function returns, as an array. Its exceptions pass through."""
        return _as_array(self._function(list(texts)))

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return what the function of queries returns, as an array. Its exceptions pass through."""
        return _as_array(self._queries(list(texts)))


def _as_array(returned: ArrayLike) -> NDArray[float32]:
    import numpy as np

    with np.errstate(over="ignore"):  # what is too large is not finite then
        return np.asarray(returned, dtype=np.float32)
