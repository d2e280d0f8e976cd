"""Models of the library fastembed (ONNX), in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindia.embedding.base import checked_model_name
from mindia.embedding.sentence_transformer import not_there
from mindia.errors import InvalidError, MissingExtraError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


class FastEmbedEmbedder:
    """Embeds with a model of fastembed, by onnxruntime and without torch: `pip install 'mindia[fastembed]'`.

    The model is loaded when it is first used. Nothing is downloaded, unless `allow_download` says so.

    Args:
        model: One of the names that fastembed knows: `BAAI/bge-base-en-v1.5`.
        dimensions: The length of its vectors.
        path: The folder of the model; by default the cache of fastembed is looked into.
        allow_download: Whether a model that is not there may be fetched.
        similarity_threshold: Cosine similarity below which a result is no result; a property of the model.
        matryoshka: Whether the beginning of a vector is a vector by itself, so that one longer than 768 may be cut.
        batch_size: How many texts the model is given at once.
        threads: How many threads it uses; as many as there are cores by default.
        name: Names the vectors; by default the name of the model.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int,
        path: str | os.PathLike[str] | None = None,
        allow_download: bool = False,
        similarity_threshold: float = 0.2,
        matryoshka: bool = False,
        batch_size: int = 32,
        threads: int | None = None,
        name: str | None = None,
    ) -> None:
        if dimensions < 1 or batch_size < 1:
            raise InvalidError("dimensions and batch_size must be at least 1")
        self._model = model
        self._path = None if path is None else Path(path)
        self._allow_download = allow_download
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: Any = None
        self.model_name = checked_model_name(name if name is not None else model)
        self.native_dimensions = dimensions
        self.similarity_threshold = similarity_threshold
        self.is_matryoshka = matryoshka
        self.batch_size = batch_size

    def __repr__(self) -> str:
        return f"<FastEmbedEmbedder {self.model_name!r}>"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions).

        Raises:
            MissingExtraError: fastembed is not installed.
            InvalidError: The model is not on this machine, or none of fastembed's.
        """
        import numpy as np

        return np.asarray(list(self._ready().passage_embed(list(texts), batch_size=self.batch_size)), dtype=np.float32)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions); raises as `embed_documents`."""
        import numpy as np

        return np.asarray(list(self._ready().query_embed(list(texts))), dtype=np.float32)

    def _ready(self) -> Any:
        with self._lock:
            if self._loaded is None:
                try:
                    from fastembed import TextEmbedding
                except ImportError as error:
                    raise MissingExtraError("embedding with fastembed", extra="fastembed") from error
                options: dict[str, object] = {"local_files_only": not self._allow_download}
                if self._path is not None:
                    options["specific_model_path"] = str(self._path)
                try:
                    self._loaded = TextEmbedding(model_name=self._model, threads=self._threads, **options)
                except (OSError, ValueError) as error:
                    raise not_there(self._model, error, allow_download=self._allow_download) from error
            return self._loaded
