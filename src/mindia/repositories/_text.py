"""Text from outside, made fit for a text column."""

from __future__ import annotations

import re
from collections import Counter


def storable(text: str) -> str:
    """Replace what PostgreSQL does not take: NUL, and surrogates that stand alone."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def indexable(text: str, *, max_bytes: int) -> str:
    """Return as much of the beginning of a text as has room in a tsvector of so many bytes: PostgreSQL refuses more.

    A word takes its bytes twice, since compounds are indexed as a whole and in parts, 8 bytes, and 2 bytes for each of
    its first 255 places.
    """
    if len(text) * 8 <= max_bytes:
        return text
    seen: Counter[str] = Counter()
    size = 0
    for match in re.finditer(r"\w+", text):
        word = match[0]
        seen[word] += 1
        size += 2 * len(word.encode()) + 8 if seen[word] == 1 else 2 * (seen[word] <= 255)
        if size > max_bytes:
            return text[: match.start()]
    return text
