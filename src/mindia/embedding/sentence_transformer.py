"""Models of the library sentence-transformers, in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindia.embedding.base import checked_model_name
from mindia.errors import InvalidError, MissingExtraError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


class SentenceTransformerEmbedder:
    """Embeds with a model of sentence-transformers: `pip install 'mindia[sentence-transformers]'`.

    The model is loaded when it is first used. Nothing is downloaded, unless `allow_download` says so.

    Args:
        model: The folder of a model, or the name of one that is in the cache of Hugging Face.
        dimensions: The length of its vectors.
        allow_download: Whether a model that is not there may be fetched.
        query_prefix: Stands before each text that asks, where the model wants that.
        document_prefix: The same for texts that are to be found.
        similarity_threshold: Cosine similarity below which a result is no result; a property of the model.
        matryoshka: Whether the beginning of a vector is a vector by itself, so that one longer than 768 may be cut.
        batch_size: How many texts the model is given at once.
        device: Where it runs: `cpu`, `cuda`, `mps`; by default as sentence-transformers finds best.
        name: Names the vectors; by default the name of the model, or that of its folder.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        dimensions: int,
        allow_download: bool = False,
        query_prefix: str = "",
        document_prefix: str = "",
        similarity_threshold: float = 0.2,
        matryoshka: bool = False,
        batch_size: int = 32,
        device: str | None = None,
        name: str | None = None,
    ) -> None:
        if dimensions < 1 or batch_size < 1:
            raise InvalidError("dimensions and batch_size must be at least 1")
        self._model = os.fspath(model)
        self._allow_download = allow_download
        self._prefixes = {"query": query_prefix, "document": document_prefix}
        self._device = device
        self._lock = threading.Lock()
        self._loaded: Any = None
        self.model_name = checked_model_name(name if name is not None else named_after(model))
        self.native_dimensions = dimensions
        self.similarity_threshold = similarity_threshold
        self.is_matryoshka = matryoshka
        self.batch_size = batch_size

    def __repr__(self) -> str:
        return f"<SentenceTransformerEmbedder {self.model_name!r}>"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions).

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            InvalidError: The model is not on this machine.
        """
        return self._embed(texts, "document")

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions); raises as `embed_documents`."""
        return self._embed(texts, "query")

    def _embed(self, texts: Sequence[str], role: str) -> NDArray[float32]:
        import numpy as np

        prefix = self._prefixes[role]
        found = self._ready().encode(
            [prefix + text for text in texts],
            batch_size=self.batch_size,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(found, dtype=np.float32)

    def _ready(self) -> Any:
        with self._lock:
            if self._loaded is None:
                try:
                    from sentence_transformers import SentenceTransformer
                except ImportError as error:
                    raise MissingExtraError(
                        "embedding with sentence-transformers", extra="sentence-transformers"
                    ) from error
                try:
                    self._loaded = SentenceTransformer(
                        self._model, device=self._device, local_files_only=not self._allow_download
                    )
                except (OSError, ValueError) as error:
                    raise not_there(self._model, error, allow_download=self._allow_download) from error
            return self._loaded


def named_after(model: str | os.PathLike[str]) -> str:
    """Return what the vectors of a model are called: the model's name, or that of its folder."""
    text = os.fspath(model)
    return Path(text).name if isinstance(model, os.PathLike) or Path(text).is_dir() else text


def not_there(model: str, error: Exception, *, allow_download: bool) -> InvalidError:
    """Return the error of a model that cannot be loaded."""
    way_out = "" if allow_download else "; nothing is downloaded unasked: name its folder, or say allow_download=True"
    return InvalidError(f"the model {model!r} cannot be loaded: {error}{way_out}")
