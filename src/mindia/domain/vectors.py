"""Vectors of many items at once, for clustering, maps and models of a host's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from mindia.domain._tables import Columns, Tabular
from mindia.domain.search import EmbeddingSpace

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


_STORED = 768
"""Length of a stored vector: longer ones of Matryoshka models are cut, shorter ones padded with zeros."""


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Vectors(Tabular):
    """The vectors of items, one each, in the order of their ids.

    Attributes:
        ids: The items.
        matrix: Of the shape (items, dimensions); a row for each of `ids`, as long as the model's own vectors, at most
            768, and of length 1.
        model_name: What made them; None where nothing has been embedded yet.
    """

    ids: Sequence[UUID]
    matrix: NDArray[float32]
    model_name: str | None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        count, dimensions = self.matrix.shape
        return f"<Vectors: {count} of {dimensions} dimensions by {self.model_name}>"

    def to_numpy(self) -> NDArray[float32]:
        """Return `matrix`."""
        return self.matrix

    def _columns(self) -> Columns:
        return {"id": self.ids, "vector": list(self.matrix)}


def packed(space: EmbeddingSpace | None, rows: Iterable[tuple[UUID, bytes]]) -> Vectors:
    """Return vectors of the binary form of pgvector: 4 bytes, then each number, big-endian, in 4."""
    import numpy as np

    listed = list(rows)
    if space is None:
        return Vectors(ids=(), matrix=np.empty((0, 0), dtype=np.float32), model_name=None)
    matrix = np.empty((len(listed), min(space.native_dimensions, _STORED)), dtype=np.float32)
    for row, (_, numbers) in zip(matrix, listed, strict=True):
        row[:] = np.frombuffer(numbers, dtype=">f4", offset=4, count=row.size)
    return Vectors(ids=tuple(each for each, _ in listed), matrix=matrix, model_name=space.model_name)
