"""Which spaces have an index of their own."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mindia.db.vector_indexes import VectorSpace
from mindia.repositories.vector_indexes import LargeSpace
from mindia.services.vector_indexes import OwnIndexes


def _spaces(*row_counts: int) -> list[LargeSpace]:
    return [LargeSpace(UUID(int=at), 1, count, count) for at, count in enumerate(row_counts)]


def _keys(spaces: list[LargeSpace]) -> frozenset[VectorSpace]:
    return frozenset(VectorSpace(space.tenant_id, space.space_id) for space in spaces)


def test_an_index_comes_from_so_many_vectors_on_and_goes_below_half() -> None:
    strategy = OwnIndexes(make_from=1_001)
    spaces = _spaces(1_001, 1_000, 500, 499)
    assert strategy.wanted(spaces, frozenset()) == spaces[:1]
    assert strategy.wanted(spaces, _keys(spaces)) == spaces[:3]


def test_the_largest_have_them_where_there_are_too_many() -> None:
    spaces = _spaces(9_000, 8_000, 7_000)
    assert OwnIndexes(most=2).wanted(spaces, frozenset()) == spaces[:2]


def test_a_space_loses_its_index_only_to_one_that_is_clearly_larger() -> None:
    strategy = OwnIndexes(most=1)
    close, far = _spaces(8_100, 8_000), _spaces(16_000, 8_000)
    assert strategy.wanted(close, _keys(close[1:])) == close[1:]
    assert strategy.wanted(far, _keys(far[1:])) == far[:1]


@given(st.lists(st.integers(1, 20_000), max_size=12), st.sets(st.integers(0, 11)), st.integers(1, 5))
def test_what_is_wanted_is_wanted_once_it_is_there(row_counts: list[int], having: set[int], most: int) -> None:
    spaces = _spaces(*sorted(row_counts, reverse=True))
    strategy = OwnIndexes(most=most)
    wanted = strategy.wanted(spaces, _keys([space for at, space in enumerate(spaces) if at in having]))
    assert len(wanted) <= most
    assert _keys(strategy.wanted(spaces, _keys(wanted))) == _keys(wanted)
