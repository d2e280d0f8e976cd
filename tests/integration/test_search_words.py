"""Spelling, languages, highlights, likeness of pictures, and what is refused."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image as Pillow

from mindia import Library, MediaLimits, Mindia
from mindia.domain.search import Span
from mindia.errors import InvalidError, NotFoundError
from mindia.testing import samples


def picture(*, size: int = 256, image_format: str = "PNG", shift: int = 0) -> bytes:
    """A picture with some structure."""
    ramp = np.add.outer(np.sin(np.arange(size) * 9 / size), np.cos(np.arange(size) * 7 / size))
    values = np.uint8((ramp + 2) * 60 + shift)
    content = io.BytesIO()
    Pillow.fromarray(values, "L").convert("RGB").save(content, image_format)
    return content.getvalue()


@pytest.mark.parametrize(
    ("query", "corrected"),
    [
        ("lighthuose", "lighthouse"),
        ("keper", "keeper"),
        ("ighthouse", "lighthouse"),
        ("the lihgthouse", "the lighthouse"),
    ],
)
@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_misspelt_words_are_corrected_by_those_of_the_tenant(
    app: Mindia, library: Library, query: str, corrected: str, mode: str
) -> None:
    library.media.add(samples.pdf(["The lighthouse keeper misses the sea."]), filename="letter.pdf")
    app.run_until_idle()

    found = library.search(query, mode=mode)

    assert found.corrected == corrected
    assert found[0].text_rank == 1
    assert found.query == query


def test_words_that_are_known_or_like_none_are_left_alone(app: Mindia, library: Library) -> None:
    library.media.add(samples.image(), filename="lighthouse.jpg")
    other = app.library(app.tenants.create("Globex"))
    other.media.add(samples.image(), filename="windowsill.jpg")
    app.run_until_idle()

    assert library.search("lighthouse", mode="text").corrected is None
    assert library.search("zebra", mode="text").corrected is None
    assert library.search("windwosill", mode="text").corrected is None  # a word of somebody else's


def test_a_tenant_has_a_language_of_its_own(app: Mindia, library: Library) -> None:
    other = app.library(app.tenants.create("Globex"))
    app.tenants.set_limits(library.tenant_id, MediaLimits(language="german"))
    for each in (library, other):
        each.media.add(samples.image(), filename="x.jpg", description="Zwei Häuser am Hafen")

    assert len(library.search("Haus", mode="text")) == 1
    assert len(other.search("Haus", mode="text")) == 0
    for name in ("klingon", "no such"):
        with pytest.raises(InvalidError, match=name):
            app.tenants.set_limits(library.tenant_id, MediaLimits(language=name))


def test_highlights_tell_where_the_words_are(library: Library) -> None:
    library.media.add(samples.image(), filename="cats.jpg", description="A ginger \x02cat</b> and other CATS")

    (plain,) = library.search("cat", mode="text")
    (result,) = library.search("cat", mode="text", highlight=True)

    assert plain.highlights == ()
    said = next(each for each in result.highlights if each.field == "description")
    assert [said.text[span.start : span.end] for span in said.matches] == ["cat", "CATS"]
    title = next(each for each in result.highlights if each.field == "title")
    assert (title.text, title.matches) == ("cats", (Span(0, 4),))


def test_weights_decide_between_the_legs(app: Mindia, library: Library) -> None:
    library.media.add(samples.image(), filename="harbour.jpg")
    app.run_until_idle()

    (by_word,) = library.search("harbour", vector_weight=0)
    (by_vector,) = library.search("harbour", text_weight=0)
    (both,) = library.search("harbour", text_weight=2)

    assert by_word.score == pytest.approx(1 / 61)
    assert by_vector.score == pytest.approx(1 / 61)
    assert both.score == pytest.approx(3 / 61)


def test_what_is_excluded_is_in_no_leg(app: Mindia, library: Library) -> None:
    library.media.add(samples.image(), filename="ginger cat.jpg")
    library.media.add(samples.image(color="navy"), filename="black cat.jpg")
    app.run_until_idle()

    for query in ("cat -ginger", 'cat -"ginger cat"', "-ginger cat"):
        for mode in ("hybrid", "semantic", "text"):
            assert [result.media.filename for result in library.search(query, mode=mode)] == ["black cat.jpg"]
    assert [result.media.filename for result in library.search("-ginger")] == ["black cat.jpg"]


def test_pictures_that_look_alike_are_near_duplicates(library: Library) -> None:
    image = library.media.add(picture(), filename="a.png")
    smaller = library.media.add(picture(size=96, image_format="JPEG"), filename="b.jpg")
    lighter = library.media.add(picture(image_format="WEBP", shift=9), filename="c.webp")
    library.media.add(samples.image(), filename="flat.jpg")
    turned = Pillow.open(io.BytesIO(picture())).transpose(Pillow.Transpose.ROTATE_90)
    content = io.BytesIO()
    turned.save(content, "PNG")
    library.media.add(content.getvalue(), filename="other.png")

    found = library.index.near_duplicates(image.id)

    assert {each.media.id for each in found} == {smaller.id, lighter.id}
    assert [each.distance for each in found] == sorted(each.distance for each in found)
    assert library.index.near_duplicates(image.id, max_distance=0, limit=1)[0].distance == 0


@pytest.mark.parametrize("size", [1, 3])
def test_a_picture_without_structure_is_like_none(library: Library, size: int) -> None:
    for number in range(2):
        item = library.media.add(samples.image(color="gold"), filename=f"{size}{number}.jpg")
    assert library.index.near_duplicates(item.id) == ()


REFUSED: dict[str, Callable[[Library], Any]] = {
    "a query of 1 MB": lambda library: library.search("x" * 1_000_000),
    "a query that is no text": lambda library: library.search(5),  # type: ignore[arg-type]  # no more of it is used, or it is refused
    "no limit": lambda library: library.search("cat", limit=0),
    "a limit of a million": lambda library: library.search("cat", limit=1_000_000),
    "a limit that is no number": lambda library: library.search("cat", limit=True),
    "an unknown mode": lambda library: library.search("cat", mode="fuzzy"),
    "no weights": lambda library: library.search("cat", text_weight=0, vector_weight=0),
    "a weight below nothing": lambda library: library.search("cat", text_weight=-1),
    "a weight that is no number": lambda library: library.search("cat", text_weight=math.nan),
    "a similarity beyond 1": lambda library: library.search("cat", min_similarity=1.5),
    "a place of nowhere": lambda library: library.search("cat", after="nowhere"),
    "too many ids": lambda library: library.search("cat", ids=[uuid4()] * 10_001),
    "ids that are none": lambda library: library.search("cat", without_ids=["x"]),  # type: ignore[list-item]  # refused for that
    "an unknown filter": lambda library: library.search("cat", colour="red"),  # type: ignore[call-arg]  # refused for that
    "an unknown operator": lambda library: library.search("cat", metadata={"a": {1}}),  # type: ignore[dict-item]  # refused for that
    "a vector that is too short": lambda library: library.index.similar_to_vector([1.0] * 7),
    "a vector with NaN": lambda library: library.index.similar_to_vector([math.nan] * 768),
    "a vector of zeros": lambda library: library.index.similar_to_vector([0.0] * 768),
    "a vector of words": lambda library: library.index.similar_to_vector(["x"] * 768),
    "a vector of vectors": lambda library: library.index.similar_to_vector([[1.0] * 768]),
    "a distance beyond 64": lambda library: library.index.near_duplicates(uuid4(), max_distance=65),
    "a picture for an embedder of texts": lambda library: library.index.similar_to_image(samples.image()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(library: Library, name: str) -> None:
    with pytest.raises(InvalidError):
        REFUSED[name](library)


@pytest.mark.parametrize("query", ["!!!", "'\"(", '"unbalanced', "a\0b", "-", "--", '-"', "or or or", "\\", "&|!<->"])
@pytest.mark.parametrize("mode", ["hybrid", "semantic", "text"])
def test_signs_alone_find_nothing_and_are_no_error(library: Library, query: str, mode: str) -> None:
    assert len(library.search(query, mode=mode, highlight=True)) == 0


def test_ten_thousand_ids_are_a_filter(library: Library) -> None:
    item = library.media.add(samples.image(), filename="harbour.jpg")
    ids = [uuid4() for _ in range(9_999)]
    assert [result.media for result in library.search("harbour", ids=[*ids, item.id])] == [item]
    assert len(library.search("harbour", ids=ids)) == 0
    assert library.media.find(without_ids=ids).items == (item,)


def test_a_place_belongs_to_its_search(library: Library) -> None:
    for number in range(3):
        library.media.add(samples.image(), filename=f"harbour {number}.jpg")
    place = library.search("harbour", limit=1).next
    assert place is not None
    assert len(library.search("harbour", limit=5, after=place)) == 2
    for query, how in (("quay", {}), ("harbour", {"mode": "text"}), ("harbour", {"kind": "image"})):
        with pytest.raises(InvalidError, match="same search"):
            library.search(query, after=place, **how)  # type: ignore[arg-type]  # no more of it is used, or it is refused


def test_what_is_like_an_unknown_item_or_one_without_a_vector_is_not_found(library: Library) -> None:
    item = library.media.add(samples.image(), filename="harbour.jpg")
    for media in (uuid4(), item):
        with pytest.raises(NotFoundError, match="no vector"):
            library.index.similar(media)
    with pytest.raises(NotFoundError, match="no image"):
        library.index.near_duplicates(uuid4())
