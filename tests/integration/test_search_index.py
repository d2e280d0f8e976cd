"""Search by word and by vector, of one tenant, through the public interface."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindia import Library, MediaKind, Mindia
from mindia.errors import InvalidError, NotFoundError
from mindia.testing import samples


@pytest.fixture
def filled(app: Mindia, library: Library) -> Library:
    """A library with an item of each kind, described and embedded."""
    library.media.add(samples.image(), filename="cat_on_windowsill.jpg", description="A ginger cat in the sun")
    library.media.add(samples.video(), filename="lisbon-tram.mp4", metadata={"place": "Lisbon", "year": 2024})
    library.media.add(samples.wav(), filename="ShipHorn.wav")
    library.media.add(samples.pdf(["The lighthouse keeper misses the sea."]), filename="letter.pdf")
    app.run_until_idle()
    return library


def names(library: Library, query: str, **how: object) -> list[str]:
    return [result.media.filename for result in library.search(query, **how)]  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("cat", "cat_on_windowsill.jpg"),
        ("cats", "cat_on_windowsill.jpg"),
        ("windowsill", "cat_on_windowsill.jpg"),
        ("ginger", "cat_on_windowsill.jpg"),
        ("Lisbon", "lisbon-tram.mp4"),
        ("2024", "lisbon-tram.mp4"),
        ("horn", "ShipHorn.wav"),
        ("lighthouses", "letter.pdf"),
        ('"misses the sea"', "letter.pdf"),
        ("tram or horn", "ShipHorn.wav"),
    ],
)
def test_filename_description_metadata_and_text_are_found_by_word(filled: Library, query: str, first: str) -> None:
    by_word = [result for result in filled.search(query) if result.text_rank is not None]
    assert first in [result.media.filename for result in by_word]


def test_by_word_all_words_must_be_there_and_excluded_ones_not(filled: Library) -> None:
    def by_word(query: str) -> list[str]:
        return [result.media.filename for result in filled.search(query) if result.text_rank is not None]

    assert by_word("ginger cat") == ["cat_on_windowsill.jpg"]
    assert by_word("ginger tram") == []
    assert by_word("cat -ginger") == []


@pytest.mark.parametrize(("query", "first"), [("windwosill", "cat_on_windowsill.jpg"), ("lighthuose", "letter.pdf")])
def test_misspelt_words_are_found_by_vector_alone(filled: Library, query: str, first: str) -> None:
    best = filled.search(query, mode="semantic")[0]
    assert best.media.filename == first
    assert best.text_rank is None
    assert best.text_score is None
    assert best.similarity is not None


def test_an_item_found_both_ways_has_the_sum_of_both_parts_as_its_score(filled: Library) -> None:
    best = filled.search("lighthouse keeper")[0]
    assert (best.text_rank, best.vector_rank) == (1, 1)
    assert best.score == pytest.approx(2 / 61)


def test_kind_holds_in_both_legs(filled: Library) -> None:
    for kind in MediaKind:
        assert {
            result.media.kind for result in filled.search("cat tram horn lighthouse or cat or tram", kind=kind)
        } <= {kind}
    assert names(filled, "horn", kind="audio") == ["ShipHorn.wav"]
    assert names(filled, "horn", kind="video") == []


def test_limit_cuts_the_list_and_keeps_the_best(filled: Library) -> None:
    everything = names(filled, "cat or tram or horn or lighthouse")
    assert len(everything) == 4
    assert names(filled, "cat or tram or horn or lighthouse", limit=2) == everything[:2]


def test_results_and_pages_are_sequences_of_plain_values(filled: Library) -> None:
    results = filled.search("cat or tram")
    assert len(results[0:2]) == 2
    assert results[0] in results
    assert results.query == "cat or tram"


def test_nothing_of_another_tenant_is_found(app: Mindia, filled: Library) -> None:
    other = app.library(app.tenants.create("Globex"))
    own = other.media.add(samples.image(), filename="cat.jpg")
    app.run_until_idle()
    assert [result.media for result in other.search("cat windowsill or cat")] == [own]
    assert own not in [result.media for result in filled.search("cat")]


def test_a_deleted_item_is_not_found_by_word_nor_by_vector(filled: Library) -> None:
    item = filled.search("cat")[0].media
    filled.media.delete(item)
    assert item not in [result.media for result in filled.search("cat windowsill ginger or cat")]
    with pytest.raises(NotFoundError, match=str(item.id)):
        filled.index.embed(item.id)


def test_embedding_again_replaces_the_vector(filled: Library) -> None:
    before = filled.search("cat")
    filled.index.embed(before[0].media.id)
    assert filled.search("cat") == before


def test_search_inside_a_transaction_sees_what_was_added_there(library: Library) -> None:
    with library.transaction() as tx:
        tx.media.add(samples.image(), filename="draft.jpg")
        assert names(tx, "draft") == ["draft.jpg"]
        assert names(library, "draft") == []


@pytest.mark.parametrize("query", ["", "   ", "\0", "\n\t"])
def test_a_query_without_words_is_refused(library: Library, query: str) -> None:
    with pytest.raises(InvalidError, match="no words"):
        library.search(query)


@pytest.mark.parametrize("limit", [0, -1, 101, 1_000_000])
def test_a_limit_out_of_range_is_refused(library: Library, limit: int) -> None:
    with pytest.raises(InvalidError, match=str(limit)):
        library.search("cat", limit=limit)


def test_a_query_that_is_too_long_and_an_unknown_kind_are_refused(library: Library) -> None:
    with pytest.raises(InvalidError, match="16384"):
        library.search("é" * 8193)
    with pytest.raises(InvalidError, match="'picture'"):
        library.search("cat", kind="picture")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.one_of(st.text(min_size=1, max_size=40), st.text(alphabet="\"'-|&!():*<> orand\\%_", min_size=1)))
def test_no_query_is_an_error_of_the_database(library: Library, query: str) -> None:
    if query.replace("\0", " ").strip():
        assert len(library.search(query)) == 0
    else:
        with pytest.raises(InvalidError, match="no words"):
            library.search(query)
