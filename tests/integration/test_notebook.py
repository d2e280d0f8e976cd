"""What a library shows of itself in notebooks: galleries, cards, facts; escaped, and of bounded length."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from uuid import UUID

import attrs
import pytest

import mindia
from mindia import Library, MediaPage, SearchResults
from mindia.errors import InvalidError, NotFoundError
from mindia.notebook import html
from mindia.testing import samples

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'

_TAGS = {"div", "p", "strong", "img", "table", "caption", "tr", "th", "td", "video", "audio"}
_ATTRIBUTES = {
    "alt", "aria-label", "aria-valuemax", "aria-valuemin", "aria-valuenow", "controls", "preload", "role", "scope",
    "src", "style",
}  # fmt: skip


class _Seen(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _checked(text: str) -> _Seen:
    seen = _Seen(text)
    for tag, attributes in seen.tags:
        assert tag in _TAGS
        assert attributes.keys() <= _ATTRIBUTES
        assert (attributes.get("src") or "data:").startswith("data:")
    return seen


@pytest.fixture
def hostile(library: Library) -> mindia.Media:
    return library.media.add(
        samples.image(), filename='"><img src=x onerror=alert(2)>.jpg', description=HOSTILE, metadata={HOSTILE: HOSTILE}
    )


def _shown(library: Library, item: mindia.Media) -> Iterator[str]:
    yield library.media.find()._repr_html_()
    yield library.search("alert")._repr_html_()
    yield library.show(item)._repr_html_()
    yield item._repr_html_()
    yield library._repr_html_()


def test_hostile_names_and_descriptions_are_shown_and_not_run(library: Library, hostile: mindia.Media) -> None:
    seen = [_checked(text) for text in _shown(library, hostile)]

    page, results, card, facts, _ = (each.text for each in seen)
    assert all("<img src=x onerror=alert(2)>" in text for text in (page, results, card, facts))
    assert "<script>alert(1)</script>" in card
    assert "<script>alert(1)</script>" in facts


def test_hits_are_a_gallery_with_pictures_that_have_their_text_and_with_bars(library: Library) -> None:
    library.media.add(samples.image(), filename="harbour.jpg", description="a ship")
    library.media.add(samples.pdf(["of the harbour"]), filename="harbour.pdf")

    seen = _checked(library.search("harbour")._repr_html_())

    assert [each["alt"] for each in seen.named("img")] == ["harbour.jpg"]
    bars = [each for each in seen.named("div") if each.get("role") == "meter"]
    assert len(bars) == 2
    assert bars[0]["aria-valuenow"] == "100"
    assert "score" in (bars[0]["aria-label"] or "")
    assert "document" in seen.text


def test_a_card_has_a_player_where_the_recording_is_small(library: Library) -> None:
    recording = library.media.add(samples.wav(), filename="talk.wav")

    (player,) = _checked(library.show(recording.id)._repr_html_()).named("audio")

    assert (player["src"] or "").startswith("data:audio/")
    assert player["aria-label"] == "talk.wav"
    assert "talk.wav" in repr(library.show(recording))


def test_200_hits_stay_below_two_megabytes_and_say_how_many_more_there_are(library: Library) -> None:
    item = library.media.add(samples.image(), filename="a.jpg")
    page = MediaPage((item,) * 200).shown_with(_Large())

    text = page._repr_html_()

    shown = len(_checked(text).named("img"))
    assert 0 < shown < 200
    assert f"+{200 - shown} more" in text
    assert len(text.encode()) < 2_000_000
    assert len(text.encode()) <= html.MAX_BYTES + 100


class _Large:
    def of(self, media: mindia.Media) -> bytes:  # noqa: ARG002
        return bytes(12_000)


def test_who_gives_previews_is_no_part_of_the_value(library: Library) -> None:
    library.media.add(samples.image(), filename="harbour.jpg")
    results, page = library.search("harbour"), library.media.find()

    for value in (results, page):
        again = pickle.loads(pickle.dumps(value))
        assert again == value == attrs.evolve(value)
        assert "<img" in value._repr_html_()
        assert "<img" not in again._repr_html_()
        assert "harbour.jpg" in repr(value)
    assert len(repr(MediaPage(page.items * 50)).splitlines()) == 22


def test_a_preview_that_cannot_be_made_is_left_out(library: Library) -> None:
    item = library.media.add(samples.image(), filename="harbour.jpg")
    page = library.media.find()
    library._context.storage.delete(library._context.bucket(), [item.s3_key])

    assert "<img" not in page._repr_html_()


def test_what_was_found_in_a_transaction_is_shown_after_it(library: Library) -> None:
    library.media.add(samples.image(), filename="harbour.jpg")
    with library.transaction() as tx:
        results: SearchResults = tx.search("harbour")

    assert "harbour.jpg" in _checked(results._repr_html_()).text


def test_a_closed_library_says_so_instead_of_raising(application_url: str, storage: mindia.LocalStorage) -> None:
    with mindia.connect(application_url, storage=storage) as app:
        library = app.library(UUID(int=7))

    assert "closed" in library._repr_html_()


def test_a_home_has_one_library_without_more_words(tmp_path: Path) -> None:
    with mindia.local(tmp_path / "home") as app:
        library = app.library()
        assert app.library().tenant_id == library.tenant_id
        assert app.tenants.get(library.tenant_id).name == "Home"
        app.tenants.create("Acme")
        with pytest.raises(InvalidError, match="more than one tenant"):
            app.library()


def test_on_a_server_no_tenant_is_made_unasked(fresh_database_url: str) -> None:
    with mindia.connect(fresh_database_url, storage=mindia.MemoryStorage()) as app:
        with pytest.raises(NotFoundError, match=r"app\.tenants\.create"):
            app.library()
        made = app.tenants.create("Acme")
        assert app.library().tenant_id == made.id
