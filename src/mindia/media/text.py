"""Text out of files: what is left is a line that can be shown, and that PostgreSQL can store."""

from __future__ import annotations

import unicodedata

_REMOVED = ("Cc", "Cs")
"""Categories of Unicode: control characters, NUL among them, and surrogates, which cannot be encoded."""


def one_line(value: str, *, max_chars: int) -> str | None:
    """Return a text without control characters and needless space, cut to a length, or None where nothing is left."""
    if not value.isprintable():
        value = "".join(" " if unicodedata.category(char) in _REMOVED else char for char in value)
    return " ".join(value.split())[:max_chars].rstrip() or None


def decoded(raw: bytes) -> str:
    """Decode bytes whose encoding nobody wrote down: UTF-8 where they are, else Windows-1252."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")
