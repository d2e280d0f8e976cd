"""The port of object stores."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol, runtime_checkable

import attrs

from mindia.errors import InvalidError

MAX_KEY_BYTES = 1024
"""As on S3."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]")
"""Control characters (category Cc), surrogates (Cs), and the backslash."""

MAX_SEGMENT_BYTES = 200
"""File systems allow 255, of which some are needed for the names of unfinished files."""


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

    A bucket comes to be with its first object. Each method raises `InvalidError` for a key that `check_key` refuses and
    a bucket that `check_bucket` refuses, `StorageUnavailableError` where trying again later may help, and
    `StorageError` where it will not. What a source raises passes through. `mindia.testing.storage` tests all of it.
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

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket without objects, and what interrupted `put`s left in it. A missing one is fine.

        Raises `BucketNotEmptyError`, and deletes no object, where there is one. A `put` at the same time succeeds, and
        makes the bucket anew where it comes later.
        """
        ...

    def list(self, bucket: str, *, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix` and come after the key `after`, in order."""
        ...


def check_key(key: str) -> None:
    """Refuse keys that a file system or a URL could understand in another way.

    Raises:
        InvalidError: The key is empty, longer than 1024 bytes, not in Unicode form NFC, has a control character or a
            backslash, or a segment that is empty, longer than 200 bytes, or begins with a dot.
    """
    _check(key, "key")


def check_bucket(bucket: str) -> None:
    """Refuse names of buckets that could be understood in another way.

    Raises:
        InvalidError: The name is not one segment of a key.
    """
    _check(bucket, "bucket")
    if "/" in bucket:
        raise InvalidError(f"the bucket {bucket[:80]!r} has a slash")


def check_prefix(prefix: str) -> None:
    """Refuse prefixes that no key can begin with; the empty one is fine.

    Raises:
        InvalidError: No key that `check_key` lets pass begins with it.
    """
    if prefix:
        _check(prefix.removesuffix("/"), "prefix")


def _check(name: str, what: str) -> None:
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise InvalidError(f"a {what} has 1 to {MAX_KEY_BYTES} bytes, not {len(name)} characters: {name[:80]!r}")
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidError(f"the {what} {name[:80]!r} is not in Unicode form NFC")
    if _UNSAFE.search(name):
        raise InvalidError(f"the {what} {name[:80]!r} has a control character or a backslash")
    for segment in name.split("/"):
        if not segment or segment.startswith("."):
            raise InvalidError(f"the {what} {name[:80]!r} has a segment that is empty or begins with a dot")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise InvalidError(f"the {what} {name[:80]!r} has a segment of more than {MAX_SEGMENT_BYTES} bytes")
