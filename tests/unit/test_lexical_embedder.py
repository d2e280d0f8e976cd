"""The embedder that needs no model: words and spellings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.embedding.base import DIMENSIONS, stored_vectors
from mindia.embedding.lexical import LexicalEmbedder
from mindia.errors import EmbeddingError

CAPTIONS = [
    "Chelsea, a ginger cat, looks into the camera",
    "A cup of espresso with a spoon on a wooden table",
    "Portrait of an astronaut before a space shuttle",
    "Thousands of galaxies, seen by a telescope",
    "Greek coins from Pompeii",
    "The roof of a temple in China",
    "An old steam train crossing a bridge",
    "A violinist on stage in blue light",
]

KNOWN = {
    7: 0.3333,
    140: -0.3333,
    227: -0.3333,
    284: 0.3333,
    354: -0.3333,
    504: 0.3333,
    739: -0.3333,
    744: -0.3333,
    745: 0.3333,
}
"""The vector of "cat", place by place."""


def similarities(query: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    embedder = LexicalEmbedder()
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = (
        embedder.embed_documents(CAPTIONS) @ embedder.embed_queries([query])[0]
    )
    return found


@pytest.mark.parametrize(
    ("query", "caption"),
    [("cats", 0), ("ESPRESSO", 1), ("telescpe", 3), ("galaxy", 3), ("tempel", 5), ("bridgge", 6), ("violínist", 7)],
)
def test_the_same_word_inflected_or_misspelt_is_nearest(query: str, caption: int) -> None:
    found = similarities(query)
    assert found.argmax() == caption
    assert found[caption] > LexicalEmbedder.similarity_threshold


def test_other_words_stay_below_the_threshold() -> None:
    assert (similarities("submarine") < LexicalEmbedder.similarity_threshold).all()


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_every_text_has_a_vector_of_length_one_in_every_process(texts: list[str]) -> None:
    vectors = LexicalEmbedder().embed_documents(texts)
    assert vectors.shape == (len(texts), DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_vectors_are_the_same_in_all_processes_and_versions_since_they_are_stored() -> None:
    vector = LexicalEmbedder().embed_documents(["cat"])[0]
    assert LexicalEmbedder.model_name == "mindia-lexical-1"
    assert {int(place): round(float(vector[place]), 4) for place in np.flatnonzero(vector)} == KNOWN


def test_threads_do_not_disturb_each_other() -> None:
    texts = [f"running{number} jumps connections" for number in range(300)]
    alone = LexicalEmbedder().embed_documents(texts)
    with ThreadPoolExecutor(8) as pool:
        together = np.vstack(list(pool.map(lambda text: LexicalEmbedder().embed_documents([text]), texts)))
    np.testing.assert_array_equal(alone, together)


class Dimensions:
    """An embedder that is asked for nothing but its dimensions."""

    model_name = "dimensions"
    similarity_threshold = 0.0

    def __init__(self, *, native_dimensions: int) -> None:
        self.native_dimensions = native_dimensions

    def embed_documents(self, _: object) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        raise AssertionError

    embed_queries = embed_documents


def test_shorter_vectors_are_padded_without_a_change_of_their_angles() -> None:
    embedder = Dimensions(native_dimensions=3)
    given_vectors = np.array([[3.0, 4.0, 0.0], [0.0, 2.0, 0.0]], dtype=np.float32)
    stored = stored_vectors(given_vectors, embedder=embedder, count=2)
    assert stored.shape == (2, DIMENSIONS)
    assert stored[0] @ stored[1] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("dimensions", "vectors", "reason"),
    [
        (3, [[1.0, 2.0]], "shape"),
        (2, [[1.0, 2.0], [1.0, 2.0]], "shape"),
        (2, [[1.0, float("nan")]], "not finite"),
        (2, [[float("inf"), 0.0]], "not finite"),
        (2, [[0.0, 0.0]], "zeros"),
        (1024, [[1.0] * 1024], "1024"),
    ],
)
def test_what_is_not_a_usable_vector_is_refused(dimensions: int, vectors: list[list[float]], reason: str) -> None:
    with pytest.raises(EmbeddingError, match=reason):
        stored_vectors(np.array(vectors, dtype=np.float32), embedder=Dimensions(native_dimensions=dimensions), count=1)
