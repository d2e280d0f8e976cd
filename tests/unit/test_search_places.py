"""A place in the results of a search: named for the caller, and read back from what may be anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia._ids import uuid7
from mindia.errors import InvalidError
from mindia.services.search_query import Place, name_place, place_after

_MOST = 1 << 30


def _place(breadth: int, *, first_depth: int = 100) -> Place:
    return Place(0, 200, 0.5, uuid7(), first_depth, breadth)


@pytest.mark.parametrize("breadth", [0, 100, 500, 1_000])
def test_a_place_is_read_back_as_it_was_named(breadth: int) -> None:
    place = _place(breadth)
    assert place_after(name_place(place, "mark"), "mark", max_depth=_MOST) == place


@pytest.mark.parametrize("breadth", [-1, 1, 99, 1_001, True, 100.0])
def test_a_breadth_that_no_search_has_is_refused(breadth: int) -> None:
    with pytest.raises(InvalidError, match="of the same search"):
        place_after(name_place(_place(breadth), "mark"), "mark", max_depth=_MOST)


@pytest.mark.parametrize("first_depth", [-1, 0, 102, 201, 50.0])
def test_a_depth_that_no_search_begins_with_is_refused(first_depth: int) -> None:
    with pytest.raises(InvalidError, match="of the same search"):
        place_after(name_place(_place(0, first_depth=first_depth), "mark"), "mark", max_depth=_MOST)


def test_a_place_of_another_search_is_refused() -> None:
    with pytest.raises(InvalidError, match="of the same search"):
        place_after(name_place(_place(100), "mark"), "another", max_depth=_MOST)


@given(st.text(max_size=60))
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="of the same search"):
        place_after(text, "mark", max_depth=_MOST)
