"""Filenames are safe to show and to save under, and their words can be searched."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mindia.media.names import MAX_CHARS, clean_filename, extension_of, words_of

ANY_TEXT = st.text(st.characters(), max_size=400)
"""Also with surrogates."""

JOINERS = "\u200c\u200d"

HARD_TEXT = st.text(
    st.sampled_from("ab.. /\\\0\n\u202e\u200c\u200d\u0301\u094d\u212ae\u2028\ue000\ud800 \u00a0é🐈"), max_size=40
)


def clean(name: str) -> str:
    return clean_filename(name, fallback="unnamed")


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("cat.jpg", "cat.jpg"),
        ("Übergröße 猫 🐈.png", "Übergröße 猫 🐈.png"),
        ("תמונה.jpg", "תמונה.jpg"),
        ("/etc/passwd", "passwd"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\cat.jpg", "cat.jpg"),
        ("folder/", "folder"),
        ("folder\\/", "folder"),
        ("  cat.jpg  ", "cat.jpg"),
        (".hidden", "hidden"),
        ("...cat.jpg", "cat.jpg"),
        (". . .cat.jpg", "cat.jpg"),
        ("ca\0t\n.jp\x1bg", "cat.jpg"),
        ("cat\u202egpj.exe", "catgpj.exe"),
        ("cat\u2028.jpg", "cat.jpg"),
        ("cat\ud800.jpg", "cat.jpg"),
        ("cafe\u0301.jpg", "café.jpg"),
        ("e\u200d\u0301.jpg", "é.jpg"),
        ("می\u200cروم.jpg", "می\u200cروم.jpg"),
        ("PDF\u200cتر.jpg", "PDF\u200cتر.jpg"),
        ("👩\u200d👩\u200d👧.jpg", "👩\u200d👩\u200d👧.jpg"),
        ("🏳\ufe0f\u200d🌈.jpg", "🏳\ufe0f\u200d🌈.jpg"),
        ("क\u094d\u200dष.jpg", "क\u094d\u200dष.jpg"),
        ("র\u200d\u09cdয.jpg", "র\u200d\u09cdয.jpg"),
        ("c\u200dat.j\u200cpg", "cat.jpg"),
        ("\u200d猫\u200c.\u200djpg\u200d", "猫.jpg"),
        ("猫\u200d 猫\u200c\u200d猫", "猫 猫猫"),
        ("猫\u200d\u202e猫", "猫\u200d猫"),
        ("猫" * 250 + "\u200d猫.jpg", "猫" * 250 + ".jpg"),
        ("猫" * 254 + "\u200d猫", "猫" * 254),
        ("", "unnamed"),
        ("/", "unnamed"),
        ("..", "unnamed"),
        (" . ", "unnamed"),
        ("\u202e\0", "unnamed"),
        ("a" * 300, "a" * 255),
        ("a" * 300 + ".jpg", "a" * 251 + ".jpg"),
        ("a" * 4096 + ".jpeg", "a" * 250 + ".jpeg"),
        ("猫" * 300 + ".jpg", "猫" * 251 + ".jpg"),
        ("a." + "b" * 300, "a." + "b" * 253),
        ("a" * 254 + " b" * 30, "a" * 254),
    ],
)
def test_a_filename_is_cleaned(given_name: str, expected: str) -> None:
    assert clean(given_name) == expected


@given(ANY_TEXT | HARD_TEXT)
@example("a" * 300 + "/")
@example("." * 300)
@example(" " * 254 + "a" * 3)
@example("a" * 254 + "  .jpg")
def test_a_cleaned_filename_is_harmless_whatever_it_was(name: str) -> None:
    cleaned = clean(name)

    assert 1 <= len(cleaned) <= MAX_CHARS
    assert "/" not in cleaned
    assert "\\" not in cleaned
    assert not cleaned.startswith(".")
    assert cleaned == cleaned.strip()
    shown = [character for character in cleaned if character not in JOINERS]
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    for before, joiner, after in zip(" " + cleaned, cleaned, cleaned[1:] + " ", strict=False):
        assert joiner not in JOINERS or not ({before, after} & {" ", ".", *JOINERS} or (before + after).isascii())
    assert unicodedata.is_normalized("NFC", cleaned)
    cleaned.encode()


@given(ANY_TEXT | HARD_TEXT)
@example("a" * 254 + " b")
@example("e\u200d\u0301")
@example(" . .a")
@example("\u212a\u200da")
@example("猫" * 254 + "\u200d猫")
@example("猫\u0301\u200d\u0301\u200d\u094d")
@example("\u0915\u200d\u094d\u200d\u093c")
def test_cleaning_twice_changes_nothing_more(name: str) -> None:
    assert clean(clean(name)) == clean(name)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("cat.jpg", "jpg"),
        ("cat.tar.GZ", "gz"),
        ("cat", ""),
        ("cat.", ""),
        (".jpg", ""),
        ("", ""),
        ("ca.t/cat", "t/cat"),
    ],
)
def test_an_extension_is_what_stands_behind_the_last_dot_in_lower_case(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IMG_catOn-windowsill2.jpg", "IMG cat On windowsill 2"),
        ("cat_on_windowsill.jpg", "cat on windowsill"),
        ("report.final.v2.pdf", "report final v 2"),
        ("2024-05-01 12.30.jpg", "2024 05 01 12 30"),
        ("straßeÜber.png", "straße Über"),
        ("猫の写真.jpg", "猫の写真"),
        ("हिन्दी_चित्र.png", "हिन्दी चित्र"),
        ("שָׁלוֹם עולם.png", "שָׁלוֹם עולם"),
        ("می\u200cروم.png", "میروم"),
        ("cat", "cat"),
        (".jpg", "jpg"),
        ("___.jpg", ""),
        ("", ""),
    ],
)
def test_the_words_of_a_filename_are_told_apart(name: str, words: str) -> None:
    assert words_of(name) == words


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_the_words_of_a_filename_hold_nothing_but_letters_digits_and_marks(name: str) -> None:
    words = words_of(name)

    assert words == " ".join(words.split())
    assert all(char.isalnum() or unicodedata.category(char).startswith("M") for char in words.replace(" ", ""))
    assert [char for char in words if char.isalnum()] == [
        char for char in (name.rpartition(".")[0] or name) if char.isalnum()
    ]
