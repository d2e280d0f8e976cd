"""Signing secrets at rest can be read with the key of the host alone, and for their own endpoint alone."""

from __future__ import annotations

import base64
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindia import Settings
from mindia._ids import uuid7
from mindia.delivery.secrets import SecretBox
from mindia.errors import InvalidError, MissingExtraError

KEY, OTHER_KEY = "not so very secret", "another of the host's"
NAMES = {"tenant_id": uuid7(), "webhook_id": uuid7()}


def box(key: str | None = KEY, *previous: str) -> SecretBox:
    return SecretBox(Settings(secret_key=key, previous_secret_keys=previous))


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_comes_back_and_is_stored_otherwise_each_time(secret: bytes) -> None:
    sealed = box().seal(secret, **NAMES)

    assert box().open(sealed, **NAMES) == secret
    assert sealed != box().seal(secret, **NAMES)
    assert secret not in base64.urlsafe_b64decode(sealed.split(".")[2])
    assert len(sealed) <= 255


def test_a_key_of_before_reads_what_was_stored_with_it_and_stores_nothing() -> None:
    sealed = box(OTHER_KEY).seal(b"s" * 24, **NAMES)
    both = box(KEY, OTHER_KEY)

    assert both.open(sealed, **NAMES) == b"s" * 24
    assert both.prefix is not None
    assert not sealed.startswith(both.prefix)
    assert both.seal(b"s" * 24, **NAMES).startswith(both.prefix)
    with pytest.raises(InvalidError, match="previous_secret_keys") as error:
        box().open(sealed, **NAMES)
    assert OTHER_KEY not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_cannot_be_moved_to_another_endpoint(name: str) -> None:
    sealed = box().seal(b"s" * 24, **NAMES)

    with pytest.raises(InvalidError, match="was changed"):
        box().open(sealed, **(NAMES | {name: uuid7()}))


@pytest.mark.parametrize(
    "sealed", ["", "whsec_AAAA", "v1..", "v2.00000000.AAAA", "v1.x.!", "v1.00000000.AAAA", "ü.ü.ü"]
)
def test_what_is_no_sealed_secret_is_an_error_of_ours(sealed: str) -> None:
    with pytest.raises(InvalidError, match="was not stored by Mindia"):
        box().open(sealed, **NAMES)


@given(st.integers(min_value=0, max_value=51), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    form, key, data = box().seal(b"s" * 24, **NAMES).split(".")
    raw = bytearray(base64.urlsafe_b64decode(data))
    raw[place] ^= change

    with pytest.raises(InvalidError, match="was changed"):
        box().open(f"{form}.{key}.{base64.urlsafe_b64encode(raw).decode()}", **NAMES)


def test_without_a_key_nothing_is_stored() -> None:
    with pytest.raises(InvalidError, match=r"Settings\.secret_key"):
        box(None).seal(b"s" * 24, **NAMES)
    assert box(None).prefix is None


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'mindia\[webhooks\]'"):
        box().seal(b"s" * 24, **NAMES)


@pytest.mark.parametrize("keys", [("short",), [KEY], (7,)])
def test_keys_that_are_none_are_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError, match="secret_key") as error:
        Settings(previous_secret_keys=keys)
    assert "short" not in str(error.value)


def test_keys_are_never_shown() -> None:
    assert KEY not in repr(Settings(secret_key=KEY, previous_secret_keys=(KEY, OTHER_KEY)))
