"""How often the right picture comes first, for queries in other words, in the same words, and misspelt.

56 captions are added as descriptions of pictures, and embedded by all-MiniLM-L6-v2 (`examples/minilm.py`). Recall@1 is
the part of the queries whose picture comes first, recall@5 that of those where it is among the first five. The peers
are the two legs of the search by themselves: by vector (`mode="semantic"`) and by word (`mode="text"`). Beside them
stands the same search with `LexicalEmbedder`, which needs no model.

There is nothing random in it: one run tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import attrs
from benchmarks._captions import CAPTIONS, LEXICAL, MISSPELT, PARAPHRASES
from benchmarks._report import Figure, Goal, Options, options, report
from benchmarks._server import server
from examples.minilm import PACKAGE, embedder

import mindia
from mindia import LexicalEmbedder, Library, MemoryStorage
from mindia.embedding.base import Embedder
from mindia.testing import samples

Queries = Sequence[tuple[str, int]]

GROUPS: dict[str, tuple[Queries, float]] = {
    "paraphrase": (PARAPHRASES, 0.93),
    "lexical": (LEXICAL, 1.0),
    "misspelt": (MISSPELT, 0.80),
}
"""Queries, and the part of them whose picture must come first."""

MODES = ("hybrid", "semantic", "text")


@attrs.frozen
class Recall:
    """How well a group of queries is answered, and what is not."""

    at_1: float
    at_5: float
    missed: tuple[str, ...]


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__)
    with server() as running:
        by_model = measured(running.url, embedder())
        by_letters = measured(running.url, LexicalEmbedder())
    _report(by_model, by_letters, chosen)


def measured(url: str, used: Embedder) -> dict[tuple[str, str], Recall]:
    """Return the recall of each group of queries in each mode."""
    with ExitStack() as stack:
        app = stack.enter_context(mindia.connect(url, storage=MemoryStorage(), embedder=used))
        library = app.library(app.tenants.create("Bench"))
        fill(library)
        app.run_until_idle()
        return {
            (group, mode): recall(library, queries, mode=mode)
            for group, (queries, _) in GROUPS.items()
            for mode in MODES
        }


def fill(library: Library) -> None:
    """Add a picture for each caption, whose name tells nothing but its place."""
    picture = samples.image()
    for place, caption in enumerate(CAPTIONS):
        library.media.add(picture, filename=f"{place}.jpg", description=caption)


def recall(library: Library, queries: Queries, *, mode: str) -> Recall:
    """Search for all of them."""
    firsts = fives = 0
    missed = []
    for query, place in queries:
        found = [result.media.filename for result in library.search(query, mode=mode, limit=5)]
        right = f"{place}.jpg"
        fives += right in found
        if found[:1] == [right]:
            firsts += 1
        else:
            first = CAPTIONS[int(found[0].removesuffix(".jpg"))] if found else "nothing"
            missed.append(f"{query!r} finds {first!r}")
    return Recall(firsts / len(queries), fives / len(queries), tuple(missed))


def _report(
    by_model: dict[tuple[str, str], Recall], by_letters: dict[tuple[str, str], Recall], chosen: Options
) -> None:
    figures: list[Figure] = []
    for group, (queries, least) in GROUPS.items():
        hybrid, semantic, text = (by_model[group, mode] for mode in MODES)
        for query in hybrid.missed:
            print(f"{group}: {query}")
        what = f"{group} ({len(queries)})"
        figures += [
            Figure(name=f"recall@1 {what}, hybrid", value=hybrid.at_1, goal=Goal(least, at_least=True)),
            Figure(
                name=f"recall@1 {what}, beside the better leg",
                value=hybrid.at_1,
                peer=max(semantic.at_1, text.at_1),
                goal=Goal(1.0, at_least=True),
            ),
            Figure(name=f"recall@1 {what}, by vector", value=semantic.at_1),
            Figure(name=f"recall@1 {what}, by word", value=text.at_1),
            Figure(name=f"recall@5 {what}, hybrid", value=hybrid.at_5),
            Figure(name=f"recall@1 {what}, hybrid without a model", value=by_letters[group, "hybrid"].at_1),
        ]
    overall = [
        sum(by_model[group, mode].at_1 * len(queries) for group, (queries, _) in GROUPS.items())
        / sum(len(queries) for queries, _ in GROUPS.values())
        for mode in MODES
    ]
    figures.append(
        Figure(
            name="recall@1 of all queries, beside the better leg",
            value=overall[0],
            peer=max(overall[1:]),
            goal=Goal(1.0001, at_least=True),
        )
    )
    report(figures, chosen, packages=("numpy", PACKAGE.replace("_", "-")))


if __name__ == "__main__":
    main()
