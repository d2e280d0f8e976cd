"""The port of object stores."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol, runtime_checkable

import attrs

from mindia.errors import InvalidError

MAX_KEY_BYTES = 1024
"""As on S3."""


@attrs.frozen
class StoredObject:
    """An object in a listing.

    Attributes:
        key: Within its bucket.
        size: In bytes.
    """

    key: str
    size: int


@runtime_checkable
class Storage(Protocol):
    """Bytes under keys, in buckets. Thread-safe.

    A bucket comes to be with its first object. Each method raises `InvalidError` for a key that `check_key` refuses,
    `StorageUnavailableError` where trying again later may help, and `StorageError` where it will not.
    """

    @property
    def region(self) -> str:
        """The region that new buckets are in; `local` where there are none."""
        ...

    def put(self, bucket: str, key: str, source: BinaryIO, *, content_type: str) -> None:
        """Store what `source` reads from its position to its end, durably; a reader sees all of it or nothing."""
        ...

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading, seekable. Raises `ObjectNotFoundError`."""
        ...

    def size(self, bucket: str, key: str) -> int:
        """Return the size in bytes. Raises `ObjectNotFoundError`."""
        ...

    def exists(self, bucket: str, key: str) -> bool:
        """Tell whether the object is there."""
        ...

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str) -> None:
        """Copy an object. Raises `ObjectNotFoundError`."""
        ...

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, and what an interrupted `put` left of them. A missing one is fine."""
        ...

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`, which is not empty."""
        ...

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after the key `after`, in order."""
        ...


def check_key(key: str) -> None:
    """Refuse keys that a file system or a URL could understand in another way.

    Raises:
        InvalidError: The key is empty, longer than 1024 bytes, not in Unicode form NFC, has a control character or a
            backslash, or a segment that is empty or begins with a dot.
    """
    if not key or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise InvalidError(f"a key has 1 to {MAX_KEY_BYTES} bytes, not {len(key)} characters: {key[:80]!r}")
    if unicodedata.normalize("NFC", key) != key:
        raise InvalidError(f"the key {key[:80]!r} is not in Unicode form NFC")
    if any(unicodedata.category(character) in ("Cc", "Cs") or character == "\\" for character in key):
        raise InvalidError(f"the key {key[:80]!r} has a control character or a backslash")
    if any(not segment or segment.startswith(".") for segment in key.split("/")):
        raise InvalidError(f"the key {key[:80]!r} has a segment that is empty or begins with a dot")
