"""Passwords: what may be one, the same from whichever keyboard, and hashed as the settings say."""

from __future__ import annotations

import sys
from typing import Any

import argon2
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia import Settings
from mindia.errors import InvalidError, MindiaError, MissingExtraError
from mindia.services.passwords import NO_PASSWORD, Passwords, normalised

CHEAP = Settings(argon2_time_cost=1, argon2_memory_kib=8, argon2_parallelism=1)
"""Hashes take no time."""


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(CHEAP)


@pytest.mark.parametrize(
    "password",
    [
        "8 chars.",
        "correct horse battery staple",
        " blanks stay at both ends ",
        "pässwörd",
        "猫がとても好き!",
        "😺" * 8,
        "x" * 1024,
        "😺" * 256,
        "\ttab and\nline",
    ],
)
def test_a_password_has_8_characters_to_1024_bytes(password: str) -> None:
    assert normalised(password) == password


@pytest.mark.parametrize(
    "password",
    [
        "",
        "7 chars",
        "e\u0301" * 7,  # 7 characters, once they are composed
        "x" * 1025,
        "猫" * 342,
        "\ufdfa" * 63,  # each becomes 18 characters
        "x" * 10_000_000,
        "no NUL \0 in it",
        "half a \ud83d character",
        "\x00" * 20,
    ],
    ids=ascii,
)
def test_anything_shorter_longer_or_not_text_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(InvalidError, match=r"at least 8 characters.*at most 1024 bytes") as raised:
        normalised(password)

    assert not password or password[:7] not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize("password", [None, 12345678, b"12345678", ["12345678"], ...], ids=repr)
def test_anything_but_a_str_is_refused_by_its_type(password: Any) -> None:
    with pytest.raises(InvalidError, match=f"must be a str, not {type(password).__name__}"):
        normalised(password)


@pytest.mark.parametrize(
    ("typed", "too"),
    [
        ("café au lait", "cafe\u0301 au lait"),
        ("\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "password"),
        ("ﬁnancial", "financial"),
        ("한국어 비밀번호", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165 비밀번호"),
    ],
)
def test_a_password_is_the_same_from_whichever_keyboard(passwords: Passwords, typed: str, too: str) -> None:
    assert typed != too
    assert passwords.verify(passwords.hash(normalised(typed)), normalised(too))


def test_the_longest_password_may_be_typed_in_parts_of_characters() -> None:
    composed = "\u1f82" * 341  # 4 characters each, in parts

    assert normalised("\u03b1\u0313\u0300\u0345" * 341) == composed


@given(st.text(max_size=1100), st.text(min_size=8, max_size=60))
def test_what_is_accepted_is_verified_and_nothing_else_is(one: str, other: str) -> None:
    passwords = Passwords(CHEAP)
    try:
        one, other = normalised(one), normalised(other)
    except InvalidError:
        return
    assert normalised(one) == one
    assert passwords.verify(passwords.hash(one), one)
    assert passwords.verify(passwords.hash(one), other) == (one == other)


def test_a_hash_is_argon2id_with_the_parameters_of_the_settings() -> None:
    settings = Settings(argon2_time_cost=2, argon2_memory_kib=64, argon2_parallelism=3)

    hashed = [Passwords(settings).hash("correct horse") for _ in range(2)]

    assert all(one.startswith("$argon2id$v=19$m=64,t=2,p=3$") for one in hashed)
    assert hashed[0] != hashed[1]
    assert all(len(one) <= 255 for one in hashed), "the column has room"


def test_the_settings_are_those_that_rfc_9106_recommends() -> None:
    settings = Settings()
    given = (settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism)
    recommended = argon2.profiles.RFC_9106_LOW_MEMORY

    assert given == (recommended.time_cost, recommended.memory_cost, recommended.parallelism)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        NO_PASSWORD,
        "",
        "correct horse",
        "$2b$12$C6UzMDM.H6dfI/f/IKcEeO",
        "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
    ],
)
def test_where_there_is_no_hash_one_of_the_same_cost_is_verified_in_vain(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch, stored: str | None
) -> None:
    verified = []
    verify = argon2.PasswordHasher.verify

    def noting(hasher: argon2.PasswordHasher, hashed: str, password: str) -> bool:
        verified.append(hashed)
        return verify(hasher, hashed, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", noting)

    assert not passwords.verify(stored, "correct horse")
    assert not passwords.verify(passwords.hash("another horse"), "correct horse")

    in_vain, real = verified
    assert argon2.extract_parameters(in_vain) == argon2.extract_parameters(real)


def test_a_hash_is_outdated_when_any_parameter_has_changed(passwords: Passwords) -> None:
    hashed = passwords.hash("correct horse")

    assert not passwords.is_outdated(hashed)
    for changed in (
        attrs.evolve(CHEAP, argon2_time_cost=2),
        attrs.evolve(CHEAP, argon2_memory_kib=16),
        attrs.evolve(CHEAP, argon2_memory_kib=16, argon2_parallelism=2),
    ):
        assert Passwords(changed).is_outdated(hashed)


def test_without_the_extra_the_error_names_it(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)

    for call in (
        passwords.check_installed,
        lambda: passwords.hash("correct horse"),
        lambda: passwords.verify(None, "correct horse"),
    ):
        with pytest.raises(MissingExtraError, match=r"pip install 'mindia\[users\]'"):
            call()


def test_a_failure_of_argon2_itself_is_an_error_of_ours(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Any:
        def failing(*_: object) -> bool:
            raise error

        return failing

    monkeypatch.setattr(argon2.PasswordHasher, "hash", fail(argon2.exceptions.HashingError("no memory")))
    monkeypatch.setattr(argon2.PasswordHasher, "verify", fail(argon2.exceptions.VerificationError("no memory")))

    with pytest.raises(MindiaError, match="no memory"):
        passwords.hash("correct horse")
    with pytest.raises(MindiaError, match="no memory"):
        passwords.verify(None, "correct horse")
