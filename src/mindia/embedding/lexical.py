"""An embedder that needs no model."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from mindia.embedding.base import DIMENSIONS

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

# Found on a hundred words of twenty captions: letters bring misspelt words near without outweighing words that are
# right, and a stem that is spread over four places does not look like another when one place collides.
_STEM_PLACES = 4
_GRAM_WEIGHT = 0.5


class LexicalEmbedder:
    """Embeds the words and spellings of a text, not its meaning: "cat" is near "cats" and "catt", not near "feline".

    Hashed stems and character 3- and 4-grams with hashed signs (feature hashing: Weinberger et al., ICML 2009), in 768
    dimensions. It needs no model and no download, and is the default. For meaning, use an embedder with a model.
    """

    model_name = "mindia-lexical-1"
    native_dimensions = DIMENSIONS
    similarity_threshold = 0.15

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), 768)."""
        import numpy as np

        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            for feature, weight in _features(text):
                digest = zlib.crc32(feature.encode())  # the highest bit is the sign
                vectors[row, digest % DIMENSIONS] += weight if digest >> 31 else -weight
            if not vectors[row].any():
                vectors[row, 0] = 1.0  # a text without words is near nothing but its like
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), 768)."""
        return self.embed_documents(texts)


def _features(text: str) -> Iterator[tuple[str, float]]:
    plain = "".join(
        character for character in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(character)
    )
    for word in re.findall(r"\w+", plain):
        stem = _stem(word)
        for place in range(_STEM_PLACES):
            yield f"{place}{stem}", _STEM_PLACES**-0.5  # together as long as one of weight 1
        bounded = f"<{word}>"
        for size in (3, 4):
            for start in range(len(bounded) - size + 1):
                yield f"g{bounded[start : start + size]}", _GRAM_WEIGHT


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    import snowballstemmer

    # A stemmer keeps the word that it works on: one for each call, so that threads do not share it.
    stem: str = snowballstemmer.stemmer("english").stemWord(word)
    return stem
