"""Filenames."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 255

_NOT_SHOWN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of Unicode: control, format, surrogate and private characters, separators of lines and paragraphs."""


def clean_filename(name: str, *, fallback: str) -> str:
    """Return a filename that is safe to show and to save under.

    Path separators, control and formatting characters (such as those that turn the direction of writing round) are
    removed, the length is cut to 255 characters with the extension kept.

    Args:
        name: As handed in; of a path, the last part counts.
        fallback: Where nothing is left of it.
    """
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    shown = "".join(character for character in last if unicodedata.category(character) not in _NOT_SHOWN)
    plain = unicodedata.normalize("NFC", shown)
    plain = re.sub(r"^[\s.]+", "", plain).rstrip() or fallback
    if len(plain) > MAX_CHARS:
        stem, dot, extension = plain.rpartition(".")
        if dot and len(extension) < 16:
            plain = stem[: MAX_CHARS - len(extension) - 1] + dot + extension
        else:
            plain = plain[:MAX_CHARS].rstrip()
    return plain


def extension_of(name: str) -> str:
    """Return the extension in lower case, without the dot, or nothing."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def words_of(name: str) -> str:
    """Return the words of a filename: `IMG_catOn-windowsill2.jpg` is "IMG cat On windowsill 2"."""
    stem = name.rpartition(".")[0] or name
    cased = "".join(
        f" {char}" if char.isupper() and before.islower() else char
        for before, char in zip(" " + stem, stem, strict=False)
    )
    spaced = re.sub(r"(?<=\D)(?=\d)|(?<=\d)(?=[^\W\d_])", " ", cased)
    # The vowels of many scripts are marks, which count as letters here, but not for `\w`.
    words = "".join(char if char.isalnum() or unicodedata.category(char).startswith("M") else " " for char in spaced)
    return " ".join(words.split())
