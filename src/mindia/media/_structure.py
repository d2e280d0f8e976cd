"""What the readers of file structures share: nothing is taken that is not there."""

from __future__ import annotations


class MalformedError(ValueError):
    """The structure of a file contradicts itself."""


def exactly(content: bytes, start: int, size: int) -> bytes:
    """Return so many bytes.

    Raises:
        MalformedError: There are not so many.
    """
    if start + size > len(content):
        raise MalformedError(f"{size} bytes are announced at {start}, and {max(0, len(content) - start)} are there")
    return content[start : start + size]
