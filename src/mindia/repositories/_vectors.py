"""Vectors, as pgvector reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mindia.db._cursor import BinaryVector

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


def as_text(vectors: NDArray[float32]) -> Sequence[str]:
    """Return the text form of each vector."""
    from pgvector import Vector

    return [Vector(vector).to_text() for vector in vectors]


def as_binary(vector: NDArray[float32]) -> BinaryVector:
    """Return one vector as a parameter of a statement."""
    return BinaryVector(vector.astype(">f4").tobytes())
