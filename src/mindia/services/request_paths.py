"""What of a request's path is written down: without secrets, and once more without ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote_plus

MASK = "***"

SENSITIVE = (
    "access", "apikey", "api_key", "api-key", "auth", "code", "credential", "email", "jwt", "key", "passphrase",
    "passwd", "password", "pin", "pwd", "secret", "session", "sid", "sig", "signature", "state", "token",
)  # fmt: skip
"""Words; a query's value is masked where one of these is in its name."""

_PART = re.compile(r"[a-z0-9]+")
_LONG_WORDS = re.compile(r"password|passwd|passphrase|secret|token|signature|credential|apikey|session")
_WHOLE = frozenset(("access", "code", "email", "state"))
"""Are in harmless names, too, such as that of a country's code."""
_ID = re.compile(
    r"(?<=/)(?:"
    r"\d+"
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|[0-9a-fA-F]{16,}"
    r"|(?=[^/]*\d)[\w-]{20,}"
    r")(?=/|$)"
)


@lru_cache(maxsize=4096)
def route_of(path: str) -> str:
    """Return a path with `{id}` in place of each number, UUID, hash or long token."""
    return _ID.sub("{id}", path)


@lru_cache(maxsize=4096)
def is_sensitive(name: str, words: frozenset[str]) -> bool:
    """Tell whether the value of a query's parameter is to be masked, by the words in its name."""
    plain = unquote_plus(name).lower()
    parts = _PART.findall(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", unquote_plus(name)).lower())
    return plain in words or not (words - _WHOLE).isdisjoint(parts) or bool(_LONG_WORDS.search(plain))


def masked(query: str, words: frozenset[str]) -> str:
    """Return a query in which the values of sensitive parameters are `***`."""
    pairs = query.split("&")
    for number, pair in enumerate(pairs):
        name, equals, _ = pair.partition("=")
        if equals and is_sensitive(name, words):
            pairs[number] = f"{name}={MASK}"
    return "&".join(pairs)


def words_of(extra: Iterable[str]) -> frozenset[str]:
    """Return the words that make a parameter sensitive."""
    return frozenset((*SENSITIVE, *(word.lower() for word in extra)))
