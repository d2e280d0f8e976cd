"""Passages: pages of documents and spans of transcripts have vectors of their own, and follow their item."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from mindia import Cue, Library, Media, Mindia, TaskStatus
from mindia._ids import uuid7
from mindia.errors import InvalidError, NotFoundError
from mindia.testing import samples

Rows = list[tuple[Any, ...]]

PAGES = ["The lighthouse keeper misses the sea.", "", "A recipe for apple pie.", "Trams of Lisbon climb the hills."]

TRANSCRIPT = """WEBVTT

00:01.000 --> 00:04.000
The ship leaves the harbour

01:30.000 --> 01:34.000
An accordion plays in the distance
"""


def vectors(url: str, item: Media) -> Rows:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select passage, locator, description from mindia.embeddings where entity_id = %s order by passage",
            (item.id,),
        ).fetchall()


def test_pages_have_vectors_and_say_where_they_are(app: Mindia, library: Library, database_url: str) -> None:
    item = library.media.add(samples.pdf(PAGES), filename="book.pdf")
    assert library.index.passages(item) == ()
    app.run_until_idle()
    passages = library.index.passages(item)
    assert [(each.number, each.page, each.text) for each in passages] == [
        (1, 1, PAGES[0]), (2, 3, PAGES[2]), (3, 4, PAGES[3]),
    ]  # fmt: skip
    whole, *rows = vectors(database_url, item)
    assert whole[:2] == (0, None)
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (each.number, {"source": "page", "page": each.page}, each.text) for each in passages
    ]
    stats = library.index.stats()
    assert stats.searched is not None
    assert (stats.searched.items, stats.searched.vectors) == (1, 4)


def test_a_document_of_one_short_page_needs_none(app: Mindia, library: Library, database_url: str) -> None:
    item = library.media.add(samples.pdf([PAGES[0]]), filename="letter.pdf")
    app.run_until_idle()
    assert library.index.passages(item) == ()
    assert len(vectors(database_url, item)) == 1


def test_a_transcript_is_searched_by_word_at_once_and_by_vector_later(
    app: Mindia, library: Library, database_url: str
) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    app.run_until_idle()
    library.index.set_transcript(item, TRANSCRIPT)
    assert [each.media for each in library.search("accordion") if each.text_rank is not None] == [item]
    assert next(library.tasks.list()).status is TaskStatus.PENDING
    app.run_until_idle()
    passages = library.index.passages(item)
    assert [(each.start_s, each.end_s, each.text) for each in passages] == [
        (1.0, 4.0, "The ship leaves the harbour"), (90.0, 94.0, "An accordion plays in the distance"),
    ]  # fmt: skip
    rows = vectors(database_url, item)
    assert [row[0] for row in rows] == [0, 1, 2]
    assert "accordion" in rows[0][2]
    assert rows[2][1] == {"source": "transcript", "start_s": 90.0, "end_s": 94.0}


def test_another_transcript_takes_the_place_of_the_first_and_none_takes_it_away(
    app: Mindia, library: Library, database_url: str
) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item.id, TRANSCRIPT)
    app.run_until_idle()
    library.index.set_transcript(
        item,
        [
            Cue(start=timedelta(seconds=2), end=timedelta(seconds=3), text="A zither"),
            Cue(start=timedelta(), end=timedelta(), text=" "),
        ],
    )
    app.run_until_idle()
    assert [each.text for each in library.index.passages(item)] == ["A zither"]
    assert [row[0] for row in vectors(database_url, item)] == [0, 1]
    assert not [each for each in library.search("accordion") if each.text_rank is not None]
    library.index.set_transcript(item, "")
    app.run_until_idle()
    assert library.index.passages(item) == ()
    assert [row[0] for row in vectors(database_url, item)] == [0]


def test_what_is_said_about_an_item_may_change_without_losing_its_passages(app: Mindia, library: Library) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item, TRANSCRIPT)
    library.media.update(item, description="A harbour in the morning")
    app.run_until_idle()
    for query in ("accordion", "morning"):
        assert [each.media.id for each in library.search(query) if each.text_rank is not None] == [item.id]
    assert len(library.index.passages(item)) == 2


def test_only_what_has_changed_is_embedded_again(app: Mindia, library: Library, database_url: str) -> None:
    item = library.media.add(samples.pdf(PAGES), filename="book.pdf")
    app.run_until_idle()

    def made() -> dict[int, Any]:
        with psycopg.connect(database_url) as connection:
            return dict(
                connection.execute(
                    "select passage, created_at from mindia.embeddings where entity_id = %s", (item.id,)
                ).fetchall()
            )

    before = made()
    library.media.update(item, description="A book of many things")
    app.run_until_idle()
    after = made()
    assert {number for number in after if after[number] != before[number]} == {0}


def test_a_copy_has_the_same_passages(app: Mindia, library: Library) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item, TRANSCRIPT)
    copy = library.media.copy(item, filename="copy.wav")
    app.run_until_idle()
    assert library.index.passages(copy) == library.index.passages(item)
    assert {each.media for each in library.search("accordion") if each.text_rank is not None} == {item, copy}


def test_passages_go_with_their_item(app: Mindia, library: Library, database_url: str) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item, TRANSCRIPT)
    app.run_until_idle()
    library.media.delete(item)
    with psycopg.connect(database_url) as connection:
        left = connection.execute(
            "select (select count(*) from mindia.passages where entity_id = %(id)s), "
            "(select count(*) from mindia.embeddings where entity_id = %(id)s)",
            {"id": item.id},
        ).fetchone()
    assert left == (0, 0)
    with pytest.raises(NotFoundError):
        library.index.passages(item)


def test_in_pictures_nothing_is_spoken(library: Library) -> None:
    image = library.media.add(samples.image(), filename="a.jpg")
    with pytest.raises(InvalidError, match="kind image"):
        library.index.set_transcript(image, TRANSCRIPT)
    with pytest.raises(NotFoundError):
        library.index.set_transcript(uuid7(), TRANSCRIPT)


@pytest.mark.parametrize("wrong", ["nonsense", ["a"], "x" * 2_000_001], ids=["nonsense", "texts", "long"])
def test_a_transcript_that_cannot_be_read_changes_nothing(library: Library, wrong: Any) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item, TRANSCRIPT)
    with pytest.raises(InvalidError):
        library.index.set_transcript(item, wrong)
    assert len(library.index.passages(item)) == 2


def test_half_characters_and_nuls_are_stored_as_what_they_can_be(app: Mindia, library: Library) -> None:
    item = library.media.add(samples.wav(), filename="recording.wav")
    library.index.set_transcript(item, [Cue(start=timedelta(), end=timedelta(), text="odd \0 \ud800 zither")])
    app.run_until_idle()
    assert [each.media for each in library.search("zither") if each.text_rank is not None] == [item]
