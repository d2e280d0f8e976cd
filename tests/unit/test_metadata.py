"""Metadata: the host's own values, within limits, read back as they were returned."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia.describing.metadata import metadata_words
from mindia.domain.media import Metadata
from mindia.errors import InvalidError
from mindia.services._metadata import MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_BYTES, checked_metadata

NESTED: list[Any] = []
for _ in range(200):
    NESTED = [NESTED]

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"place": "Lisbon", "year": 2024, "rating": 4.5, "draft": False, "album": None},
        {"list": [1, [2, {"three": 3}]], "object": {"a": {"b": []}}},
        {"猫": "🐈", "עברית": "ימין", "k": ""},
        {"a" * MAX_KEY_CHARS: "x" * (MAX_VALUE_BYTES - 2)},
        {"accents": "é" * (MAX_VALUE_BYTES // 2 - 1)},
        {str(number): number for number in range(MAX_KEYS)},
        {"backslash": "\\u0000", "quoted": '"\\\\u0000"', "line": "\n\t"},
        {"deep": NESTED},
        {"big": 10**400, "small": -(10**400)},
    ],
    ids=lambda metadata: next(iter(metadata), "empty"),
)
def test_a_json_object_within_the_limits_is_taken_as_it_is(metadata: dict[str, Any]) -> None:
    assert checked_metadata(metadata) == metadata


def test_none_is_no_metadata() -> None:
    assert checked_metadata(None) == {}


def test_what_is_changed_afterwards_does_not_reach_what_was_checked() -> None:
    tags = ["one"]
    checked = checked_metadata({"tags": tags})
    tags.append("two")

    assert checked == {"tags": ["one"]}


def test_values_become_what_is_read_later() -> None:
    checked = checked_metadata({"tuple": (1, 2), "keys": {1: "one"}, "large": 1e23})  # type: ignore[dict-item]  # lenient

    assert checked == {"tuple": [1, 2], "keys": {"1": "one"}, "large": 10**23}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("text", "mapping, not str"),
        ([("a", 1)], "mapping, not list"),
        (5, "mapping, not int"),
        ({str(number): 1 for number in range(MAX_KEYS + 1)}, "51 keys; the limit is 50"),
        ({str(number): 1 for number in range(10_000)}, "10000 keys"),
        ({"": 1}, "1 to 64 characters"),
        ({"a" * 65: 1}, "1 to 64 characters"),
        ({5: 1}, "1 to 64 characters: '5'"),
        ({None: 1}, "1 to 64 characters: 'None'"),
        ({"a\0b": 1}, "NUL"),
        ({"a\ud800": 1}, "half a character"),
        ({"a": "\0"}, "'a' has a NUL"),
        ({"a": ["b", {"c": "x\0y"}]}, "'a' has a NUL"),
        ({"a": {"b\0": 1}}, "'a' has a NUL"),
        ({"a": "\\\0"}, "'a' has a NUL"),
        ({"a": "\ud800"}, "'a' is not JSON"),
        ({"a": {"\udfff": 1}}, "'a' is not JSON"),
        ({"a": float("nan")}, "'a' is not JSON"),
        ({"a": [float("inf")]}, "'a' is not JSON"),
        ({"a": b"bytes"}, "'a' is not JSON"),
        ({"a": object()}, "'a' is not JSON"),
        ({"a": {1, 2}}, "'a' is not JSON"),
        ({"a": {(1, 2): 3}}, "'a' is not JSON"),
        ({"a": ENDLESS}, "'a' is not JSON"),
        ({"a": "x" * 511}, "513 bytes; the limit is 512"),
        ({"a": "é" * 256}, "514 bytes; the limit is 512"),
        ({"a": ["x" * 300, "y" * 300]}, "bytes; the limit is 512"),
    ],
)
def test_what_is_not_a_json_object_within_the_limits_is_refused(metadata: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        checked_metadata(metadata)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=70), JSON, max_size=5))
def test_whatever_is_taken_can_be_stored_and_is_equal_afterwards(metadata: dict[str, Any]) -> None:
    try:
        checked = checked_metadata(metadata)
    except InvalidError:
        return

    encoded = json.dumps(checked)
    encoded.encode()
    assert "\\u0000" not in encoded.replace("\\\\", "")
    assert json.loads(encoded) == checked
    assert checked_metadata(checked) == checked
    assert set(checked) == set(metadata)


def test_the_words_of_metadata_are_its_texts_and_numbers() -> None:
    metadata: Metadata = {
        "place": "Lisbon",
        "year": 2024,
        "yes": True,
        "none": None,
        "more": ["cat", {"inner": "dog"}, 1.5],
    }

    assert metadata_words(metadata) == "Lisbon 2024 cat dog 1.5"
