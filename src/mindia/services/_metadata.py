"""The rules for the host's own values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal

from mindia.domain.media import JsonValue, Metadata
from mindia.errors import InvalidError
from mindia.repositories._text import storable

MAX_KEYS = 50
MAX_KEY_CHARS = 64
MAX_VALUE_BYTES = 512

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""As JSON writes it, and not the backslash and letters that look like it."""


def checked_metadata(metadata: Metadata | None) -> Metadata:
    """Return metadata as it is stored.

    Raises:
        InvalidError: It is not a JSON object within the limits.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidError(f"metadata must be a mapping, not {type(metadata).__name__}")
    check_key_count(metadata)
    copy: dict[str, JsonValue] = {}
    for key, value in metadata.items():
        checked_key(key)
        copy[key] = checked_value(key, value)
    return copy


def check_key_count(metadata: Metadata) -> None:
    """Refuse too many keys.

    Raises:
        InvalidError: There are more than allowed.
    """
    if len(metadata) > MAX_KEYS:
        raise InvalidError(f"metadata has {len(metadata)} keys; the limit is {MAX_KEYS}")


def checked_key(key: object) -> None:
    """Refuse what is no key.

    Raises:
        InvalidError: It is no text, too long, or cannot be stored.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise InvalidError(f"a metadata key has 1 to {MAX_KEY_CHARS} characters: {str(key)[:80]!r}")
    if storable(key) != key:
        raise InvalidError(f"the metadata key {key!r} has a NUL character or half a character")


def checked_value(key: str, value: object) -> JsonValue:
    """Return a value as it is stored.

    Raises:
        InvalidError: It is not JSON within the limit.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        # Through JSON and back: what is returned now equals what is read later.
        copy: JsonValue = json.loads(text, parse_float=_as_read)
        size = len(json.dumps(copy, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError(f"the metadata value of {key!r} is not JSON: {error}") from error
    if size > MAX_VALUE_BYTES:
        raise InvalidError(f"the metadata value of {key!r} has {size} bytes; the limit is {MAX_VALUE_BYTES}")
    if _NUL.search(text):
        raise InvalidError(f"the metadata value of {key!r} has a NUL character, which cannot be stored")
    return copy


def _as_read(number: str) -> int | float:
    """Return a number as PostgreSQL gives it back: `1e23` has no exponent there, and so becomes a whole number."""
    exact = Decimal(number)
    return int(exact) if exact.as_tuple().exponent >= 0 else float(number)  # type: ignore[operator]  # it is finite
