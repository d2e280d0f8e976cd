"""Embedders in this process: functions of the host's, and the libraries that are extras."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mindia import FastEmbedEmbedder, FunctionEmbedder, LexicalEmbedder, SentenceTransformerEmbedder
from mindia._ids import uuid7
from mindia.embedding.base import DIMENSIONS, Embedder, ImageEmbedder, stored_vectors
from mindia.embedding.vectors import Vectors
from mindia.errors import EmbeddingError, InvalidError, MissingExtraError

_TENANT = uuid7()


def lengths(texts: list[str]) -> list[list[float]]:
    return [[len(text), 1.0, 2.0] for text in texts]


def test_a_function_is_an_embedder_and_may_tell_queries_apart() -> None:
    made = FunctionEmbedder(lengths, model_name="lengths", dimensions=3, queries=lambda texts: [[0, 0, 1]] * len(texts))
    assert isinstance(made, Embedder)
    assert not isinstance(made, ImageEmbedder)
    assert made.embed_documents(["a", "bb"]).tolist() == [[1, 1, 2], [2, 1, 2]]
    assert made.embed_queries(["a"]).tolist() == [[0, 0, 1]]
    assert FunctionEmbedder(lengths, model_name="l", dimensions=3).embed_queries(["abc"]).tolist() == [[3, 1, 2]]


def test_what_a_function_raises_passes_through_and_is_of_one_text() -> None:
    def picky(texts: list[str]) -> list[list[float]]:
        if "bad" in texts:
            raise KeyError("bad")
        return lengths(texts)

    made = FunctionEmbedder(picky, model_name="picky", dimensions=3)
    with pytest.raises(KeyError):
        Vectors().queries(made, ["bad"], tenant_id=_TENANT)
    good, bad = Vectors().documents(made, ["good", "bad"], tenant_id=_TENANT)
    assert isinstance(bad, KeyError)
    assert isinstance(good, np.ndarray)


@pytest.mark.parametrize(
    "wrong",
    [{"model_name": ""}, {"model_name": "x" * 101}, {"model_name": "a\nb"}, {"dimensions": 0}, {"batch_size": 0},
     {"function": "lengths"}, {"queries": 3}],
    ids=repr,
)  # fmt: skip
def test_arguments_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"function": lengths, "model_name": "lengths", "dimensions": 3}
    with pytest.raises(InvalidError):
        FunctionEmbedder(**arguments | wrong)


def test_batches_have_the_size_that_the_embedder_names() -> None:
    sizes: list[int] = []

    def counting(texts: list[str]) -> list[list[float]]:
        sizes.append(len(texts))
        return lengths(texts)

    texts = [f"text {number}" for number in range(70)]
    Vectors().documents(FunctionEmbedder(counting, model_name="c", dimensions=3), texts, tenant_id=_TENANT)
    assert sizes == [32, 32, 6]
    sizes.clear()
    small = FunctionEmbedder(counting, model_name="c", dimensions=3, batch_size=50)
    Vectors().documents(small, texts, tenant_id=_TENANT)
    assert sizes == [50, 20]
    sizes.clear()
    Vectors().documents(small, [f"{number}" * 90_000 for number in range(5)], tenant_id=_TENANT)
    assert sizes == [2, 2, 1]


def test_long_vectors_are_cut_only_where_the_model_is_matryoshka() -> None:
    def long(texts: list[str]) -> Any:
        return np.arange(1, 1025, dtype=np.float32)[None, :].repeat(len(texts), axis=0)

    with pytest.raises(EmbeddingError, match="1024 dimensions; 768"):
        Vectors().queries(FunctionEmbedder(long, model_name="long", dimensions=1024), ["a"], tenant_id=_TENANT)
    made = FunctionEmbedder(long, model_name="long", dimensions=1024, matryoshka=True)
    (found,) = Vectors().queries(made, ["a"], tenant_id=_TENANT)
    kept = np.arange(1, 769)
    assert found == pytest.approx(kept / np.linalg.norm(kept), rel=1e-5)


def test_short_vectors_are_padded_which_leaves_their_cosine_as_it_is() -> None:
    random = np.random.default_rng(7)
    raw = random.normal(size=(20, 384)).astype(np.float32)
    made = FunctionEmbedder(lambda texts: raw[: len(texts)], model_name="m", dimensions=384)
    found = Vectors().queries(made, [str(number) for number in range(20)], tenant_id=_TENANT)
    assert found.shape == (20, DIMENSIONS)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert found @ found.T == pytest.approx(unit @ unit.T, abs=1e-5)


def test_vectors_of_any_size_keep_their_direction() -> None:
    for scale in (1e-20, 1e-3, 1e20, 3e37):
        made = FunctionEmbedder(lambda texts, s=scale: [[s, s, 0]] * len(texts), model_name="m", dimensions=3)  # type: ignore[misc]  # mypy cannot type the default
        (found,) = Vectors().queries(made, ["a"], tenant_id=_TENANT)
        assert found[:3].tolist() == pytest.approx([0.70710677, 0.70710677, 0])


def test_no_texts_are_no_vectors() -> None:
    assert Vectors().documents(LexicalEmbedder(), [], tenant_id=_TENANT) == []
    assert Vectors().queries(LexicalEmbedder(), [], tenant_id=_TENANT).shape == (0, DIMENSIONS)
    nothing = np.zeros((0, DIMENSIONS), dtype=np.float32)
    assert stored_vectors(nothing, embedder=LexicalEmbedder(), count=0).shape == (0, DIMENSIONS)


class _Model:
    """Stands for a model of either library: it keeps how it was made and what it was asked."""

    made: list[dict[str, Any]] = []  # noqa: RUF012 - emptied by each test
    asked: list[list[str]] = []  # noqa: RUF012 - likewise

    def __init__(self, *names: str, **options: Any) -> None:
        if options.get("model_name", *names[:1]) == "missing":
            raise OSError("we have no connection, and no such file")
        self.made.append({"names": names, **options})

    def encode(self, texts: list[str], **_: Any) -> Any:
        self.asked.append(texts)
        return np.ones((len(texts), 3), dtype=np.float32)

    def passage_embed(self, texts: list[str], **_: Any) -> Any:
        self.asked.append(["passage", *texts])
        return iter(np.ones((len(texts), 3), dtype=np.float32))

    def query_embed(self, texts: list[str]) -> Any:
        self.asked.append(["query", *texts])
        return iter(np.ones((len(texts), 3), dtype=np.float32))


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> type[_Model]:
    for name, attribute in (("sentence_transformers", "SentenceTransformer"), ("fastembed", "TextEmbedding")):
        module = ModuleType(name)
        setattr(module, attribute, _Model)
        monkeypatch.setitem(sys.modules, name, module)
    _Model.made.clear()
    _Model.asked.clear()
    return _Model


def test_sentence_transformers_loads_once_and_downloads_nothing(libraries: type[_Model], tmp_path: Path) -> None:
    made = SentenceTransformerEmbedder(tmp_path, dimensions=3, query_prefix="query: ", document_prefix="passage: ")
    assert made.model_name == tmp_path.name
    assert not libraries.made
    assert made.embed_documents(["a"]).shape == (1, 3)
    assert made.embed_queries(["b"]).shape == (1, 3)
    assert [each["local_files_only"] for each in libraries.made] == [True]
    assert libraries.asked == [["passage: a"], ["query: b"]]


def test_fastembed_loads_once_and_downloads_nothing(libraries: type[_Model], tmp_path: Path) -> None:
    made = FastEmbedEmbedder("BAAI/bge-small-en-v1.5", dimensions=3, path=tmp_path)
    assert made.model_name == "BAAI/bge-small-en-v1.5"
    assert made.embed_documents(["a"]).shape == (1, 3)
    assert made.embed_queries(["b"]).shape == (1, 3)
    (options,) = libraries.made
    assert (options["local_files_only"], options["specific_model_path"]) == (True, str(tmp_path))
    assert libraries.asked == [["passage", "a"], ["query", "b"]]


@pytest.mark.parametrize("kind", [SentenceTransformerEmbedder, FastEmbedEmbedder])
def test_a_model_that_is_not_there_is_an_error_with_the_way_out(libraries: type[_Model], kind: type[Any]) -> None:
    made = kind("missing", dimensions=3)
    with pytest.raises(InvalidError, match="allow_download"):
        made.embed_documents(["a"])
    assert not libraries.made


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        (SentenceTransformerEmbedder, "sentence_transformers", "sentence-transformers"),
        (FastEmbedEmbedder, "fastembed", "fastembed"),
    ],
)
def test_a_library_that_is_not_installed_is_an_error_with_the_command(
    kind: type[Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    made = kind("model", dimensions=3)
    assert isinstance(made, Embedder)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mindia\[{extra}\]'"):
        made.embed_queries(["a"])
