"""Places of listings and patterns, as they are handed out and taken back."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mindia import Image
from mindia.domain.filters import MediaOrder
from mindia.errors import InvalidError
from mindia.services._named import shown
from mindia.services.selection import name_place, place_after, place_before, selection

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def item(*, media_id: UUID, filename: str, file_size: int, uploaded_at: datetime) -> Image:
    return Image(
        id=media_id,
        tenant_id=media_id,
        filename=filename,
        original_filename=filename,
        content_type="image/png",
        file_size=file_size,
        sha256="0" * 64,
        s3_key="originals/0",
        uploaded_at=uploaded_at,
        updated_at=uploaded_at,
        width=1,
        height=1,
    )


ITEMS = st.builds(
    item,
    media_id=st.uuids(),
    filename=st.text(CHARACTERS, max_size=255),
    file_size=st.integers(0, 2**63 - 1),
    uploaded_at=st.datetimes(timezones=st.just(UTC)),
)


@settings(derandomize=True)
@given(ITEMS, st.sampled_from(MediaOrder))
def test_the_place_that_was_named_is_the_place_that_is_found(media: Image, order: MediaOrder) -> None:
    named = name_place(media, order)

    after, before = place_after(named, order), place_before(named, order)

    assert after.media_id == before.media_id == media.id
    assert after.value == before.value == getattr(media, order.removeprefix("-"))
    assert (after.backward, before.backward) == (False, True)
    assert named.isascii()
    assert not set(named) & set("+/ &?#%")


@settings(derandomize=True)
@given(ITEMS, st.sampled_from(MediaOrder), st.sampled_from(MediaOrder))
def test_a_place_is_of_one_order(media: Image, made_in: MediaOrder, used_in: MediaOrder) -> None:
    named = name_place(media, made_in)
    if made_in is not used_in:
        with pytest.raises(InvalidError, match=f"in the order '{used_in}'"):
            place_after(named, used_in)
        with pytest.raises(InvalidError, match=f"in the order '{used_in}'"):
            place_before(named, used_in)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=300, derandomize=True)
@given(
    st.one_of(
        st.text(st.characters(), max_size=40),
        st.binary(max_size=40).map(lambda content: base64.urlsafe_b64encode(content).decode()),
        st.one_of(JSON, st.tuples(st.sampled_from(MediaOrder), JSON, st.one_of(JSON, st.uuids().map(str)))).map(
            lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
        ),
    ),
    st.sampled_from(MediaOrder),
)
def test_what_is_no_place_is_refused_and_nothing_worse(text: str, order: MediaOrder) -> None:
    try:
        found = place_after(text, order)
    except InvalidError:
        return
    expected: Any = {"uploaded_at": datetime, "filename": str, "file_size": int}[order.removeprefix("-")]
    assert type(found.value) is expected


@settings(max_examples=300, derandomize=True)
@given(st.text(CHARACTERS, min_size=1, max_size=4), st.text(CHARACTERS, max_size=6))
@example("a", "a")
@example("\ud7ff", "\ud7ff\U0010ffff")
@example("\ud7ff", "\ue000")
@example("\U0010ffff", "\U0010ffff")
@example("a\U0010ffff", "a\U0010ffff\U0010ffff")
@example("a\U0010ffff", "b")
@example("\U0010ffff\U0010ffff", "\U0010fffe")
def test_the_range_of_a_prefix_has_all_that_begins_so_and_nothing_else(prefix: str, text: str) -> None:
    prefix = prefix.translate({ord(special): "x" for special in "*?"})
    parameters = selection({"filename": f"{prefix}*"}).parameters

    for candidate in (text, prefix + text, prefix):
        # UTF-8 has the order of the code points, which is that of the index.
        encoded = candidate.encode()
        start, end = str(parameters["filename_from"]).encode(), parameters.get("filename_to")
        within = start <= encoded and (end is None or encoded < str(end).encode())
        assert within == candidate.startswith(prefix)


@pytest.mark.parametrize(
    "value", [5, "x" * 1_000, 10**5_000, [10**5_000], None, float("nan")], ids=["5", "x", "n", "l", "0", "f"]
)
def test_any_value_can_be_shown_in_a_message(value: object) -> None:
    assert 1 <= len(shown(value)) <= 80
