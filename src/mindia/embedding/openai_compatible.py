"""Embedders behind an HTTP interface like OpenAI's."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mindia._http import JsonClient
from mindia.embedding.base import checked_model_name
from mindia.errors import EmbeddingError, InvalidError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

_MAX_CHARS = 8_000


class OpenAICompatibleEmbedder:
    """Asks `POST {base_url}/embeddings`: OpenAI, Ollama, vLLM, Text Embeddings Inference, LM Studio, llama.cpp, others.

    The key is never kept here: it is read from the environment at each call, and stands in no message.

    Args:
        model: The name by which the server knows the model.
        base_url: Where the server is: `https://api.openai.com/v1`, `http://localhost:11434/v1` for Ollama.
        dimensions: The length of the vectors that come back.
        request_dimensions: Whether the server is asked for vectors of that length, for models that can be shortened.
        api_key_env: The name of the environment variable that has the key; None where the server wants none.
        query_prefix: Stands before each text that asks, where the model wants that: `search_query: `.
        document_prefix: The same for texts that are to be found: `search_document: `.
        similarity_threshold: Cosine similarity below which a result is no result; a property of the model.
        matryoshka: Whether the beginning of a vector is a vector by itself, so that one longer than 768 may be cut.
        max_chars: How much of a text is sent: models read so many tokens, and some servers refuse more.
        batch_size: How many texts go in one request.
        timeout_s: How long one request may take.
        max_retries: How often a request is repeated that failed for a reason that passes.
        name: Names the vectors; by default the model, with a mark of what else changes them.

    Raises:
        InvalidError: An argument is not what it should be.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        dimensions: int,
        request_dimensions: bool = False,
        api_key_env: str | None = None,
        query_prefix: str = "",
        document_prefix: str = "",
        similarity_threshold: float = 0.2,
        matryoshka: bool = False,
        max_chars: int = _MAX_CHARS,
        batch_size: int = 32,
        timeout_s: float = 60.0,
        max_retries: int = 2,
        name: str | None = None,
    ) -> None:
        if dimensions < 1 or max_chars < 1 or batch_size < 1:
            raise InvalidError("dimensions, max_chars and batch_size must be at least 1")
        self._client = JsonClient(base_url, api_key_env=api_key_env, timeout_s=timeout_s, max_retries=max_retries)
        self._model = model
        self._request_dimensions = request_dimensions
        self._query_prefix = query_prefix
        self._document_prefix = document_prefix
        self._max_chars = max_chars
        self.native_dimensions = dimensions
        self.similarity_threshold = similarity_threshold
        self.is_matryoshka = matryoshka
        self.batch_size = batch_size
        self.model_name = checked_model_name(name if name is not None else self._name())

    def __repr__(self) -> str:
        return f"<OpenAICompatibleEmbedder {self.model_name!r} at {self._client.base_url}>"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions).

        Raises:
            ProviderError: The server refused, or cannot be reached.
            EmbeddingError: It answered with other than so many vectors of that length.
        """
        return self._embed([self._document_prefix + text[: self._max_chars] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> NDArray[float32]:
        """Return an array of shape (len(texts), native_dimensions); raises as `embed_documents`."""
        return self._embed([self._query_prefix + text[: self._max_chars] for text in texts])

    def _name(self) -> str:
        """Return a name that changes whenever the vectors would."""
        parts = [self._model]
        if self._request_dimensions:
            parts.append(f"@{self.native_dimensions}")
        if self._query_prefix or self._document_prefix:
            prefixes = f"{self._query_prefix}\0{self._document_prefix}"
            parts.append(f"+{zlib.crc32(prefixes.encode()):08x}")
        return "".join(parts)

    def _embed(self, texts: Sequence[str]) -> NDArray[float32]:
        import numpy as np

        body: dict[str, object] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if self._request_dimensions:
            body["dimensions"] = self.native_dimensions
        answer = self._client.post("embeddings", body)
        try:
            found = answer["data"]
            rows = {int(each.get("index", place)): each["embedding"] for place, each in enumerate(found)}
            with np.errstate(over="ignore"):  # what is too large is not finite then
                vectors = np.asarray([rows[place] for place in range(len(found))], dtype=np.float32)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise EmbeddingError(f"{self!r} answered with what are no vectors: {error!r}") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise EmbeddingError(f"{self!r} answered with the shape {vectors.shape} for {len(texts)} texts")
        return vectors
