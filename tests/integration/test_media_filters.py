"""Listings, counts and looks are narrowed down by filters, which agree with a model of them in plain Python."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import IntEnum
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.library_calls import SETTINGS

import mindia
from mindia import Library, Media, MediaKind, MemoryStorage, Mindia
from mindia._ids import uuid7
from mindia.domain.filters import Between, Contains, Exists, MediaOrder
from mindia.errors import InvalidError
from mindia.testing import samples

TRUSTING = attrs.evolve(SETTINGS, isolate_parsers=False)

TINY = samples.image("PNG", width=2, height=2)


@pytest.fixture(scope="module")
def trusting(database_url: str) -> Iterator[Mindia]:
    """An application that parses in its own process, and keeps bytes in memory."""
    with mindia.connect(database_url, storage=MemoryStorage(), settings=TRUSTING) as app:
        yield app


@pytest.fixture
def library(trusting: Mindia) -> Library:
    return trusting.library(trusting.tenants.create("Acme"))


# The model

NUMBERS: list[Any] = [
    0, 1, 1.0, 2, 9, 10, 10.5, -1, -1.5, 0.1, 0.1 + 0.2, 0.3, 1e-7, 1e23, 10**30, 10**30 + 1, -(10**40), 5e-324,
    1.7976931348623157e308, 2**53 + 1, 1234567890123456.5,
]  # fmt: skip
TEXTS = [
    "", " ", "1", "1.0", "10", "9", "true", "null", "Lisbon", "LISBON", "lisbon by the sea", "2024-01-02", "2024-01-10",
    "É", "é", "Straße", "a%b_c\\d", "猫", "🐈", "\uff5e", "\n", '"', "'; --",
]  # fmt: skip
KEYS = ["a", "b", "c", "A", "a.b", "%s", 'say "so"', "ключ", "{}", "?", "'"]
STEMS = [
    "IMG_",
    "IMG-1",
    "img_1",
    "Ärger",
    "100%",
    "a_b",
    "[a-c]",
    "c*",
    "a?b",
    "猫🐈",
    "ab",
    "abc",
    "a",
    "\uff5e",
    "{x}",
]


def made_up(chance: random.Random, depth: int = 0) -> Any:
    """Return a value of metadata, of those that there are a few of, so that many are alike."""
    match chance.randrange(7 if depth < 2 else 4):
        case 0:
            return chance.choice(NUMBERS)
        case 1:
            return chance.choice(TEXTS)
        case 2:
            return chance.choice([True, False, None])
        case 3:
            return chance.choice([0, 1, 2, "1", "Lisbon"])
        case 4 | 5:
            return [made_up(chance, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            return {chance.choice(KEYS): made_up(chance, depth + 1) for _ in range(chance.randrange(4))}


def number(value: Any) -> Decimal | None:
    """Return a number as JSON writes it, or None where it is none; True and False are none."""
    return Decimal(json.dumps(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def comparable(value: Any) -> Any:
    return value if isinstance(value, str) else number(value)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same in JSON."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if number(one) is not None and number(other) is not None:
        return number(one) == number(other)
    return type(one) is type(other) and bool(one == other)


def has_part(whole: Any, part: Any) -> bool:
    """Tell whether a value of JSON is there within another one: lists and objects are where all that is in them is."""
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(has_part(element, wanted) for element in whole) for wanted in part)
    if isinstance(whole, Mapping) and isinstance(part, Mapping):
        return all(key in whole and has_part(whole[key], part[key]) for key in part)
    return same(whole, part)


def fits_value(metadata: Mapping[str, Any], key: str, wanted: Any) -> bool:
    value = metadata.get(key)
    match wanted:
        case Exists():
            return (key in metadata) is wanted.present
        case Contains() if isinstance(value, str):
            return isinstance(wanted.value, str) and wanted.value.lower() in value.lower()
        case Contains() if isinstance(value, list):
            return has_part(value, [wanted.value])
        case Contains():
            return isinstance(value, Mapping) and isinstance(wanted.value, Mapping) and has_part(value, wanted.value)
        case Between():
            here, low, high = map(comparable, (value, wanted.low, wanted.high))
            limits = [limit for limit in (low, high) if limit is not None]
            return type(here) is type(limits[0]) and (low is None or here >= low) and (high is None or here <= high)
    return key in metadata and same(value, wanted)


def fits_pattern(text: str, pattern: str) -> bool:
    wanted = "".join({"*": ".*", "?": "."}.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(wanted, text, re.DOTALL) is not None


FITS: dict[str, Callable[[Media, Any], bool]] = {
    "kind": lambda item, wanted: item.kind in ([wanted] if isinstance(wanted, str) else wanted),
    "filename": lambda item, wanted: fits_pattern(item.filename, wanted),
    "content_type": lambda item, wanted: fits_pattern(item.content_type, wanted),
    "min_bytes": lambda item, wanted: item.file_size >= wanted,
    "max_bytes": lambda item, wanted: item.file_size <= wanted,
    "uploaded_since": lambda item, wanted: item.uploaded_at >= wanted,
    "uploaded_before": lambda item, wanted: item.uploaded_at < wanted,
    "sha256": lambda item, wanted: item.sha256 == wanted.lower(),
    "metadata": lambda item, wanted: all(fits_value(item.metadata, *each) for each in wanted.items()),
}


@attrs.frozen
class Shelf:
    """A library, and all that is in it."""

    library: Library
    items: list[Media]

    def fitting(self, **filters: Any) -> list[Media]:
        return [
            item
            for item in self.items
            if all(FITS[name](item, wanted) for name, wanted in filters.items() if wanted is not None)
        ]

    def check(self, order: MediaOrder = MediaOrder.NEWEST, page_length: int = 1000, **filters: Any) -> int:
        """Hold the library against the model, and return how many items fit."""
        name = order.removeprefix("-")
        expected = sorted(
            self.fitting(**filters),
            key=lambda item: (getattr(item, name), item.id),
            reverse=order.startswith("-"),
        )
        media = self.library.media
        assert [item.filename for item in media.find(limit=1000, order=order, **filters)] == [
            item.filename for item in expected
        ]
        assert list(media.iterate(order=order, page_length=page_length, **filters)) == expected
        assert media.count(**filters) == len(expected)
        assert media.exists(**filters) is bool(expected)
        return len(expected)


@pytest.fixture(scope="module")
def shelf(trusting: Mindia) -> Shelf:
    chance = random.Random(20_240_229)
    library = trusting.library(trusting.tenants.create("Acme"))
    sources = [
        (TINY, ".png"),
        (samples.image("PNG", width=30, height=30), ".png"),
        (samples.image("GIF", width=9, height=9), ".gif"),
        (samples.image(), ".jpg"),
        (samples.wav(seconds=0.01), ".wav"),
        (samples.pdf(), ".pdf"),
        (samples.video(seconds=0.2, audio_codec=None), ".mp4"),
    ]
    items: list[Media] = []
    for _ in range(30):
        with library.transaction() as tx:
            for _ in range(4):
                source, extension = chance.choice(sources)
                filename = (
                    chance.choice(STEMS) + chance.choice(["", "1", "x", "%", "_"]) + chance.choice(["", extension])
                )
                keys = chance.sample(KEYS, chance.randrange(5))
                metadata = {key: made_up(chance) for key in keys}
                items.append(tx.media.add(source, filename=filename, metadata=metadata))
    other = trusting.library(trusting.tenants.create("Globex"))
    other.media.add(TINY, filename="IMG_", metadata={"a": 1})
    return Shelf(library, items)


# Filters of every kind, and what they may be

VALUES = st.builds(lambda seed: made_up(random.Random(seed)), st.integers(0, 10**6))
PATTERNS = st.lists(
    st.sampled_from(["*", "?", "%", "_", "\\", "[", "]", "{", "a", "b", "IMG", "1", "Ä", "猫", ".png", "."]),
    min_size=1,
    max_size=5,
).map("".join)
CONDITIONS = st.one_of(
    st.builds(Exists, st.booleans()),
    st.builds(Contains, VALUES),
    st.builds(Contains, st.sampled_from(["lis", "BY", "e", "É", "1", "%", "_", "\\", "", "🐈"])),
    st.tuples(st.sampled_from(NUMBERS), st.sampled_from([*NUMBERS, None])).map(lambda limits: Between(*limits)),
    st.builds(Between, high=st.sampled_from(NUMBERS)),
    st.tuples(st.sampled_from(TEXTS), st.sampled_from([*TEXTS, None])).map(lambda limits: Between(*limits)),
    st.builds(Between, high=st.sampled_from(TEXTS)),
)


@st.composite
def filters_for(draw: st.DrawFn, items: Sequence[Media]) -> dict[str, Any]:
    """Filters that have something to do with the items, so that some of them fit."""
    item = draw(st.sampled_from(items))
    near = st.sampled_from([-1, 0, 1])
    choices: dict[str, st.SearchStrategy[Any]] = {
        "kind": st.one_of(
            st.sampled_from([*MediaKind, item.kind]),
            st.sampled_from([str(kind) for kind in MediaKind]),
            st.lists(st.sampled_from([*MediaKind, "image"]), min_size=1, max_size=5),
            st.just((item.kind,)),
        ),
        "filename": st.one_of(
            st.just(item.filename),
            st.integers(1, len(item.filename)).map(lambda length: item.filename[:length] + "*"),
            st.integers(1, len(item.filename)).map(lambda length: "*" + item.filename[-length:]),
            st.integers(0, len(item.filename) - 1).map(
                lambda at: item.filename[:at] + "?" + item.filename[at + 1 :],
            ),
            PATTERNS,
        ),
        "content_type": st.sampled_from(
            [item.content_type, "image/*", "*/*", "*", "video/?p4", "image", "image/_ng", "image/%", "*/p*"]
        ),
        "min_bytes": near.map(lambda by: item.file_size + by) | st.sampled_from([0, 2**63 - 1]),
        "max_bytes": near.map(lambda by: item.file_size + by) | st.sampled_from([0, 2**63 - 1]),
        "uploaded_since": near.map(lambda by: item.uploaded_at + timedelta(microseconds=by)),
        "uploaded_before": near.map(
            lambda by: (item.uploaded_at + timedelta(microseconds=by)).astimezone(timezone(timedelta(hours=13)))
        ),
        "sha256": st.sampled_from([item.sha256, item.sha256.upper(), "0" * 64]),
        "metadata": st.one_of(
            st.integers(0, 3).map(lambda length: dict(list(item.metadata.items())[:length])),
            st.sampled_from(KEYS).map(lambda key: {key: Exists(present=key in item.metadata)}),
            st.dictionaries(
                st.sampled_from([*item.metadata, *KEYS]),
                st.one_of(CONDITIONS, VALUES, st.sampled_from([*NUMBERS, *TEXTS, True, False, None, [], {}])),
                max_size=2,
            ),
        ),
    }
    names = draw(st.lists(st.sampled_from([*choices, "metadata", "metadata"]), min_size=1, max_size=3, unique=True))
    return {name: draw(choices[name] | st.none() if name == names[0] else choices[name]) for name in names}


@settings(max_examples=300, derandomize=True)
@given(st.data())
def test_any_filters_together_select_what_the_model_says(shelf: Shelf, data: st.DataObject) -> None:
    filters = data.draw(filters_for(shelf.items))
    order = data.draw(st.sampled_from(MediaOrder))

    shelf.check(order, data.draw(st.sampled_from([3, 50, 1000])), **filters)


@settings(max_examples=200, derandomize=True)
@given(st.data())
def test_any_condition_on_metadata_selects_what_the_model_says(shelf: Shelf, data: st.DataObject) -> None:
    """One condition, on values that are there."""
    item = data.draw(st.sampled_from([item for item in shelf.items if item.metadata]))
    key = data.draw(st.sampled_from(sorted(item.metadata)))
    value: Any = item.metadata[key]
    parts: list[Any] = [value]
    if isinstance(value, list):
        parts += value
    if isinstance(value, Mapping):
        parts += [{inner: value[inner]} for inner in value]
    if isinstance(value, str):
        parts += [value[:1], value[1:].upper(), value.lower()]
    wanted = data.draw(st.sampled_from([value, *map(Contains, parts), Exists(), Exists(present=False)]) | CONDITIONS)

    shelf.check(metadata={key: wanted})


def test_every_item_fits_where_nothing_is_asked_for(shelf: Shelf) -> None:
    nothing: dict[str, Any] = dict.fromkeys(FITS)
    assert shelf.check() == shelf.check(**nothing) == shelf.check(metadata={}) == len(shelf.items)


def test_the_items_of_the_model_are_of_all_kinds(shelf: Shelf) -> None:
    """So that what the model says means something."""
    assert {item.kind for item in shelf.items} == {*MediaKind}
    assert len({item.content_type for item in shelf.items}) == 6
    values = [value for item in shelf.items for value in item.metadata.values()]
    assert {type(value) for value in values} == {int, float, str, bool, type(None), list, dict}


# Each by itself


@pytest.mark.parametrize(
    "kinds", [["image"], ["image", "audio"], [*MediaKind], ("video", MediaKind.VIDEO), ["document"] * 9]
)
def test_kinds_may_be_given_as_a_list(shelf: Shelf, kinds: Any) -> None:
    assert shelf.check(kind=kinds)


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("IMG_1.png", ["IMG_1.png"]),
        ("IMG_*", ["IMG_", "IMG_1.png"]),
        ("IMG_", ["IMG_"]),
        ("img*", ["img_1"]),
        ("?MG*", ["IMG-1", "IMG_", "IMG_1.png"]),
        ("IMG?1*", ["IMG-1", "IMG_1.png"]),
        ("*.png", ["IMG_1.png", "a.b.png"]),
        ("*1*", ["100%", "IMG-1", "IMG_1.png", "img_1"]),
        ("100%", ["100%"]),
        ("%", []),
        ("%*", []),
        ("*%", ["100%"]),
        ("*_", ["IMG_"]),
        ("_", []),
        ("\\", []),
        ("\\*", []),
        ("*\\", []),
        ("\\%", []),
        ("[a-c]", ["[a-c]"]),
        ("[*", ["[a-c]"]),
        ("?", ["a", "🐈", "é"]),
        ("??", ["ab"]),
        ("é", ["é"]),
        ("a*b", ["ab"]),
        ("a**b", ["ab"]),
        ("a*?b", []),
        ("a.?.png", ["a.b.png"]),
        ("*", None),
        ("**", None),
        ("?*", None),
        ("'; drop table mindia.images; --", []),
        ("x" * 1024, []),
        ("*" * 1024, None),
        ("😀*", []),
        ("🐈*", ["🐈"]),
        ("\U0010ffff*", []),
        ("\ud7ff*", []),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_pattern_of_filenames_has_two_special_characters(
    named: Shelf, pattern: str, fitting: list[str] | None
) -> None:
    found = named.library.media.find(filename=pattern, limit=1000)

    names = [item.filename for item in named.items]
    assert sorted(item.filename for item in found) == sorted(names if fitting is None else fitting)
    named.check(filename=pattern)


@pytest.fixture(scope="module")
def named(trusting: Mindia) -> Shelf:
    """Items whose names have what is special in patterns of others."""
    library = trusting.library(trusting.tenants.create("Acme"))
    names = ["IMG_", "IMG_1.png", "IMG-1", "img_1", "100%", "[a-c]", "a", "ab", "a.b.png", "é", "🐈"]
    return Shelf(library, [library.media.add(TINY, filename=name) for name in names])


def with_values(trusting: Mindia, *values: Any) -> Shelf:
    library = trusting.library(trusting.tenants.create("Acme"))
    items = [library.media.add(TINY, filename=f"{at:02}", metadata={"k": value}) for at, value in enumerate(values)]
    return Shelf(library, [*items, library.media.add(TINY, filename="without")])


@pytest.fixture(scope="module")
def valued(trusting: Mindia) -> Shelf:
    """Items with one value each."""
    return with_values(
        trusting,
        1, 1.0, "1", True, 10, 9, "10", "9", 0, False, None, "", [], {}, [1], [1, 2], [[1, 2], 3], {"a": 1},
        {"a": 1, "b": {"c": [1, 2], "d": None}}, -5, 0.1 + 0.2, 0.3, 10**40, "Lisbon", "LISBOA", "straße", ["Lisbon"],
        "2024-01-02", "2024-01-10", [None, True, "1"], {"a": None},
    )  # fmt: skip


def found_values(shelf: Shelf, wanted: Any) -> list[Any]:
    shelf.check(metadata={"k": wanted})
    found = shelf.library.media.find(metadata={"k": wanted}, order="uploaded_at", limit=1000)
    return [item.metadata.get("k", "nothing") for item in found]


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (1, [1, 1.0]),
        (1.0, [1, 1.0]),
        ("1", ["1"]),
        (True, [True]),
        (False, [False]),
        (0, [0]),
        (-0.0, [0]),
        (None, [None]),
        ("", [""]),
        ([], [[]]),
        ({}, [{}]),
        ([1], [[1]]),
        ([1.0, 2], [[1, 2]]),
        ([2, 1], []),
        ([1, 1], []),
        ((1, 2), [[1, 2]]),
        ({"a": 1}, [{"a": 1}]),
        ({"a": None}, [{"a": None}]),
        ({"b": {"d": None, "c": [1, 2]}, "a": 1}, [{"a": 1, "b": {"c": [1, 2], "d": None}}]),
        ({"b": {"c": [1, 2]}}, []),
        (0.3, [0.3]),
        (0.1 + 0.2, [0.1 + 0.2]),
        (10**40, [10**40]),
        (1e40, [10**40]),
        (10**40 + 1, []),
        ("lisbon", []),
        ("Lisbon", ["Lisbon"]),
        ("'; --", []),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_of_metadata_is_compared_whole_and_by_its_type(valued: Shelf, wanted: Any, values: list[Any]) -> None:
    assert found_values(valued, wanted) == values


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (Between(9, 10), [10, 9]),
        (Between(9), [10, 9, 10**40]),
        (Between(high=0), [0, -5]),
        (Between(0, 0), [0]),
        (Between(0.0, 1), [1, 1.0, 0, 0.1 + 0.2, 0.3]),
        (Between(-5, -5.0), [-5]),
        (Between(-4.99), [1, 1.0, 10, 9, 0, 0.1 + 0.2, 0.3, 10**40]),
        (Between(0.3, 0.3), [0.3]),
        (Between(0.1 + 0.2, 0.9), [0.1 + 0.2]),
        (Between(10**40 - 1, 10**40 + 1), [10**40]),
        (Between(10**40 + 1), []),
        (Between(-(10**500), 10**500), [1, 1.0, 10, 9, 0, -5, 0.1 + 0.2, 0.3, 10**40]),
        (Between(float("-inf"), float("inf")), [1, 1.0, 10, 9, 0, -5, 0.1 + 0.2, 0.3, 10**40]),
        (Between(10, 9), []),
        (Between("2024-01-02", "2024-01-09"), ["2024-01-02"]),
        (Between("2024-01"), ["9", "Lisbon", "LISBOA", "straße", "2024-01-02", "2024-01-10"]),
        (Between(high="10"), ["1", "10", ""]),
        (Between("", ""), [""]),
        (Between("L", "Z"), ["Lisbon", "LISBOA"]),
        (Between("10", "9"), ["10", "9", "2024-01-02", "2024-01-10"]),
        (Between("b", "a"), []),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_range_has_numbers_or_texts_that_are_not_outside(valued: Shelf, wanted: Any, values: list[Any]) -> None:
    assert found_values(valued, wanted) == values


def test_ranges_of_any_numbers_go_together(trusting: Mindia) -> None:
    """Whole ones, fractions, and those that are too large for either."""
    library = trusting.library(trusting.tenants.create("Acme"))
    item = library.media.add(TINY, metadata={"a": 5, "b": 0.5, "c": 10**30, "d": "x", "e": 1234567890123456.5})

    assert list(
        library.media.find(
            metadata={
                "a": Between(1, 9.5),
                "b": Between(0.25),
                "c": Between(10**30, 10**31),
                "d": Between("a"),
                "e": Between(1234567890123456.5, 1234567890123456.5),
            }
        )
    ) == [item]
    assert not library.media.exists(metadata={"a": Between(5), "b": Between(0.5000001)})


class Level(IntEnum):
    LOW = 1
    HIGH = 10


def test_a_range_may_have_limits_of_an_enumeration(valued: Shelf) -> None:
    assert found_values(valued, Between(Level.LOW, Level.HIGH)) == [1, 1.0, 10, 9]


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (Contains("lis"), ["Lisbon", "LISBOA"]),
        (Contains("LISBO"), ["Lisbon", "LISBOA"]),
        (Contains("STRA"), ["straße"]),
        (Contains("Lisbon"), ["Lisbon", ["Lisbon"]]),
        (Contains(""), ["1", "10", "9", "", "Lisbon", "LISBOA", "straße", "2024-01-02", "2024-01-10"]),
        (Contains("%"), []),
        (Contains("1_"), []),
        (Contains("1"), ["1", "10", "2024-01-02", "2024-01-10", [None, True, "1"]]),
        (Contains(1), [[1], [1, 2]]),
        (Contains(1.0), [[1], [1, 2]]),
        (Contains(None), [[None, True, "1"]]),
        (Contains(True), [[None, True, "1"]]),
        (Contains(3), [[[1, 2], 3]]),
        (Contains([1, 2]), [[[1, 2], 3]]),
        (Contains({"a": 1}), [{"a": 1}, {"a": 1, "b": {"c": [1, 2], "d": None}}]),
        (Contains({"b": {"d": None}}), [{"a": 1, "b": {"c": [1, 2], "d": None}}]),
        (Contains({}), [{}, {"a": 1}, {"a": 1, "b": {"c": [1, 2], "d": None}}, {"a": None}]),
        (Contains({"a": 2}), []),
        (Contains("a"), ["LISBOA", "straße"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_contains_something_is_a_text_a_list_or_an_object(valued: Shelf, wanted: Any, values: list[Any]) -> None:
    assert found_values(valued, wanted) == values


@pytest.mark.parametrize("text", ["É", "é", "ÉCOLE", "école", "ЩЁ", "щё", "Ω", "ω"])
def test_a_text_is_found_within_another_whatever_its_case(trusting: Mindia, text: str) -> None:
    shelf = with_values(trusting, "Une École", "UNE ÉCOLE", "ще щё", "ЩЁ", "Ωmega ω", "ecole")

    assert shelf.check(metadata={"k": Contains(text)})


def test_a_value_exists_also_where_it_is_null(valued: Shelf) -> None:
    assert len(found_values(valued, Exists())) == len(valued.items) - 1
    assert found_values(valued, Exists(present=False)) == ["nothing"]
    assert valued.check(metadata={"K": Exists()}) == 0
    assert valued.check(metadata={"k": Exists(), "K": Exists(present=False)}) == len(valued.items) - 1


def test_conditions_on_several_keys_must_all_be_met(library: Library) -> None:
    metadata: dict[str, Any] = {
        "one": 1, "two": 2.5, "three": "drei", "four": [4], "five": {"v": 5}, "six": None, "seven": "2024", "nine": True
    }  # fmt: skip
    item = library.media.add(TINY, metadata=metadata)
    every: dict[str, Any] = {
        "one": Between(1, 1),
        "two": Between(2),
        "three": Contains("REI"),
        "four": Contains(4),
        "five": {"v": 5.0},
        "six": None,
        "seven": Between("2023", "2025"),
        "eight": Exists(present=False),
        "nine": Exists(),
        "ten": Exists(present=False),
    }
    wrong: dict[str, Any] = {
        "one": Between(2),
        "two": Between(high=2),
        "three": Contains("zwei"),
        "four": Contains("4"),
        "five": {"v": 6},
        "six": "null",
        "seven": Between("2025"),
        "eight": Exists(),
        "nine": False,
        "ten": None,
    }

    assert list(library.media.find(metadata=every)) == [item]
    for key in every:
        assert not library.media.exists(metadata=every | {key: wrong[key]})


def test_times_are_compared_in_any_time_zone(shelf: Shelf) -> None:
    moment = shelf.items[60].uploaded_at
    for hours in (-23.5, -16, 0, 5.75, 14, 23.5):
        here = moment.astimezone(timezone(timedelta(hours=hours)))
        assert shelf.check(uploaded_since=here) + shelf.check(uploaded_before=here) == len(shelf.items)
    ends = [datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]
    for end in ends:
        assert shelf.library.media.count(uploaded_since=end) == len(shelf.items)
        assert not shelf.library.media.exists(uploaded_before=end)


def test_what_an_item_has_now_counts_and_not_what_it_had(library: Library) -> None:
    item = library.media.add(TINY, filename="before", metadata={"k": "before", "gone": 1})
    library.media.update(item, filename="after", metadata={"k": "after", "new": [1]}, remove_metadata=["gone"])

    assert not library.media.exists(filename="before")
    assert not library.media.exists(metadata={"k": "before"})
    assert not library.media.exists(metadata={"gone": 1})
    found = library.media.find(filename="aft*", metadata={"k": "after", "new": [1], "gone": Exists(present=False)})
    assert list(found) == [library.media.get(item.id)]


def test_what_stands_in_a_filter_is_never_taken_for_a_statement(shelf: Shelf) -> None:
    for text in (
        "'; drop table mindia.images; --",
        '"; --',
        "%(tenant_id)s",
        "%s",
        "$1",
        "{vector}",
        "\\",
        "' or true or '",
    ):
        for filters in (
            {"filename": text},
            {"filename": f"*{text}*"},
            {"content_type": text},
            {"metadata": {text[:64]: text}},
            {"metadata": {text[:64]: Contains(text)}},
            {"metadata": {text[:64]: Between(text)}},
            {"metadata": {text[:64]: Exists()}},
        ):
            shelf.check(**filters)
    assert shelf.check() == len(shelf.items)


# What is refused


class Timeless(tzinfo):
    """A time zone that does not know how far it is from UTC."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> None:
        return None


NOW = datetime(2024, 2, 29, tzinfo=UTC)
NAIVE = NOW.replace(tzinfo=None)
NAN, INFINITY = float("nan"), float("inf")

ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

between: Any = Between
contains: Any = Contains
exists: Any = Exists

WRONG: dict[str, list[Any]] = {
    "kind": [
        "", "picture", "Image", "images", "image'; drop table x", "*", [], (), ["image", "picture"], [None], [5],
        {"image"}, b"image", 5, True, 10**5000, {}, [["image"]], ["image", ""],
    ],
    "filename": [
        "", "a\0b", "\0", "\ud800", "a" * 1025, "*" * 1025, b"a", 5, True, ["a"], {}, re.compile("a"), ENDLESS,
    ],
    "content_type": ["", "image/\0", "x" * 1025, b"image/png", 5, ["image/png"], "\udfff"],
    "min_bytes": [-1, 2**63, 10**5000, 1.5, 1.0, NAN, INFINITY, "5", "", True, False, [1], b"1", Decimal(1)],
    "max_bytes": [-1, 2**63, -(10**5000), 1.5, "5", True, [1], -INFINITY],
    "uploaded_since": [
        NAIVE, NOW.replace(tzinfo=Timeless()), NOW.date(), "2024-01-01", "now()", 1_700_000_000, True, timedelta(1), "",
    ],
    "uploaded_before": [NAIVE, NOW.replace(tzinfo=Timeless()), "infinity", 0, NAN, [NOW]],
    "sha256": [
        "", "0" * 63, "0" * 65, "0" * 128, "g" * 64, "0" * 63 + "\n", " " * 64, "\\x" + "0" * 62, "\u0660" * 64,
        "0" * 64 + "\0", bytes(32), 5, ["0" * 64], "0" * 10_000,
    ],
    "metadata": [
        [], [("a", 1)], "a", 5, True, {"a"}, Exists(), {str(at): at for at in range(11)},
        {"": 1}, {"a" * 65: 1}, {5: 1}, {None: 1}, {"a\0": 1}, {"\ud800": 1}, {b"a": 1}, {("a",): 1},
        {"a": "\0"}, {"a": ["\0"]}, {"a": {"\0": 1}}, {"a": "\ud800"}, {"a": NAN}, {"a": [INFINITY]},
        {"a": b"b"}, {"a": object()}, {"a": {1, 2}}, {"a": ENDLESS}, {"a": "x" * 511}, {"a": 10**5000}, {"a": Between},
        {"a": NOW}, {"a": Decimal(1)}, {"a": uuid7()}, {"a": [Exists()]}, {"a": {"b": Between(1)}},
        {"a": Between()}, {"a": Between(1, "2")}, {"a": Between("1", 2)}, {"a": Between(NAN)}, {"a": Between(1, NAN)},
        {"a": Between(True)}, {"a": Between(False, True)}, {"a": between(b"1")}, {"a": between([1])},
        {"a": between(NOW)}, {"a": between(Decimal(1))}, {"a": Between("\0")}, {"a": Between("a", "\ud800")},
        {"a": Between(10**5000)}, {"a": Between(10**5000, "a")}, {"a": Between("x" * 511)}, {"a": between(1j)},
        {"a": Contains("\0")}, {"a": Contains(NAN)}, {"a": contains(object())}, {"a": contains(b"a")},
        {"a": Contains({"b": "\ud800"})}, {"a": Contains("x" * 511)}, {"a": contains(Exists())},
        {"a": exists(1)}, {"a": exists("no")}, {"a": exists(None)}, {"\0": Exists()}, {"": Between(1)},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong"),
    [pytest.param(name, wrong, id=f"{name}-{number}") for name in WRONG for number, wrong in enumerate(WRONG[name])],
)
def test_a_filter_with_a_value_that_is_not_allowed_is_refused_by_name(shelf: Shelf, name: str, wrong: Any) -> None:
    media = shelf.library.media
    calls: list[Callable[[], object]] = [
        lambda: media.find(**{name: wrong}),
        lambda: media.count(**{name: wrong}),
        lambda: media.exists(**{name: wrong}),
        lambda: next(media.iterate(**{name: wrong})),
    ]
    for call in calls:
        with pytest.raises(InvalidError, match=f"\\b{name}\\b"):
            call()


@pytest.mark.parametrize(
    "unknown",
    ["colour", "Kind", "kinds", "tenant_id", "id", "limit_", "place", "equal", "1 = 1; --", "", "\ud800", "%s"],
)
def test_a_filter_that_does_not_exist_is_refused(shelf: Shelf, unknown: str) -> None:
    media: Any = shelf.library.media
    for value in ("x", None):
        for call in (media.find, media.count, media.exists):
            with pytest.raises(InvalidError, match=r"there is no filter .*; there are kind, filename,"):
                call(**{unknown: value})


def test_a_refused_filter_costs_no_statement(trusting: Mindia) -> None:
    """Not even where there is no such tenant."""
    nobody: Any = trusting.library(uuid7())
    for name, wrongs in WRONG.items():
        with pytest.raises(InvalidError):
            nobody.media.find(**{name: wrongs[0]})


@settings(max_examples=100, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from([*FITS, "colour"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(st.characters(), max_size=9),
            st.binary(max_size=3),
            st.lists(st.text(string.printable, max_size=3), max_size=2),
            st.dictionaries(st.text(st.characters(), max_size=3), VALUES | CONDITIONS | st.floats(), max_size=2),
            st.datetimes() | st.datetimes(timezones=st.timezones()),
        ),
        max_size=2,
    )
)
def test_whatever_is_given_as_a_filter_it_selects_or_is_refused(shelf: Shelf, filters: dict[str, Any]) -> None:
    try:
        shelf.library.media.find(**filters)
    except InvalidError:
        return
    shelf.check(**filters)
