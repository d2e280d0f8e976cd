"""The port of object stores."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import BinaryIO, Protocol, runtime_checkable

import attrs

from mindia.errors import InvalidError

MAX_KEY_BYTES = 1024
"""As on S3."""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]")
"""Control characters (category Cc), surrogates (Cs), and the backslash."""

MAX_SEGMENT_BYTES = 200
"""File systems allow 255, of which some are needed for the names of unfinished files."""

MIN_PART_BYTES = 5 << 20
"""As on S3: each part of an upload but the last has at least as much."""

MAX_PARTS = 10_000
"""Of an upload, as on S3."""


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

    def put(
        self,
        bucket: str,
        key: str,
        source: BinaryIO,
        *,
        content_type: str,
        disposition: str | None = None,
        region: str | None = None,
    ) -> None:
        """Store what `source` reads from its position to its end, durably; a reader sees all of it or nothing.

        Args:
            bucket: Where.
            key: Under which key, in place of what was there.
            source: Is read from its position to its end.
            content_type: Which the store may serve it with.
            disposition: A header `Content-Disposition` that the store may serve it with.
            region: The bucket's, where it is made by this; that of the storage by default.
        """
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

    def copy(self, bucket: str, key: str, *, to_bucket: str, to_key: str, region: str | None = None) -> None:
        """Copy an object. Raises `ObjectNotFoundError`. `region` is that of `to_bucket`, where it is made by this."""
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


@attrs.frozen(kw_only=True)
class NewObject:
    """An object that is to be stored; its attributes are what `Storage.put` takes."""

    key: str
    source: BinaryIO
    content_type: str
    disposition: str | None = None


@runtime_checkable
class BatchStorage(Storage, Protocol):
    """A store that takes several small objects in less time at once than one by one. Not every store is one.

    `mindia.testing.batch_storage` tests it.
    """

    def putting(
        self, bucket: str, objects: Sequence[NewObject], *, region: str | None = None
    ) -> AbstractContextManager[Callable[[], None]]:
        """Store objects of different keys, as `put` does each, around a `with` block.

        A reader sees them by the time that the block begins. It is given a function that returns once they are there
        for good, as `put` does, and may be called again; the end of the block does so where nobody has. Until then,
        what this or the block raises stands for all: none of them is there then that was not there before. Those that
        were there may be the earlier ones or the new ones.
        """
        ...


def batches_of(storage: Storage) -> BatchStorage | None:
    """Return a store as one that takes several objects at once, unless that would pass by a `put` of its own.

    That of a subclass is one, and that of a wrapper which hands on what it does not have.
    """
    for each in type(storage).__mro__:
        if "putting" in vars(each):
            return storage if isinstance(storage, BatchStorage) else None
        if "put" in vars(each):
            return None
    return None


@attrs.frozen
class UploadForm:
    """What a browser posts to store an object: `multipart/form-data` of all fields, and then a field `file`.

    Whoever has it can upload, until it expires.

    Attributes:
        url: Where it is posted to.
        fields: Names and values.
    """

    url: str
    fields: Mapping[str, str] = attrs.field(hash=False)


@attrs.frozen
class UploadedPart:
    """A part of an upload that has arrived.

    Attributes:
        number: From 1.
        size: In bytes.
        etag: By which the store knows its content.
    """

    number: int
    size: int
    etag: str


@runtime_checkable
class DirectStorage(Storage, Protocol):
    """A store that others can reach themselves, at addresses that it signs. Not every store is one."""

    def url(self, bucket: str, key: str, *, expires_in: timedelta, content_type: str, disposition: str) -> str | None:
        """Return an address that gives an object to whoever has it; None where the host is to serve it."""
        ...

    def upload_form(
        self,
        bucket: str,
        key: str,
        *,
        content_type: str,
        max_bytes: int,
        expires_in: timedelta,
        region: str | None = None,
    ) -> UploadForm:
        """Return what a browser needs to store an object of at most so many bytes itself."""
        ...

    def begin_parts(self, bucket: str, key: str, *, content_type: str, region: str | None = None) -> str:
        """Begin an upload in parts and return its id. The object is there once `complete_parts` has returned."""
        ...

    def part_url(self, bucket: str, key: str, *, upload_id: str, number: int, size: int, expires_in: timedelta) -> str:
        """Return an address to which a part of exactly so many bytes can be put; `number` is from 1."""
        ...

    def uploaded_parts(self, bucket: str, key: str, *, upload_id: str) -> Sequence[UploadedPart]:
        """Return the parts that have arrived, in their order. Raises `ObjectNotFoundError` without such an upload."""
        ...

    def complete_parts(self, bucket: str, key: str, *, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        """Make the object of its parts. Raises `StorageError` where that is not possible, as without such an upload."""
        ...

    def abort_parts(self, bucket: str, key: str, *, upload_id: str) -> None:
        """Remove an upload with its parts. A missing one is fine."""
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
