"""The index of a large tenant: when it is used, that it may be missing, how it is made and dropped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import attrs
import numpy as np
import psycopg
import pytest
from tests.conftest import Roles
from tests.integration.library_calls import SETTINGS
from tests.integration.vector_rows import Filled, FixedEmbedder, some_items, some_vectors, write

import mindia
from mindia import MemoryStorage, Mindia
from mindia.domain.search import SearchStrategy
from mindia.repositories import media_find, search_counts
from mindia.repositories.search_counts import SpaceFacts
from mindia.services import search_router
from mindia.services.vector_indexes import OwnIndexes


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


@pytest.fixture(scope="module")
def large(module_app: Mindia, database_url: str) -> Iterator[Filled]:
    items = some_items(1400, seed=9)
    tenant = module_app.tenants.create("Large")
    with psycopg.connect(database_url) as owner:
        write(owner, tenant.id, items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_router, "EXACT_UP_TO", 500)
        patch.setattr(search_router, "_INDEX", 10.0)
        patch.setattr(search_router, "_CHECKED", 0.1)
        patch.setattr(search_router, "_FRESH_S", 0.0)
        module_app.maintenance._index_strategy = OwnIndexes(make_from=700)
        changes = module_app.maintenance.index_vectors()
        assert (changes.made, changes.is_elsewhere) == (1, False)
        yield Filled(module_app.library(tenant), items)
        module_app.maintenance._index_strategy = OwnIndexes(make_from=2 * len(items) + 2)
        assert module_app.maintenance.index_vectors().dropped == 1


def _all_pages(large: Filled, query: np.ndarray[Any, np.dtype[np.float32]], *, limit: int) -> list[UUID]:
    seen: list[UUID] = []
    after = None
    while True:
        page = large.library.index.similar_to_vector(query, limit=limit, after=after)
        seen += [result.media.id for result in page]
        after = page.next
        if after is None:
            break
    assert len(set(seen)) == len(seen)
    return seen


def test_it_is_used_and_finds_nearly_all(large: Filled) -> None:
    hits = 0
    for seed in range(20):
        query = some_vectors(np.random.default_rng(seed), 1)[0]
        found = large.library.index.similar_to_vector(query, limit=10)
        assert found.plan.strategy is SearchStrategy.INDEX
        assert "index" in found.plan.reason
        assert found.plan.breadth == 100
        expected = large.expected(query, lambda _: True, 10)
        hits += len({result.media.id for result in found} & set(expected))
    assert hits >= 195


def test_a_query_far_from_everything_is_compared_with_everything(
    large: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_router, "_WIDEST", 0)
    query = np.zeros(768, dtype=np.float32)
    query[:2] = 0.6, 0.8

    found = large.library.index.similar_to_vector(query, limit=50)

    assert found.plan.was_repeated
    assert "far" in found.plan.reason
    assert [result.media.id for result in found] == large.expected(query, lambda _: True, 50)


def test_where_there_are_not_many_the_index_is_searched_further(large: Filled) -> None:
    query = np.zeros(768, dtype=np.float32)
    query[:2] = 0.6, 0.8

    found = large.library.index.similar_to_vector(query, limit=50)

    assert found.plan.was_repeated
    assert found.plan.strategy is SearchStrategy.INDEX
    assert found.plan.vector_count is not None
    assert found.plan.breadth == math.ceil(found.plan.vector_count / 10) > 100
    assert "searched further" in found.plan.reason
    expected = large.expected(query, lambda _: True, 50)
    assert len({result.media.id for result in found} & set(expected)) >= 45


def test_pages_behind_a_wider_search_repeat_nothing(large: Filled) -> None:
    query = np.zeros(768, dtype=np.float32)
    query[:2] = 0.6, 0.8
    assert _all_pages(large, query, limit=30)[:60] == _all_pages(large, query, limit=60)[:60]


def test_too_few_answers_of_it_are_followed_by_comparing_everything(
    large: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = some_vectors(np.random.default_rng(1), 1)[0]
    real = search_counts.facts

    def optimistic(*args: Any, **how: Any) -> SpaceFacts:
        return attrs.evolve(real(*args, **how), row_count=1400)

    monkeypatch.setattr(search_counts, "facts", optimistic)
    monkeypatch.setattr(media_find, "count_up_to", lambda *_, **__: 1300)
    found = large.library.index.similar_to_vector(query, limit=100, filename="a/*")

    assert found.plan.was_repeated
    assert "fewer" in found.plan.reason
    fits = [item for item in large.items if item.filename.startswith("a/")]
    assert [result.media.id for result in found] == large.expected(query, lambda item: item in fits, 100)


def test_a_narrow_filter_goes_around_it(large: Filled) -> None:
    query = some_vectors(np.random.default_rng(1), 1)[0]
    found = large.library.index.similar_to_vector(query, limit=100, filename="*11.bin")
    assert found.plan.strategy is SearchStrategy.EXACT_FILTERED
    assert [result.media.id for result in found] == large.expected(
        query, lambda item: item.filename.endswith("11.bin"), 100
    )


@pytest.mark.parametrize("limit", [9, 23, 100])
def test_pages_go_on_behind_what_it_has_named(large: Filled, limit: int) -> None:
    query = some_vectors(np.random.default_rng(4), 1)[0]
    seen = _all_pages(large, query, limit=limit)
    assert set(seen) == set(large.expected(query, lambda _: True, 10_000))


def test_a_ruin_is_replaced(large: Filled, module_app: Mindia, database_url: str) -> None:
    name = f"embeddings_hnsw_{large.library.tenant_id.hex}_1"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("update pg_index set indisvalid = false where indexrelid = %s::regclass", (f"mindia.{name}",))
    changes = module_app.maintenance.index_vectors()
    assert (changes.made, changes.dropped) == (1, 1)


def test_an_index_that_is_gone_is_not_missed(large: Filled, module_app: Mindia, database_url: str) -> None:
    query = some_vectors(np.random.default_rng(2), 1)[0]
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"drop index mindia.embeddings_hnsw_{large.library.tenant_id.hex}_1".encode())
    found = large.library.index.similar_to_vector(query, limit=20)
    assert [result.media.id for result in found] == large.expected(query, lambda _: True, 20)
    assert module_app.maintenance.index_vectors().made == 1
