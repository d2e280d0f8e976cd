"""Filenames."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

MAX_CHARS = 255

_NOT_SHOWN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of Unicode: control, format, surrogate and private characters, separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"
"""Format characters without which Persian words and emoji of several parts are others: zero width (non-)joiner."""
_VIRAMA = 9
"""The combining class of the marks that join letters in scripts of India."""


def clean_filename(name: str, *, fallback: str) -> str:
    """Return a filename that is safe to show and to save under.

    Path separators, control and formatting characters (such as those that turn the direction of writing round) are
    removed, the length is cut to 255 characters with the extension kept. Zero width joiners and non-joiners stay where
    they join something: between letters, marks, digits and symbols, one of which is not of ASCII.

    Args:
        name: As handed in; of a path, the last part counts.
        fallback: Where nothing is left of it.
    """
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    shown = "".join(char for char in last if char in _JOINERS or unicodedata.category(char) not in _NOT_SHOWN)
    plain = unicodedata.normalize("NFC", shown)
    # A joiner that is removed may have kept a letter and its accents apart, whose order may change then.
    while (joined := unicodedata.normalize("NFC", _without_idle_joiners(plain))) != plain:
        plain = joined
    plain = re.sub(r"^[\s.]+", "", plain).rstrip() or fallback
    if len(plain) > MAX_CHARS:
        stem, dot, extension = plain.rpartition(".")
        if dot and len(extension) < 16:
            plain = stem[: MAX_CHARS - len(extension) - 1] + dot + extension
        else:
            plain = plain[:MAX_CHARS].rstrip()
        plain = _without_idle_joiners(plain)
    return plain


def _without_idle_joiners(name: str) -> str:
    if not any(joiner in name for joiner in _JOINERS):
        return name
    around = zip(" " + name, name, name[1:] + " ", strict=False)
    return "".join(char for before, char, after in around if char not in _JOINERS or _can_join(before, after))


def _can_join(before: str, after: str) -> bool:
    first, second = unicodedata.category(before)[0], unicodedata.category(after)[0]
    if first == "L" and unicodedata.combining(after) == _VIRAMA:
        return True
    return first in "LMNS" and second in "LNS" and not (before.isascii() and after.isascii())


def extension_of(name: str) -> str:
    """Return the extension in lower case, without the dot, or nothing."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def words_of(name: str) -> str:
    """Return the words of a filename: `IMG_catOn-windowsill2.jpg` is "IMG cat On windowsill 2"."""
    stem = re.sub(f"[{_JOINERS}]", "", name.rpartition(".")[0] or name)
    cased = "".join(
        f" {char}" if char.isupper() and before.islower() else char
        for before, char in zip(" " + stem, stem, strict=False)
    )
    spaced = re.sub(r"(?<=\D)(?=\d)|(?<=\d)(?=[^\W\d_])", " ", cased)
    # The vowels of many scripts are marks, which count as letters here, but not for `\w`.
    words = "".join(char if char.isalnum() or unicodedata.category(char).startswith("M") else " " for char in spaced)
    return " ".join(words.split())


def content_disposition(disposition: str, filename: str) -> str:
    """Return the header `Content-Disposition` with a filename in both of its forms (RFC 6266, 4.1 and appendix D)."""
    plain = re.sub(r"[^ !#$&-\[\]-~]", "_", filename)
    return f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
