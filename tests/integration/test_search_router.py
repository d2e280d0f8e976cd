"""Whatever way a search goes, it finds what comparing everything would find, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.vector_rows import WORDS, Filled, FixedEmbedder, Item, some_items, some_vectors, write

import mindia
from mindia import Between, Exists, MemoryStorage, Mindia


@pytest.fixture(scope="module")
def embedder() -> FixedEmbedder:
    return FixedEmbedder()


@pytest.fixture(scope="module")
def module_app(application_url: str, database_url: str, roles: Roles, embedder: FixedEmbedder) -> Iterator[Mindia]:
    with mindia.connect(
        application_url,
        storage=MemoryStorage(),
        embedder=embedder,
        owner=database_url,
        settings=attrs.evolve(SETTINGS, worker_role=roles.worker),
    ) as app:
        yield app


@pytest.fixture(scope="module", params=[4, 1], ids=["passages", "one vector each"])
def filled(module_app: Mindia, database_url: str, request: pytest.FixtureRequest) -> Filled:
    """A tenant with 300 items, among others."""
    items = some_items(300, seed=5, passages=request.param)
    with psycopg.connect(database_url) as owner:
        for seed in (1, 2):
            other = module_app.tenants.create("Globex")
            write(owner, other.id, some_items(100, seed=seed))
        tenant = module_app.tenants.create("Acme")
        write(owner, tenant.id, items)
    return Filled(module_app.library(tenant), items)


def _time(hours: int) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["image", "video", ["audio", "document"]]),
        "filename": st.sampled_from(["a/*", "IMG_*", "*7.bin", "?/*"]),
        "content_type": st.sampled_from(["image/*", "*/y"]),
        "min_bytes": st.integers(0, 900),
        "max_bytes": st.integers(100, 1000),
        "uploaded_since": st.integers(0, 900).map(_time),
        "uploaded_before": st.integers(100, 1000).map(_time),
        "metadata": st.sampled_from(
            [{"rating": 3}, {"place": "Lisbon"}, {"rating": Between(1, 3)}, {"missing": Exists(present=False)}]
        ),
    },
)


def _fits(item: Item, filters: dict[str, Any]) -> bool:
    from fnmatch import fnmatchcase

    kind = filters.get("kind", item.kind)
    metadata = filters.get("metadata", {})
    rating = metadata.get("rating", item.metadata["rating"])
    low, high = (rating.low, rating.high) if isinstance(rating, Between) else (rating, rating)
    return (
        item.kind in ([kind] if isinstance(kind, str) else kind)
        and fnmatchcase(item.filename, filters.get("filename", "*"))
        and fnmatchcase(item.content_type, filters.get("content_type", "*"))
        and filters.get("min_bytes", 0) <= item.file_size <= filters.get("max_bytes", 10_000)
        and filters.get("uploaded_since", _time(0)) <= item.uploaded_at < filters.get("uploaded_before", _time(9999))
        and metadata.get("place", item.metadata["place"]) == item.metadata["place"]
        and low <= item.metadata["rating"] <= high
        and item.id not in filters.get("without_ids", ())
        and item.id in filters.get("ids", {item.id})
    )  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters=FILTERS, seed=st.integers(0, 10_000), limit=st.integers(1, 100), some=st.randoms())
def test_what_is_found_by_vector_is_what_comparing_everything_finds(
    filled: Filled, filters: dict[str, Any], seed: int, limit: int, some: Any
) -> None:
    query = some_vectors(np.random.default_rng(seed), 1)[0]
    ids = [item.id for item in filled.items]
    if seed % 3 == 0:
        filters["without_ids"] = some.sample(ids, 20)
    elif seed % 3 == 1:
        filters["ids"] = some.sample(ids, 100)

    found = filled.library.index.similar_to_vector(query, limit=limit, **filters)

    assert [result.media.id for result in found] == filled.expected(query, lambda item: _fits(item, filters), limit)
    assert [result.vector_rank for result in found] == sorted(result.vector_rank or 0 for result in found)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    filters=FILTERS,
    word=st.sampled_from(WORDS),
    excluded=st.sampled_from([None, *WORDS]),
    mode=st.sampled_from(["hybrid", "text", "semantic"]),
)
def test_filters_and_exclusions_hold_in_every_mode(
    filled: Filled, filters: dict[str, Any], word: str, excluded: str | None, mode: str
) -> None:
    by_id = {item.id: item for item in filled.items}
    query = word if excluded is None else f"{word} -{excluded}"

    found = filled.library.search(query, mode=mode, limit=100, **filters)

    for result in found:
        item = by_id[result.media.id]  # of no other tenant
        assert _fits(item, filters)
        assert not item.is_expired
        assert excluded not in item.words
        assert (result.text_rank is not None) == (word in item.words and mode != "semantic")
    if mode == "text":
        wanted = [item for item in filled.items if word in item.words and excluded not in item.words]
        assert len(found) == min(100, len([item for item in wanted if _fits(item, filters) and not item.is_expired]))


@pytest.mark.parametrize("mode", ["hybrid", "text", "semantic"])
@pytest.mark.parametrize("limit", [7, 100])
def test_pages_go_through_everything_once_and_in_one_order(filled: Filled, mode: str, limit: int) -> None:
    query = "harbour or lighthouse or tram"
    pages = []
    after = None
    while True:
        page = filled.library.search(query, mode=mode, limit=limit, after=after)
        pages.append([result.media.id for result in page])
        after = page.next
        if after is None:
            break
    seen = [media_id for page in pages for media_id in page]

    assert all(len(page) == limit for page in pages[:-1])
    assert len(set(seen)) == len(seen)
    words = {"harbour", "lighthouse", "tram"}
    by_word = {item.id for item in filled.items if words & set(item.words) and not item.is_expired}
    by_vector = {item.id for item in filled.items if item.vectors and not item.is_expired}
    assert set(seen) == {"text": by_word, "semantic": by_vector, "hybrid": by_word | by_vector}[mode]


def test_an_item_of_many_passages_is_found_once_and_tells_which_one_is_near(filled: Filled) -> None:
    item = max((item for item in filled.items if not item.is_expired), key=lambda item: len(item.vectors))

    found = filled.library.index.similar_to_vector(item.vectors[-1], limit=100)

    assert found[0].media.id == item.id
    match found[0].passage:
        case None:
            assert len(item.vectors) == 1, "it is the item as a whole"
        case passage:
            assert (passage.number, passage.page, passage.text) == (3, 3, "passage 3")
    assert len({result.media.id for result in found}) == len(found)


def test_a_threshold_cuts_what_is_less_similar(filled: Filled) -> None:
    query = some_vectors(np.random.default_rng(3), 1)[0]
    everything = filled.library.index.similar_to_vector(query, limit=100)
    middle = everything[20].similarity
    assert middle is not None

    found = filled.library.index.similar_to_vector(query, limit=100, min_similarity=middle)

    assert [result.media.id for result in found] == [result.media.id for result in everything][:21]


def test_what_is_like_an_item_leaves_that_out(filled: Filled) -> None:
    item = next(item for item in filled.items if len(item.vectors) == 1 and not item.is_expired)

    found = filled.library.index.similar(item.id, limit=10)

    expected = filled.expected(item.vectors[0], lambda other: other is not item, 10)
    assert [result.media.id for result in found] == expected


def test_passages_that_came_a_moment_ago_hide_nothing(module_app: Mindia, database_url: str) -> None:
    query = some_vectors(np.random.default_rng(8), 1)[0]
    items = [attrs.evolve(each, is_expired=False) for each in some_items(200, seed=8)]
    near = attrs.evolve(items.pop(), vectors=[query] * 150)
    tenant = module_app.tenants.create("Acme")
    filled = Filled(module_app.library(tenant), [*items, near])
    with psycopg.connect(database_url) as owner:
        write(owner, tenant.id, items)
    filled.library.index.similar_to_vector(query)  # counts them
    with psycopg.connect(database_url) as owner:
        write(owner, tenant.id, [near])

    found = filled.library.index.similar_to_vector(query, limit=100)

    assert [result.media.id for result in found] == filled.expected(query, lambda _: True, 100)


def test_how_a_search_is_planned_is_forgotten_behind_it(module_app: Mindia, database_url: str) -> None:
    items = some_items(20, seed=9)
    tenant = module_app.tenants.create("Acme")
    with psycopg.connect(database_url) as owner:
        write(owner, tenant.id, items)
    library = module_app.library(tenant)
    query = some_vectors(np.random.default_rng(9), 1)[0]
    shown = "select current_setting('plan_cache_mode'), current_setting('enable_seqscan'), current_setting('jit')"

    with module_app.library(tenant).transaction() as inside:
        before = inside.connection.execute(shown).fetchone()
        inside.index.similar_to_vector(query)
        assert inside.connection.execute(shown).fetchone() == before
    for _ in range(10):  # as often as connections may have taken it
        library.index.similar_to_vector(query)
        with library.transaction() as outside:
            assert outside.connection.execute(shown).fetchone() == before
